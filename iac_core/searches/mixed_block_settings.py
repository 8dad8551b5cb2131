"""Which mixed-block networks a search chooses from, and the masks of MB-NAS's other spaces."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from iac_core.backbones.mixed_block.blocks import BLOCKS
from iac_core.backbones.mixed_block.genotype import DEEPEST, KERNELS, MOST_NODES
from iac_core.backbones.mixed_block.network import MixedBlockSettings
from iac_core.config import require

Kind = Literal["level", "block", "kernel", "skip"]
KINDS: tuple[Kind, ...] = ("level", "block", "kernel", "skip")

MASKS: dict[str, tuple[tuple[Kind, ...], ...]] = {
    "mixed_block": (("level", "block", "kernel", "skip"),),
    "macro": (("level", "skip"),),
    "micro": (("block", "kernel"),),
    "bilevel": (("level", "skip"), ("kernel",)),
}
"""Name → the kinds of variables that are free in each phase (section 2.4). All others are those of
the U-Net of VGG blocks with kernel 3; in a second phase, those of the best network before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedBlockSpaceSettings:
    """Which networks there are. The defaults give the paper's 1.14e18 encodings.

    Attributes:
        n_nodes: Nodes of the chain.
        n_levels: Levels; level 0 has the resolution of the image.
        n_skip_sources: A skip comes from one of so many nearest nodes of its level; 0 has none.
        blocks: Blocks that a node may have.
        kernels: Kernels that a node may have.
        tied: Groups of nodes, counted from 0, that share one block and one kernel; nodes in no
            group have their own.
        width: Channels of level 0.
        max_width: Most channels of a level.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    n_nodes: int = 10
    n_levels: int = 5
    n_skip_sources: int = 1
    blocks: tuple[str, ...] = ("vgg", "residual", "dense", "inception")
    kernels: tuple[int, ...] = KERNELS
    tied: tuple[tuple[int, ...], ...] = ()
    width: int = 32
    max_width: int = 512

    def __post_init__(self) -> None:
        require(
            2 <= self.n_nodes <= MOST_NODES, f"n_nodes must be 2 to {MOST_NODES}", self.n_nodes
        )
        rule = f"n_levels must be 1 to {DEEPEST + 1}"
        require(1 <= self.n_levels <= DEEPEST + 1, rule, self.n_levels)
        require(
            0 <= self.n_skip_sources <= 9, "n_skip_sources must be 0 to 9", self.n_skip_sources
        )
        for name, values, known in (
            ("blocks", self.blocks, tuple(BLOCKS)),
            ("kernels", self.kernels, KERNELS),
        ):
            is_choice = bool(values) and len(set(values)) == len(values) <= len(known)
            rule = f"{name} must name some of {', '.join(map(str, known))}, each once"
            require(is_choice and set(values) <= set(known), rule, values)
        nodes = [node for group in self.tied for node in group]
        is_known = all(0 <= node < self.n_nodes for node in nodes)
        rule = f"tied must name nodes from 0 to {self.n_nodes - 1}, each in one group"
        require(is_known and len(set(nodes)) == len(nodes) and all(self.tied), rule, self.tied)
        MixedBlockSettings(width=self.width, max_width=self.max_width)

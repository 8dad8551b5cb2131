"""Genotypes of mixed-block networks, as text for people and as digits as in the authors' code."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from iac_core.backbones.mixed_block.blocks import BLOCKS
from iac_core.config import require

KERNELS = (3, 5, 7)
MOST_NODES = 64
DEEPEST = 9
"""Deepest level; a digit each for level and skip, and a stride that slices can be padded to."""
_NODE = re.compile(r"([a-z]+)([0-9])@([0-9])(?:\+([1-9]))?")
_FORM = "genotype must have nodes such as vgg3@0 or dense5@2+1 (block, kernel, @level, +skip)"


class MixedNode(NamedTuple):
    """One node of the chain.

    Attributes:
        level: Resolution 1 / 2**level, width 2**level times that of level 0.
        block: Block of the edge that leaves the node, one of `BLOCKS`.
        kernel: Kernel of that block, one of `KERNELS`.
        skip: 0 for no skip; k concatenates the kth nearest of the node's `sources`.
    """

    level: int
    block: str
    kernel: int
    skip: int = 0

    def __str__(self) -> str:
        skip = f"+{self.skip}" if self.skip else ""
        return f"{self.block}{self.kernel}@{self.level}{skip}"


def sources(levels: Sequence[int], node: int) -> list[int]:
    """Return the nodes that a skip into a node may come from, the nearest first.

    They are of the node's level and not its predecessor, which enters it anyway.

    Args:
        levels: Level of every node.
        node: Index of the node.

    Examples:
        >>> sources([0, 1, 1, 0, 0, 0], 5)
        [3, 0]
    """
    return [other for other in range(node - 2, -1, -1) if levels[other] == levels[node]]


@dataclass(frozen=True, slots=True)
class MixedGenotype:
    """A valid chain of nodes; one network has one genotype.

    Attributes:
        nodes: From the image to the logits. The first is at level 0, the last at level 0 or 1.

    Raises:
        ConfigError: If levels differ by more than 1 from node to node, an end is too deep, a
            block or kernel is unknown, or a skip has no source.

    Examples:
        >>> genotype = MixedGenotype.from_text("vgg3@0 dense5@1 residual7@0+1")
        >>> genotype.nodes[1]
        MixedNode(level=1, block='dense', kernel=5, skip=0)
        >>> str(genotype), genotype.digits, genotype.source(2)
        ('vgg3@0 dense5@1 residual7@0+1', '000012100121', 0)
    """

    nodes: tuple[MixedNode, ...]

    def __post_init__(self) -> None:
        n_nodes, levels = len(self.nodes), self.levels
        rule = f"genotype must have 2 to {MOST_NODES} nodes"
        require(2 <= n_nodes <= MOST_NODES, rule, n_nodes)
        require(levels[0] == 0, "genotype must begin at level 0", levels[0])
        for place, (before, level) in enumerate(pairwise(levels), start=2):
            rule = f"genotype must have levels that differ by at most 1, at node {place} of it"
            require(abs(level - before) <= 1, rule, f"{level} after {before}")
        require(levels[-1] in (0, 1), "genotype must end at level 0 or 1", levels[-1])
        rule = f"genotype must have levels from 0 to {DEEPEST}"
        require(min(levels) >= 0 and max(levels) <= DEEPEST, rule, levels)
        for place, node in enumerate(self.nodes):
            at = f"at node {place + 1} of it"
            known = ", ".join(BLOCKS)
            require(
                node.block in BLOCKS, f"genotype must have blocks of {known}, {at}", node.block
            )
            rule = f"genotype must have kernels of 3, 5 and 7, {at}"
            require(node.kernel in KERNELS, rule, node.kernel)
            n_sources = len(sources(levels, place))
            rule = (
                f"genotype must have skips from earlier nodes of the same level, {at}, "
                f"which has {n_sources} (its predecessor does not count)"
            )
            require(0 <= node.skip <= min(n_sources, 9), rule, f"+{node.skip}")

    def __str__(self) -> str:
        return " ".join(map(str, self.nodes))

    @property
    def levels(self) -> tuple[int, ...]:
        """Level of every node."""
        return tuple(node.level for node in self.nodes)

    @property
    def digits(self) -> str:
        """Level, block, kernel and skip of each node as digits: the text of the authors' code."""
        codes = list(BLOCKS)
        return "".join(
            f"{node.level}{codes.index(node.block)}{KERNELS.index(node.kernel)}{node.skip}"
            for node in self.nodes
        )

    def source(self, node: int) -> int | None:
        """Return the node that a node's skip comes from; None if it has none."""
        skip = self.nodes[node].skip
        return sources(self.levels, node)[skip - 1] if skip else None

    @classmethod
    def from_text(cls, text: str) -> "MixedGenotype":
        """Return the genotype of its text form, nodes between single blanks.

        Raises:
            ConfigError: If the text is not that of a valid genotype.
        """
        nodes = []
        for place, word in enumerate(text.split(" "), start=1):
            found = _NODE.fullmatch(word)
            require(
                found is not None, f"{_FORM} between single blanks, at node {place} of it", word
            )
            assert found is not None
            block, kernel, level, skip = found.groups()
            nodes.append(MixedNode(int(level), block, int(kernel), int(skip or 0)))
        return cls(tuple(nodes))

    @classmethod
    def from_digits(cls, digits: str) -> "MixedGenotype":
        """Return the genotype of the authors' digits.

        As in their decoder, a request for a source that does not exist is no skip.

        Raises:
            ConfigError: If these are not four digits for each node, or not those of a valid
                genotype.
        """
        is_whole = digits.isascii() and digits.isdigit() and len(digits) % 4 == 0
        require(is_whole, "genotype must have four digits for each node", digits)
        groups = [tuple(map(int, digits[at : at + 4])) for at in range(0, len(digits), 4)]
        levels = [group[0] for group in groups]
        nodes = []
        for place, (level, block, kernel, skip) in enumerate(groups):
            at = f"at node {place + 1} of it"
            require(block < len(BLOCKS), f"genotype must have a known block, {at}", block)
            require(kernel < len(KERNELS), f"genotype must have kernels 0, 1 and 2, {at}", kernel)
            known = skip if skip <= len(sources(levels, place)) else 0
            nodes.append(MixedNode(level, list(BLOCKS)[block], KERNELS[kernel], known))
        return cls(tuple(nodes))


def u_net_genotype(
    n_nodes: int = 10, n_levels: int = 5, *, block: str = "vgg", kernel: int = 3
) -> MixedGenotype:
    """Return the U-Net: down to the deepest level, along it, up again, a skip at every up-step.

    Args:
        n_nodes: Nodes.
        n_levels: Levels, the deepest of which the nodes may be too few to reach.
        block: Block of all nodes.
        kernel: Kernel of all nodes.

    Examples:
        >>> u_net_genotype().levels
        (0, 1, 2, 3, 4, 4, 3, 2, 1, 0)
        >>> str(u_net_genotype(4, 2, block="dense", kernel=5))
        'dense5@0 dense5@1 dense5@1 dense5@0+1'
    """
    levels = [min(node, n_levels - 1, n_nodes - 1 - node) for node in range(n_nodes)]
    nodes = []
    for node, level in enumerate(levels):
        is_up = node > 0 and level < levels[node - 1]
        has_skip = is_up and bool(sources(levels, node))
        nodes.append(MixedNode(level, block, kernel, int(has_skip)))
    return MixedGenotype(tuple(nodes))

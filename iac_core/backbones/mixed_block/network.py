"""The network of a genotype, as a backbone that hosts no cells."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.mixed_block.blocks import BLOCKS, vgg
from iac_core.backbones.mixed_block.decoding import decoded
from iac_core.backbones.mixed_block.genotype import MixedGenotype, u_net_genotype
from iac_core.backbones.rivals import Rival
from iac_core.config import require, require_at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedBlockSettings:
    """A mixed-block network; the default is the U-Net of ten nodes and five levels.

    Attributes:
        genotype: Nodes as text, see `MixedGenotype`.
        width: Channels of level 0; each level doubles them.
        max_width: Most channels of a level, an even number.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    genotype: str = str(u_net_genotype())
    width: int = 32
    max_width: int = 512

    def __post_init__(self) -> None:
        MixedGenotype.from_text(self.genotype)
        require_at_least(1, width=self.width, max_width=self.max_width)
        is_even = self.max_width >= self.width and self.max_width % 2 == 0
        require(is_even, "max_width must be even and at least width", self.max_width)

    @property
    def n_skips(self) -> int:
        """None that a cell could go into."""
        return 0


class MixedBlockNetwork(nn.Module):
    """A chain of blocks, with concatenations of earlier nodes of the same level.

    Weights start as PyTorch's layers do, as in the authors' code.

    Args:
        settings: Genotype and widths.
        n_channels: Image channels.
        n_classes: Classes, background included.
    """

    def __init__(self, settings: MixedBlockSettings, *, n_channels: int, n_classes: int) -> None:
        super().__init__()
        genotype = MixedGenotype.from_text(settings.genotype)
        plans = decoded(genotype, width=settings.width, max_width=settings.max_width)
        self.sources = tuple(plan.source for plan in plans)
        self.stem = vgg(n_channels, settings.width, 3, 1)
        self.ups = nn.ModuleList(
            nn.Identity()
            if plan.upsampled_channels is None
            else nn.ConvTranspose2d(plan.upsampled_channels, plan.in_channels, 2, 2, bias=False)
            for plan in plans
        )
        self.blocks = nn.ModuleList(
            BLOCKS[plan.block](plan.in_channels, plan.out_channels, plan.kernel, plan.stride)
            for plan in plans
        )
        self.head = nn.Conv2d(settings.width, n_classes, 1)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits; rows and columns must be multiples of the deepest level's stride."""
        x = self.stem(images)
        features = [x]
        for up, block, source in zip(self.ups, self.blocks, self.sources, strict=True):
            x = block(up(x))
            features.append(x)
            if source is not None:
                # Later skips take the node's own feature, without what is joined to it here.
                x = torch.cat([x, features[source]], dim=1)
        logits: Tensor = self.head(x)
        return logits


def mixed_block(settings: MixedBlockSettings, *, n_channels: int, n_classes: int) -> Rival:
    """Return the network of a genotype; slices are padded to a multiple of its deepest stride."""
    network = MixedBlockNetwork(settings, n_channels=n_channels, n_classes=n_classes)
    deepest = max(MixedGenotype.from_text(settings.genotype).levels)
    return Rival(network, multiple=2**deepest)

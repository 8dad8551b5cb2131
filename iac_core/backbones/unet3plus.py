"""UNet 3+ (Huang et al. 2020): every decoder level takes all scales, brought to its own."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.unet import double_conv


class _Branch(nn.Module):
    """One scale on its way to a decoder level: pooled down or interpolated up, one convolution."""

    def __init__(self, start: int, end: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.body = nn.Sequential(
            nn.Conv2d(start, end, 3, padding=1, bias=False),
            nn.BatchNorm2d(end),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        if self.steps > 0:
            x = F.max_pool2d(x, 2**self.steps)
        elif self.steps < 0:
            factor = float(2**-self.steps)
            x = F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
        out: Tensor = self.body(x)
        return out


class UNet3Plus(nn.Module):
    """The full-scale skips alone: no deep supervision, no classification-guided module.

    Args:
        n_channels: Image channels.
        n_classes: Classes, background included.
        widths: Channels of the encoder's levels, finest first.
        branch_width: Channels that each scale brings to a decoder level.
    """

    def __init__(
        self, n_channels: int, n_classes: int, widths: Sequence[int], branch_width: int
    ) -> None:
        super().__init__()
        n_levels = len(widths)
        starts = (n_channels, *widths[:-1])
        self.encoder = nn.ModuleList(
            double_conv(start, width) for start, width in zip(starts, widths, strict=True)
        )
        joined = n_levels * branch_width
        self.branches = nn.ModuleList()
        self.blocks = nn.ModuleList()
        for level in range(n_levels - 1):
            # Finer and equal scales come from the encoder, deeper ones from the decoder.
            sources = [*widths[: level + 1], *[joined] * (n_levels - 2 - level), widths[-1]]
            self.branches.append(
                nn.ModuleList(
                    _Branch(start, branch_width, level - scale)
                    for scale, start in enumerate(sources)
                )
            )
            self.blocks.append(_Branch(joined, joined, 0))
        self.head = nn.Conv2d(joined, n_classes, 1)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits; rows and columns must be multiples of 2 to the number of poolings."""
        features: list[Tensor] = []
        x = images
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        for level in reversed(range(len(self.blocks))):
            branches = self.branches[level]
            assert isinstance(branches, nn.ModuleList)
            scales = [branch(x) for branch, x in zip(branches, features, strict=True)]
            features[level] = self.blocks[level](torch.cat(scales, dim=1))
        logits: Tensor = self.head(features[0])
        return logits

"""A plain 2-D U-Net: two convolutions a level, max-pooling down, transposed convolutions up."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.interface import Adapter, SkipSite, fit_to, keep_skip
from iac_core.config import require_levels


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSettings:
    """Attributes: widths: channels of each level, finest first; the last is the bottleneck."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    widths: tuple[int, ...] = (32, 64, 128, 256)

    def __post_init__(self) -> None:
        require_levels(1, at_least=2, widths=self.widths)

    @property
    def n_skips(self) -> int:
        """Skip connections of the network."""
        return len(self.widths) - 1


def double_conv(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two 3 × 3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for start in (in_channels, out_channels):
        layers += [
            nn.Conv2d(start, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class _Decoder(nn.Module):
    def __init__(self, widths: Sequence[int], n_classes: int) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, fine, 2, 2) for fine, deep in pairs)
        self.blocks = nn.ModuleList(double_conv(2 * fine, fine) for fine, _ in pairs)
        self.head = nn.Conv2d(widths[0], n_classes, 1)


class UNet(nn.Module):
    """U-Net with a skip at every level but the bottleneck.

    Args:
        settings: Widths.
        n_channels: Image channels.
        n_classes: Classes, background included.
    """

    def __init__(self, settings: UNetSettings, *, n_channels: int, n_classes: int) -> None:
        super().__init__()
        widths = settings.widths
        starts = (n_channels, *widths[:-1])
        self.encoder: nn.Module = nn.ModuleList(
            double_conv(start, width) for start, width in zip(starts, widths, strict=True)
        )
        self.decoder: nn.Module = _Decoder(widths, n_classes)
        self.sites = tuple(
            SkipSite(skip_channels=width, decoder_channels=width, stride=2**level)
            for level, width in enumerate(widths[:-1])
        )

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return one feature per level, finest first."""
        assert isinstance(self.encoder, nn.ModuleList)
        features: list[Tensor] = []
        x = images
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        return features

    def decode(
        self, features: Sequence[Tensor], adapter: Adapter = keep_skip
    ) -> Float[Tensor, "b k h w"]:
        """Return logits of the input's size."""
        assert isinstance(self.decoder, _Decoder)
        x = features[-1]
        for level in reversed(range(len(self.sites))):
            skip = features[level]
            upsampled = fit_to(self.decoder.up[level](x), skip.shape[-2:])
            joined = torch.cat([adapter(level, skip, upsampled), upsampled], dim=1)
            x = self.decoder.blocks[level](joined)
        logits: Tensor = self.decoder.head(x)
        return logits

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits of the backbone without cells."""
        return self.decode(self.encode(images))

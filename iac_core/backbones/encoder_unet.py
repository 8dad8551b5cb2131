"""U-Nets that differ in their encoder alone: residual, VGG-style, MobileNetV2-style."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.encoders import (
    Encoder,
    mobile_net_v2_encoder,
    residual_encoder,
    vgg_encoder,
)
from iac_core.backbones.interface import Adapter, SkipSite, fit_to, keep_skip, recorded_sites
from iac_core.backbones.unet import double_conv
from iac_core.config import require, require_at_least, require_levels, require_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidualUNetSettings:
    """Attributes: widths: channels of each level, finest first. n_blocks: residual blocks each."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    widths: tuple[int, ...] = (32, 64, 128, 256)
    n_blocks: int = 1

    def __post_init__(self) -> None:
        require_levels(1, at_least=2, widths=self.widths)
        require_at_least(1, n_blocks=self.n_blocks)

    @property
    def n_skips(self) -> int:
        """Skip connections of the network."""
        return len(self.widths) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class VggUNetSettings:
    """Settings of a U-Net with a VGG-style encoder.

    Attributes:
        widths: Channels of each level, finest first.
        n_convolutions: Convolutions of each level; the defaults are those of VGG-16.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    n_convolutions: tuple[int, ...] = (2, 2, 3, 3, 3)

    def __post_init__(self) -> None:
        require_levels(1, at_least=2, widths=self.widths)
        require(
            len(self.n_convolutions) == len(self.widths),
            "n_convolutions must name at least 1 for each of the widths",
            self.n_convolutions,
        )
        require_levels(1, at_least=2, n_convolutions=self.n_convolutions)

    @property
    def n_skips(self) -> int:
        """Skip connections of the network."""
        return len(self.widths) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class MobileNetV2UNetSettings:
    """Settings of a U-Net with a MobileNetV2-style encoder.

    Attributes:
        width_factor: Factor on the encoder's channels.
        decoder_channels: Channels of the decoder's levels, finest (stride 2) first.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    width_factor: float = 1.0
    decoder_channels: tuple[int, ...] = (16, 32, 64, 128)

    def __post_init__(self) -> None:
        require_positive(width_factor=self.width_factor)
        require(
            len(self.decoder_channels) == 4,
            "decoder_channels must name four levels of at least 1 channel",
            self.decoder_channels,
        )
        require_levels(1, at_least=4, decoder_channels=self.decoder_channels)

    @property
    def n_skips(self) -> int:
        """Skip connections of the network."""
        return len(self.decoder_channels)


class _Decoder(nn.Module):
    """Transposed convolution, concatenation, two convolutions at each level."""

    def __init__(
        self, channels: Sequence[int], widths: Sequence[int], n_classes: int, finest_stride: int
    ) -> None:
        super().__init__()
        deep = [*widths[1:], channels[-1]]
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(start, width, 2, 2)
            for start, width in zip(deep, widths, strict=True)
        )
        self.blocks = nn.ModuleList(
            double_conv(skip + width, width)
            for skip, width in zip(channels[:-1], widths, strict=True)
        )
        last = widths[0]
        self.finest: nn.Module = nn.Identity()
        if finest_stride > 1:
            self.finest = nn.Sequential(
                nn.ConvTranspose2d(last, last, finest_stride, finest_stride),
                double_conv(last, last),
            )
        self.head = nn.Conv2d(last, n_classes, 1)


class EncoderUNet(nn.Module):
    """A U-Net on an encoder; every feature but the deepest is a skip.

    Args:
        encoder: Features, finest first.
        widths: Channels of the decoder's levels, finest first; one fewer than features.
        n_channels: Image channels.
        n_classes: Classes, background included.
    """

    def __init__(
        self, encoder: Encoder, widths: Sequence[int], *, n_channels: int, n_classes: int
    ) -> None:
        super().__init__()
        self.encoder: nn.Module = encoder
        self.decoder: nn.Module = _Decoder(encoder.channels, widths, n_classes, encoder.strides[0])
        assert all(deep == 2 * fine for fine, deep in pairwise(encoder.strides))
        self.sites: tuple[SkipSite, ...] = recorded_sites(self, n_channels)

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the encoder's features, finest first."""
        features: list[Tensor] = self.encoder(images)
        return features

    def decode(
        self, features: Sequence[Tensor], adapter: Adapter = keep_skip
    ) -> Float[Tensor, "b k h w"]:
        """Return logits, at least of the input's size."""
        assert isinstance(self.decoder, _Decoder)
        x = features[-1]
        for level in reversed(range(len(features) - 1)):
            skip = features[level]
            upsampled = fit_to(self.decoder.up[level](x), skip.shape[-2:])
            joined = torch.cat([adapter(level, skip, upsampled), upsampled], dim=1)
            x = self.decoder.blocks[level](joined)
        logits: Tensor = self.decoder.head(self.decoder.finest(x))
        return logits

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits of the backbone without cells."""
        return fit_to(self.decode(self.encode(images)), images.shape[-2:])


def residual_unet(
    settings: ResidualUNetSettings, *, n_channels: int, n_classes: int
) -> EncoderUNet:
    """Return a U-Net of residual blocks."""
    encoder = residual_encoder(n_channels, settings.widths, settings.n_blocks)
    return EncoderUNet(encoder, settings.widths[:-1], n_channels=n_channels, n_classes=n_classes)


def vgg_unet(settings: VggUNetSettings, *, n_channels: int, n_classes: int) -> EncoderUNet:
    """Return a U-Net on a VGG-style encoder."""
    encoder = vgg_encoder(n_channels, settings.widths, settings.n_convolutions)
    return EncoderUNet(encoder, settings.widths[:-1], n_channels=n_channels, n_classes=n_classes)


def mobile_net_v2_unet(
    settings: MobileNetV2UNetSettings, *, n_channels: int, n_classes: int
) -> EncoderUNet:
    """Return a U-Net on a MobileNetV2-style encoder."""
    encoder = mobile_net_v2_encoder(n_channels, settings.width_factor)
    return EncoderUNet(
        encoder, settings.decoder_channels, n_channels=n_channels, n_classes=n_classes
    )

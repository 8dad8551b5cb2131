"""The U-Nets of Segmentation Models PyTorch that MB-NAS compares with, built here.

Its ``Unet`` with the encoders VGG-13 with batch norm and ResNet-50, without pre-training: strides
2 to 32, nearest up-sampling, two convolutions a level, the weights' start of both libraries. With
2 channels and 3 classes they have 18.44 and 32.52 M parameters, and 301.3 and 165.6 M
multiply–accumulates at 32 × 32. ``vgg_unet`` (VGG-16, transposed convolutions, a skip at stride 1)
and ``resnet50_unet`` (MONAI's, 1 × 1 convolutions before up-sampling: 32.11 M, 151.6 M) are
others.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.encoders import Encoder
from iac_core.backbones.interface import Adapter, SkipSite, fit_to, keep_skip, recorded_sites
from iac_core.config import require, require_at_least

_N_SKIPS = 4
_BLOCKS = (3, 4, 6, 3)
"""Bottleneck blocks of a ResNet-50's stages (He et al. 2016, table 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmpVgg13UNetSettings:
    """A U-Net with the encoder VGG-13 with batch norm.

    Attributes:
        width: Channels of the encoder's first convolution, a multiple of 4; all others follow.
            64 is the published size.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    width: int = 64

    def __post_init__(self) -> None:
        require_at_least(4, width=self.width)
        require(self.width % 4 == 0, "width must be a multiple of 4", self.width)

    @property
    def n_skips(self) -> int:
        """Skip connections of the network."""
        return _N_SKIPS


@dataclass(frozen=True, slots=True, kw_only=True)
class SmpResNet50UNetSettings(SmpVgg13UNetSettings):
    """The same with a ResNet-50."""


class _Decoder(nn.Module):
    """Blocks from the deepest on; the last has no skip. The VGG has two convolutions before."""

    def __init__(self, channels: Sequence[int], width: int, n_classes: int, centre: bool) -> None:
        super().__init__()
        ends = [4 * width, 2 * width, width, width // 2, width // 4]
        starts = [channels[-1], *ends[:-1]]
        skips = [*reversed(channels[:-1]), 0]
        deepest = channels[-1]
        self.centre = _convolutions(deepest, deepest) if centre else nn.Identity()
        self.blocks = nn.ModuleList(
            _convolutions(start + skip, end)
            for start, skip, end in zip(starts, skips, ends, strict=True)
        )
        self.head = nn.Conv2d(ends[-1], n_classes, 3, padding=1)


class SmpUNet(nn.Module):
    """A U-Net on an encoder whose features have strides 2, 4, 8, 16 and 32.

    Args:
        encoder: Features, finest first.
        width: Channels that the decoder's widths follow from.
        has_centre: Whether two convolutions follow on the deepest feature.
        n_channels: Image channels.
        n_classes: Classes, background included.
    """

    def __init__(
        self, encoder: Encoder, width: int, *, has_centre: bool, n_channels: int, n_classes: int
    ) -> None:
        super().__init__()
        self.encoder: nn.Module = encoder
        self.decoder: nn.Module = _Decoder(encoder.channels, width, n_classes, has_centre)
        _start_weights(self.encoder, self.decoder)
        self.sites: tuple[SkipSite, ...] = recorded_sites(self, n_channels)

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the encoder's features, finest (stride 2) first."""
        features: list[Tensor] = self.encoder(images)
        return features

    def decode(
        self, features: Sequence[Tensor], adapter: Adapter = keep_skip
    ) -> Float[Tensor, "b k h w"]:
        """Return logits, at least of the input's size."""
        assert isinstance(self.decoder, _Decoder)
        x = self.decoder.centre(features[-1])
        for index, block in enumerate(self.decoder.blocks):
            level = _N_SKIPS - 1 - index
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            if level >= 0:
                skip = features[level]
                x = fit_to(x, skip.shape[-2:])
                x = torch.cat([x, adapter(level, skip, x)], dim=1)
            x = block(x)
        logits: Tensor = self.decoder.head(x)
        return logits

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return logits of the backbone without cells."""
        return fit_to(self.decode(self.encode(images)), images.shape[-2:])


def smp_vgg13_unet(settings: SmpVgg13UNetSettings, *, n_channels: int, n_classes: int) -> SmpUNet:
    """Return the U-Net on a VGG-13 with batch norm."""
    width = settings.width
    widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
    stages: list[nn.Module] = []
    start = n_channels
    for level, end in enumerate(widths):
        halving: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if level else []
        convolutions = [*_convolution(start, end, bias=True), *_convolution(end, end, bias=True)]
        stages.append(nn.Sequential(*halving, *convolutions))
        start = end
    # No skip is taken at stride 1, and the deepest feature is pooled alone.
    stages = [nn.Sequential(*stages[:2]), *stages[2:], nn.MaxPool2d(2, ceil_mode=True)]
    encoder = Encoder(stages, [*widths[1:], widths[-1]], [2, 4, 8, 16, 32])
    return SmpUNet(encoder, width, has_centre=True, n_channels=n_channels, n_classes=n_classes)


def smp_resnet50_unet(
    settings: SmpResNet50UNetSettings, *, n_channels: int, n_classes: int
) -> SmpUNet:
    """Return the U-Net on a ResNet-50."""
    width = settings.width
    stages: list[nn.Module] = [nn.Sequential(*_convolution(n_channels, width, size=7, stride=2))]
    channels, start = [width], width
    for level, n_blocks in enumerate(_BLOCKS):
        inner = width * 2**level
        blocks: list[nn.Module] = [nn.MaxPool2d(3, 2, 1)] if level == 0 else []
        for index in range(n_blocks):
            stride = 2 if level and index == 0 else 1
            blocks.append(_Bottleneck(start, inner, stride=stride))
            start = 4 * inner
        stages.append(nn.Sequential(*blocks))
        channels.append(start)
    encoder = Encoder(stages, channels, [2, 4, 8, 16, 32])
    return SmpUNet(encoder, width, has_centre=False, n_channels=n_channels, n_classes=n_classes)


def _convolution(
    start: int, end: int, *, size: int = 3, stride: int = 1, bias: bool = False
) -> list[nn.Module]:
    """A convolution, batch norm and ReLU."""
    return [
        nn.Conv2d(start, end, size, stride, size // 2, bias=bias),
        nn.BatchNorm2d(end),
        nn.ReLU(inplace=True),
    ]


def _convolutions(start: int, end: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(start, end), *_convolution(end, end))


class _Bottleneck(nn.Module):
    """1 × 1, 3 × 3 (with the stride), 1 × 1 to four times the width, beside a shortcut."""

    def __init__(self, start: int, inner: int, *, stride: int) -> None:
        super().__init__()
        end = 4 * inner
        self.body = nn.Sequential(
            *_convolution(start, inner, size=1),
            *_convolution(inner, inner, stride=stride),
            *_convolution(inner, end, size=1)[:-1],
        )
        is_same = start == end and stride == 1
        self.shortcut: nn.Module = nn.Identity()
        if not is_same:
            self.shortcut = nn.Sequential(*_convolution(start, end, size=1, stride=stride)[:-1])

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        out: Tensor = torch.relu(self.body(x) + self.shortcut(x))
        return out


def _start_weights(encoder: nn.Module, decoder: nn.Module) -> None:
    """Start as torchvision's encoders and the library's decoder do; biases start at 0."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for module in decoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, mode="fan_in", nonlinearity="relu")
    assert isinstance(decoder, _Decoder)
    nn.init.xavier_uniform_(decoder.head.weight)
    for module in (*encoder.modules(), *decoder.modules()):
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)

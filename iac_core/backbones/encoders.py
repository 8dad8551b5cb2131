"""Encoders of three families: residual, VGG-style, MobileNetV2-style; features finest first."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.interface import features_of


class Encoder(nn.Module):
    """Stages one after the other; the features are what they return.

    Args:
        stages: From the image on.
        channels: Channels of each stage's feature.
        strides: Input size over feature size, of each stage's feature.
    """

    def __init__(
        self, stages: Sequence[nn.Module], channels: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels, self.strides = tuple(channels), tuple(strides)

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return one feature per stage, finest first."""
        return features_of(self.stages, images)


def residual_encoder(n_channels: int, widths: Sequence[int], n_blocks: int) -> Encoder:
    """Return residual blocks of two convolutions, halving by stride (He et al. 2016).

    Args:
        n_channels: Image channels.
        widths: Channels of each stage.
        n_blocks: Blocks of each stage.
    """
    stages: list[nn.Module] = []
    start = n_channels
    for level, width in enumerate(widths):
        blocks = [_ResidualBlock(start, width, stride=2 if level else 1)]
        blocks += [_ResidualBlock(width, width, stride=1) for _ in range(n_blocks - 1)]
        stages.append(nn.Sequential(*blocks))
        start = width
    return Encoder(stages, widths, [2**level for level in range(len(widths))])


def vgg_encoder(n_channels: int, widths: Sequence[int], n_convolutions: Sequence[int]) -> Encoder:
    """Return VGG stages with batch norm: convolutions, halving by max-pooling between stages.

    Args:
        n_channels: Image channels.
        widths: Channels of each stage.
        n_convolutions: Convolutions of each stage; (2, 2, 3, 3, 3) is VGG-16.
    """
    stages: list[nn.Module] = []
    start = n_channels
    for level, (width, n) in enumerate(zip(widths, n_convolutions, strict=True)):
        layers: list[nn.Module] = [nn.MaxPool2d(2, ceil_mode=True)] if level else []
        for _ in range(n):
            layers += [_convolution(start, width, 3), nn.ReLU(inplace=True)]
            start = width
        stages.append(nn.Sequential(*layers))
    return Encoder(stages, widths, [2**level for level in range(len(widths))])


_MOBILE_NET_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                  (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
"""Sandler et al. 2018, table 2: expansion, channels, blocks, stride of the first block."""


def mobile_net_v2_encoder(n_channels: int, width_factor: float) -> Encoder:
    """Return the inverted residual blocks of MobileNetV2; features at strides 2 to 32.

    Args:
        n_channels: Image channels.
        width_factor: Factor on all channels, which are rounded to multiples of 8.
    """

    def scaled(channels: int) -> int:
        return max(8, int(channels * width_factor + 4) // 8 * 8)

    start = scaled(32)
    blocks: list[nn.Module] = [
        nn.Sequential(_convolution(n_channels, start, 3, stride=2), nn.ReLU6(inplace=True))
    ]
    stages, channels = [], []
    for expansion, width, n, stride in _MOBILE_NET_V2:
        if stride == 2:
            stages.append(nn.Sequential(*blocks))
            channels.append(start)
            blocks = []
        for index in range(n):
            step = stride if index == 0 else 1
            blocks.append(_InvertedResidual(start, scaled(width), expansion, stride=step))
            start = scaled(width)
    stages.append(nn.Sequential(*blocks))
    channels.append(start)
    return Encoder(stages, channels, [2 ** (level + 1) for level in range(len(stages))])


def _convolution(
    start: int, end: int, size: int, *, stride: int = 1, groups: int = 1
) -> nn.Module:
    """A convolution without bias, and its batch norm."""
    return nn.Sequential(
        nn.Conv2d(start, end, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(end),
    )


class _ResidualBlock(nn.Module):
    def __init__(self, start: int, end: int, *, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(start, end, 3, stride=stride),
            nn.ReLU(inplace=True),
            _convolution(end, end, 3),
        )
        is_same = start == end and stride == 1
        self.shortcut = nn.Identity() if is_same else _convolution(start, end, 1, stride=stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        out: Tensor = torch.relu(self.body(x) + self.shortcut(x))
        return out


class _InvertedResidual(nn.Module):
    def __init__(self, start: int, end: int, expansion: int, *, stride: int) -> None:
        super().__init__()
        wide = start * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [_convolution(start, wide, 1), nn.ReLU6(inplace=True)]
        layers += [
            _convolution(wide, wide, 3, stride=stride, groups=wide),
            nn.ReLU6(inplace=True),
            _convolution(wide, end, 1),
        ]
        self.body = nn.Sequential(*layers)
        self.is_residual = start == end and stride == 1

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        out: Tensor = self.body(x)
        return x + out if self.is_residual else out

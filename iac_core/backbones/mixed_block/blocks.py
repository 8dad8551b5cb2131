"""Blocks of a mixed-block network (MB-NAS, section 2.1; structure of the authors' code).

Each takes ``(in_channels, out_channels, kernel, stride)``, keeps the size with stride 1 and halves
it with stride 2, rounding up.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


def vgg(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Module:
    """Return two convolutions with bias, batch norm and leaky ReLU; the first has the stride."""
    layers: list[nn.Module] = []
    for start, step in ((in_channels, stride), (out_channels, 1)):
        layers += [
            nn.Conv2d(start, out_channels, kernel, step, kernel // 2),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)


class Residual(nn.Module):
    """Two convolutions beside a projection, which is there even where widths are equal."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Return the block's feature."""
        out: Tensor = torch.relu(self.body(x) + self.shortcut(x))
        return out


class Dense(nn.Module):
    """Two pre-activation layers that each add `out_channels`, and a convolution over all three."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(start),
                nn.ReLU(),
                nn.Conv2d(start, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.ReLU(inplace=True),
                nn.Conv2d(out_channels, out_channels, kernel, padding=kernel // 2, bias=False),
            )
            for start in (in_channels, in_channels + out_channels)
        )
        self.reduction = _reduction(in_channels + 2 * out_channels, out_channels, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Return the block's feature."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        out: Tensor = self.reduction(x)
        return out


class Inception(nn.Module):
    """Three branches: 1 × 1; 1 × 1, k × k, then 1 × k beside k × 1; mean pooling and 1 × 1."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.point = _convolution(in_channels, out_channels, (1, 1))
        self.square = nn.Sequential(
            _convolution(in_channels, out_channels, (1, 1)),
            _convolution(out_channels, out_channels, (kernel, kernel)),
            nn.BatchNorm2d(out_channels),
        )
        self.row = _convolution(out_channels, out_channels, (1, kernel))
        self.column = _convolution(out_channels, out_channels, (kernel, 1))
        self.norm = nn.BatchNorm2d(2 * out_channels)
        self.pooled = nn.Sequential(
            nn.AvgPool2d(3, stride=1, padding=1),
            _convolution(in_channels, out_channels, (1, 1)),
        )
        self.reduction = _reduction(4 * out_channels, out_channels, stride)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        """Return the block's feature."""
        square = self.square(x)
        crossed = self.norm(torch.cat([self.row(square), self.column(square)], dim=1))
        joined = torch.cat([self.point(x), crossed, self.pooled(x)], dim=1)
        out: Tensor = self.reduction(joined)
        return out


BLOCKS: dict[str, Callable[[int, int, int, int], nn.Module]] = {
    "vgg": vgg,
    "residual": Residual,
    "dense": Dense,
    "inception": Inception,
}
"""Name → block; the order is that of the authors' codes 0 to 3. A name has letters alone."""


def _convolution(start: int, end: int, size: tuple[int, int], stride: int = 1) -> nn.Sequential:
    """A convolution without bias, batch norm and ReLU (torchvision's ``BasicConv2d``)."""
    padding = (size[0] // 2, size[1] // 2)
    return nn.Sequential(
        nn.Conv2d(start, end, size, stride, padding, bias=False),
        nn.BatchNorm2d(end, eps=1e-3),
        nn.ReLU(inplace=True),
    )


def _reduction(start: int, end: int, stride: int) -> nn.Sequential:
    """1 × 1 at stride 1, 3 × 3 at stride 2; a second norm follows, as in the authors' code."""
    size = (1, 1) if stride == 1 else (3, 3)
    return nn.Sequential(
        _convolution(start, end, size, stride), nn.BatchNorm2d(end), nn.ReLU(inplace=True)
    )

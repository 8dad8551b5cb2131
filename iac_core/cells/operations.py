"""Candidate operations of an edge, all with stride 1 and unchanged size (PC-DARTS list)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.interface import CellNorm


def norm_layer(channels: int, norm: CellNorm, *, affine: bool) -> nn.Module:
    """Return a norm of the batch or of each slice.

    Args:
        channels: Channels in and out.
        norm: Which.
        affine: Whether it scales and shifts, and the batch norm tracks statistics: on in the
            discrete cell, off in the supernet.
    """
    if norm == "instance":
        return nn.InstanceNorm2d(channels, affine=affine)
    return nn.BatchNorm2d(channels, affine=affine, track_running_stats=affine)


class SeparableBranch(nn.Module):
    """ReLU, depthwise k × k convolution, pointwise convolution, norm; no bias.

    Args:
        channels: Channels in and out.
        kernel_size: Odd edge length of the depthwise kernel.
        dilation: Of the depthwise kernel.
        affine: As for `norm_layer`.
        norm: Likewise.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        dilation: int,
        *,
        affine: bool,
        norm: CellNorm = "batch",
    ) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels,
            channels,
            kernel_size,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=channels,
            bias=False,
        )
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = norm_layer(channels, norm, affine=affine)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Apply the branch."""
        out: Tensor = self.norm(self.pointwise(self.depthwise(torch.relu(x))))
        return out


class SeparableConv(nn.Sequential):
    """One or two `SeparableBranch` in a row: ``dil_conv`` has one, ``sep_conv`` two."""


class Pool(nn.Module):
    """3 × 3 pooling with stride 1; the average does not count the padding.

    In the supernet a norm without parameters follows (PC-DARTS); in the discrete cell none.
    """

    def __init__(
        self, channels: int, kind: str, *, affine: bool, norm: CellNorm = "batch"
    ) -> None:
        super().__init__()
        self.pool: nn.Module = (
            nn.MaxPool2d(3, stride=1, padding=1)
            if kind == "max"
            else nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        )
        self.norm = nn.Identity() if affine else norm_layer(channels, norm, affine=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Pool."""
        out: Tensor = self.norm(self.pool(x))
        return out


class Zero(nn.Module):
    """The operation ``none``: zeros of the input's shape."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return zeros."""
        return torch.zeros_like(x)


@dataclass(frozen=True, slots=True)
class SeparableKind:
    """Kernel of a separable convolution and how many `SeparableBranch` it has in a row."""

    kernel_size: int
    dilation: int
    n_stages: int

    def build(self, channels: int, *, affine: bool, norm: CellNorm = "batch") -> nn.Module:
        """Return the operation as a module."""
        branches = (
            SeparableBranch(channels, self.kernel_size, self.dilation, affine=affine, norm=norm)
            for _ in range(self.n_stages)
        )
        return SeparableConv(*branches)


SEPARABLE: dict[str, SeparableKind] = {
    "sep_conv_3x3": SeparableKind(3, 1, 2),
    "sep_conv_5x5": SeparableKind(5, 1, 2),
    "dil_conv_3x3": SeparableKind(3, 2, 1),
    "dil_conv_5x5": SeparableKind(5, 2, 1),
}
"""The candidates that have weights."""

OPERATIONS: dict[str, Callable[..., nn.Module]] = {
    "none": lambda channels, **_: Zero(),
    "max_pool_3x3": lambda channels, **norm: Pool(channels, "max", **norm),
    "avg_pool_3x3": lambda channels, **norm: Pool(channels, "avg", **norm),
    "skip_connect": lambda channels, **_: nn.Identity(),
    **{name: kind.build for name, kind in SEPARABLE.items()},
}
"""Name → ``factory(channels, affine=..., norm=...)``. ``affine`` is False in the supernet."""

"""Candidate operations of an edge, all with stride 1 and unchanged size (PC-DARTS list)."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SeparableBranch(nn.Module):
    """ReLU, depthwise k × k convolution, pointwise convolution, batch norm; no bias.

    Args:
        channels: Channels in and out.
        kernel_size: Odd edge length of the depthwise kernel.
        dilation: Of the depthwise kernel.
        affine: Whether the batch norm scales, shifts and tracks statistics: on in the discrete
            cell, off in the supernet.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int, *, affine: bool) -> None:
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
        self.norm = nn.BatchNorm2d(channels, affine=affine, track_running_stats=affine)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Apply the branch."""
        out: Tensor = self.norm(self.pointwise(self.depthwise(torch.relu(x))))
        return out


class SeparableConv(nn.Sequential):
    """One or two `SeparableBranch` in a row: ``dil_conv`` has one, ``sep_conv`` two."""


class Pool(nn.Module):
    """3 × 3 pooling with stride 1; the average does not count the padding.

    In the supernet a batch norm without parameters follows (PC-DARTS); in the discrete cell none.
    """

    def __init__(self, channels: int, kind: str, *, affine: bool) -> None:
        super().__init__()
        self.pool: nn.Module = (
            nn.MaxPool2d(3, stride=1, padding=1)
            if kind == "max"
            else nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        )
        self.norm: nn.Module = (
            nn.Identity()
            if affine
            else nn.BatchNorm2d(channels, affine=False, track_running_stats=False)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Pool."""
        out: Tensor = self.norm(self.pool(x))
        return out


class Zero(nn.Module):
    """The operation ``none``: zeros of the input's shape."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return zeros."""
        return torch.zeros_like(x)


def _separable(kernel_size: int, dilation: int, n_branches: int) -> Callable[..., nn.Module]:
    def build(channels: int, *, affine: bool) -> nn.Module:
        branches = (
            SeparableBranch(channels, kernel_size, dilation, affine=affine)
            for _ in range(n_branches)
        )
        return SeparableConv(*branches)

    return build


OPERATIONS: dict[str, Callable[..., nn.Module]] = {
    "none": lambda channels, *, affine: Zero(),
    "max_pool_3x3": lambda channels, *, affine: Pool(channels, "max", affine=affine),
    "avg_pool_3x3": lambda channels, *, affine: Pool(channels, "avg", affine=affine),
    "skip_connect": lambda channels, *, affine: nn.Identity(),
    "sep_conv_3x3": _separable(3, 1, 2),
    "sep_conv_5x5": _separable(5, 1, 2),
    "dil_conv_3x3": _separable(3, 2, 1),
    "dil_conv_5x5": _separable(5, 2, 1),
}
"""Name → ``factory(channels, affine=...)``. ``affine`` is False in the supernet."""

"""Widths of a cell: how many channels its nodes have, and the layers around the DAG."""

from fractions import Fraction
from math import ceil

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.interface import CellNorm
from iac_core.cells.operations import norm_layer
from iac_core.config import CellSettings


def node_channels(skip_channels: int, settings: CellSettings) -> int:
    """Return the channels of a node: its share of the skip's, rounded up to a multiple of K.

    The share is `CellSettings.node_width`, 1 / nodes if that is None (row 2).

    Examples:
        >>> node_channels(64, CellSettings())
        64
        >>> node_channels(24, CellSettings(node_width=None))
        8
        >>> node_channels(64, CellSettings(node_width=0.5))
        32
    """
    share = Fraction(1, settings.n_nodes)
    if settings.node_width is not None:
        share = Fraction(settings.node_width).limit_denominator(1024)
    multiple = settings.partial_channels
    return multiple * ceil(skip_channels * share / multiple)


class InputLayer(nn.Module):
    """ReLU, 1 × 1 convolution without bias, norm: from a feature's to a node's channels."""

    def __init__(
        self, in_channels: int, out_channels: int, *, affine: bool, norm: CellNorm = "batch"
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = norm_layer(out_channels, norm, affine=affine)

    def forward(self, x: Float[Tensor, "b c h w"], n_groups: int = 1) -> Float[Tensor, "b c2 h w"]:
        """Apply the layer; in training each of `n_groups` parts has its own batch statistics."""
        out: Tensor = self.conv(torch.relu(x))
        return self.norm(out) if n_groups == 1 else group_norm(out, n_groups)


def group_norm(
    x: Float[Tensor, "b c h w"],
    n_groups: int,
    weights: Float[Tensor, "groups c"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Batch norm of each of `n_groups` equal parts of a batch by statistics of its own.

    Args:
        x: The batch.
        n_groups: Number of parts.
        weights: Scale of every channel in each part.
    """
    if n_groups == 1:
        weight = None if weights is None else weights[0]
        return F.batch_norm(x, None, None, weight, training=True)
    if n_groups == len(x):
        normed = F.instance_norm(x)
        return normed if weights is None else normed * weights[:, :, None, None]
    parts = x.chunk(n_groups)
    return torch.cat(
        [
            F.batch_norm(part, None, None, None if weights is None else weights[i], training=True)
            for i, part in enumerate(parts)
        ]
    )


def output_layer(n_nodes: int, channels: int, skip_channels: int) -> nn.Module:
    """Return the layer from the concatenated nodes to the skip's channels.

    The identity where the channels already agree (any multiple of 16 with 4 nodes and K = 4), else
    a 1 × 1 projection (row 2).
    """
    if n_nodes * channels == skip_channels:
        return nn.Identity()
    return nn.Conv2d(n_nodes * channels, skip_channels, 1, bias=False)

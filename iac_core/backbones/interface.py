"""What every backbone offers: an encoder, a decoder, and the places where skips enter it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float
from torch import Tensor, nn

Adapter = Callable[[int, Tensor, Tensor], Tensor]
"""``adapter(level, skip, upsampled)`` → what the decoder takes in the skip's place, same shape."""

CellNorm = Literal["batch", "instance"]


def keep_skip(level: int, skip: Tensor, upsampled: Tensor) -> Tensor:
    """Return the skip as it is: the backbone without cells."""
    return skip


def fit_to(x: Float[Tensor, "b c h w"], size: Sequence[int]) -> Float[Tensor, "b c h2 w2"]:
    """Crop, or repeat the last row and column, until x has the given height and width.

    Upsampling by two misses the size of a feature whose own halving was rounded.
    """
    height, width = size
    x = x[..., :height, :width]
    rows, columns = height - x.shape[-2], width - x.shape[-1]
    return F.pad(x, (0, columns, 0, rows), mode="replicate") if rows or columns else x


def run_padded(
    network: nn.Module, images: Float[Tensor, "b c h w"], size: Sequence[int]
) -> Float[Tensor, "b k h w"]:
    """Return the logits of a network that takes images of certain sizes only.

    Args:
        network: Images → logits, or a list whose last entry they are.
        images: At most of the size.
        size: Height and width that the network takes; the border is repeated up to them.
    """
    height, width = images.shape[-2:]
    out = network(fit_to(images, size))
    logits: Tensor = out[-1] if isinstance(out, list | tuple) else out
    return logits[..., :height, :width]


def features_of(blocks: Iterable[nn.Module], images: Float[Tensor, "b c h w"]) -> list[Tensor]:
    """Return what each block makes of the one before, the first of the images."""
    features: list[Tensor] = []
    x = images
    for block in blocks:
        x = block(x)
        features.append(x)
    return features


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipSite:
    """One skip connection.

    Attributes:
        skip_channels: Channels of the encoder's feature.
        decoder_channels: Channels of the decoder's feature once it has the skip's size.
        stride: Input size over feature size.
    """

    skip_channels: int
    decoder_channels: int
    stride: int


def recorded_sites(
    backbone: "Backbone", n_channels: int, *, size: int = 64
) -> tuple[SkipSite, ...]:
    """Return channels and strides of the skips, recorded in one forward pass.

    Args:
        backbone: A network on the CPU; its buffers do not move.
        n_channels: Image channels.
        size: Rows and columns of the image that is passed.
    """
    sites: dict[int, SkipSite] = {}

    def record(level: int, skip: Tensor, upsampled: Tensor) -> Tensor:
        sites[level] = SkipSite(
            skip_channels=skip.shape[1],
            decoder_channels=upsampled.shape[1],
            stride=size // skip.shape[-1],
        )
        return skip

    backbone.train(False)
    with torch.no_grad():
        backbone.decode(backbone.encode(torch.zeros(1, n_channels, size, size)), record)
    backbone.train(True)
    return tuple(sites[level] for level in sorted(sites))


def cell_norm(backbone: "Backbone") -> CellNorm:
    """Return the norm of cells in a backbone: its own ``cell_norm``, or batch norm if it has none.

    Batch norm is what the papers' cells have; nnU-Net trains small batches with instance norm,
    and cells in it follow the host (our choice, row 38).
    """
    norm: CellNorm = getattr(backbone, "cell_norm", "batch")
    return norm


@runtime_checkable
class Backbone(Protocol):
    """A U-shaped network whose decoder takes its skips through an adapter.

    Attributes:
        sites: Skip connections, finest first; a level is an index into this tuple.
        encoder: The modules that make the features.
        decoder: Everything after them, the output layer included.
    """

    sites: tuple[SkipSite, ...]
    encoder: nn.Module
    decoder: nn.Module

    def encode(self, images: Float[Tensor, "b c h w"]) -> list[Tensor]:
        """Return the features at the skips, finest first, and the bottleneck last."""
        ...

    def decode(
        self, features: Sequence[Tensor], adapter: Adapter = keep_skip
    ) -> Float[Tensor, "b k h w"]:
        """Return logits, at least of the input's size (crop them with `fit_to`)."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights of encoder and decoder."""
        ...

    def train(self, mode: bool = True) -> object:
        """Switch to training or evaluation mode."""
        ...

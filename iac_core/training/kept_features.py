"""Encoder features of slices that a search sees again and again: computed once, then read.

The encoder of a search is frozen and slices are not augmented, so its features never change. They
lie in a memory-mapped temporary file without a name, which is gone when the process is, however it
ends.
"""

import os
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Integer
from numpy import ndarray
from torch import Tensor

from iac_core.backbones.interface import Backbone
from iac_core.data.slices import PreparedData
from iac_core.errors import DataError, Problem
from iac_core.training.batches import batches


class KeptFeatures:
    """Features of some slices, by level.

    Slices are encoded in batches that depend on the indices alone, so that a resumed search reads
    the same bits.

    Args:
        encode: Images ``(B, C, H, W)`` → features, finest first, the bottleneck last.
        data: Prepared slices.
        indices: Slices to keep.
        batch_size: Slices in a forward pass.
        device: Where `encode` runs and features go.

    Raises:
        DataError: If the folder of temporary files is too small.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Sequence[Tensor]],
        data: PreparedData,
        indices: Integer[ndarray, " n"],
        *,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.device = device
        self._row = np.full(len(data.images), -1)
        self._row[indices] = np.arange(len(indices))
        self._levels: list[ndarray] = []
        start = 0
        with torch.no_grad():
            for images, _ in batches(data, indices, batch_size, device):
                features = encode(images)
                if not self._levels:
                    self._levels = [_mapped(len(indices), level) for level in features]
                stop = start + len(images)
                for level, kept in zip(features, self._levels, strict=True):
                    kept[start:stop] = level.permute(0, 2, 3, 1).float().cpu().numpy()
                start = stop

    def load(self, indices: Integer[ndarray, " b"]) -> list[Tensor]:
        """Return the features of kept slices, ``(B, C, H, W)`` float32, channels last."""
        rows = self._row[indices]
        assert (rows >= 0).all(), "a slice was not kept"
        return [self._to_device(torch.from_numpy(kept[rows])) for kept in self._levels]

    @property
    def n_bytes(self) -> int:
        """Size of the file."""
        return sum(kept.nbytes for kept in self._levels)

    def _to_device(self, feature: Tensor) -> Tensor:
        if self.device.type == "cuda":
            feature = feature.pin_memory().to(self.device, non_blocking=True)
        return feature.permute(0, 3, 1, 2)


def feature_bytes(backbone: Backbone, size: int) -> int:
    """Return the bytes that the kept features of one slice take; nothing is computed.

    Args:
        backbone: The network for images of one channel; moved to the meta device.
        size: Rows and columns of a slice.
    """
    assert isinstance(backbone, torch.nn.Module)
    backbone.to("meta").eval()
    with torch.no_grad():
        features = backbone.encode(torch.empty(1, 1, size, size, device="meta"))
    return sum(4 * feature.numel() for feature in features)


def _mapped(n_slices: int, feature: Tensor) -> ndarray:
    """A memory-mapped float32 array for a level's features, rows and columns before channels."""
    _, channels, height, width = feature.shape
    shape = (n_slices, height, width, channels)
    with tempfile.TemporaryFile() as file:
        try:
            # Reserved now: a full disk would otherwise end the process at some later write.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, 4 * int(np.prod(shape)))
        except OSError as error:
            problem = Problem(
                file=tempfile.gettempdir(),
                rule="the folder of temporary files must hold the kept encoder features",
                value=f"no room for {4 * int(np.prod(shape)) / 2**20:.0f} MiB more",
                way_out="set TMPDIR to a larger folder, or search.keep_features to false",
            )
            raise DataError([problem]) from error
        return np.memmap(file, dtype=np.float32, mode="r+", shape=shape)

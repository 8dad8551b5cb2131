"""Batches of prepared slices, in an order that depends on a seed and the epoch alone."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Integer
from numpy import ndarray
from torch import Tensor

from iac_core.config import AugmentationSettings, Precision
from iac_core.data.augmentation import augment
from iac_core.data.slices import PreparedData
from iac_core.errors import ConfigError


def n_steps_per_epoch(n_slices: int, batch_size: int, steps_per_epoch: int | None) -> int:
    """Return the given number, or that of one pass over the slices without the incomplete batch.

    Examples:
        >>> n_steps_per_epoch(100, 32, None)
        3
        >>> n_steps_per_epoch(10, 32, None)
        1
    """
    return steps_per_epoch if steps_per_epoch is not None else max(1, n_slices // batch_size)


def epoch_order(
    indices: Integer[ndarray, " n"], batch_size: int, n_steps: int, generator: np.random.Generator
) -> Integer[ndarray, "n_steps batch_size"]:
    """Return which slices each step takes: shuffled passes, one after the other.

    Raises:
        ConfigError: If there are no slices.
    """
    if len(indices) == 0:
        raise ConfigError(
            "training needs at least one slice",
            value="0",
            way_out="give the split more training patients",
        )
    n_passes = -(-n_steps * batch_size // len(indices))
    passes = [generator.permutation(indices) for _ in range(n_passes)]
    order: ndarray = np.concatenate(passes)[: n_steps * batch_size]
    return order.reshape(n_steps, batch_size)


def load_batch(
    data: PreparedData, indices: Integer[ndarray, " b"], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return images ``(B, C, H, W)`` float32, channels last, and labels ``(B, H, W)`` int64.

    On a CUDA device the copy starts from pinned memory and does not wait.
    """
    images = torch.from_numpy(data.load_images(indices))
    if device.type == "cuda":
        images = images.pin_memory()
    images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
    return images, load_labels(data, indices, device)


def load_view(
    data: PreparedData,
    indices: Integer[ndarray, " b"],
    device: torch.device,
    settings: AugmentationSettings,
    generator: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Return what `load_batch` does, or a random view of it where the settings ask for one."""
    images, labels = load_batch(data, indices, device)
    if not settings.enabled:
        return images, labels
    return augment(images, labels, settings, data.flip_axes, generator)


def load_labels(
    data: PreparedData, indices: Integer[ndarray, " b"], device: torch.device
) -> Tensor:
    """Return labels ``(B, H, W)`` int64 alone."""
    labels = torch.from_numpy(data.labels[indices].astype(np.int64))
    if device.type == "cuda":
        labels = labels.pin_memory()
    return labels.to(device, non_blocking=True)


def micro_batches(n_slices: int, n_parts: int) -> list[slice]:
    """Return where to cut a batch: consecutive parts whose sizes differ by at most one slice.

    Args:
        n_slices: Slices of the batch.
        n_parts: Wanted parts; a batch of fewer slices has one part per slice.

    Examples:
        >>> micro_batches(5, 2)
        [slice(0, 3, None), slice(3, 5, None)]
        >>> micro_batches(5, 1)
        [slice(0, 5, None)]
    """
    parts = np.array_split(np.arange(n_slices), max(1, min(n_parts, n_slices)))
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context of forward passes: a lower precision where the settings ask for it."""
    enabled = precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def batches(
    data: PreparedData, indices: Integer[ndarray, " n"], batch_size: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the slices in order, the last batch incomplete if need be."""
    for start in range(0, len(indices), batch_size):
        yield load_batch(data, indices[start : start + batch_size], device)

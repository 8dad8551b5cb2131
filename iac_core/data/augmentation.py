"""Random views of a batch of slices, made on the batch's device, a few launches for a whole batch.

Row 36 names the list, the same for every arm: flips, rotation, scale, shift, brightness, contrast,
gamma and noise; the order and the uniform draws are our choice.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float, Integer
from numpy import ndarray
from torch import Tensor

from iac_core.config import AugmentationSettings


def augment(
    images: Float[Tensor, "b c h w"],
    labels: Integer[Tensor, "b h w"],
    settings: AugmentationSettings,
    flip_axes: Sequence[str],
    generator: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Return another view of every slice, with its labels.

    Images are interpolated linearly, labels take the nearest pixel. What a view shows beyond the
    slice is background: the least value of the image's channel, label 0. The draws are the same on
    every device.

    Args:
        images: Normalised intensities.
        labels: Class indices.
        settings: Ranges.
        flip_axes: Axes along which the data set may be mirrored, ``rows`` and ``columns``.
        generator: Source of the draws.
    """
    axes = flip_axes if settings.flips else ()
    to_source = _matrices(len(images), settings, axes, generator).to(images.device)
    moved, moved_labels = _move(images, labels, to_source)
    return _change_intensity(moved, settings, generator), moved_labels


def _matrices(
    n: int,
    settings: AugmentationSettings,
    flip_axes: Sequence[str],
    generator: np.random.Generator,
) -> Float[Tensor, "b 2 3"]:
    """From a view to its slice, in (column, row) coordinates of −1 to 1 as torch has them."""
    angle = np.deg2rad(_symmetric(generator, n, settings.rotation_degrees))
    zoom = 1 + _symmetric(generator, n, settings.scale)
    flips = np.where(generator.random((n, 2)) < 0.5, -1.0, 1.0)
    flips[:, [name not in flip_axes for name in ("columns", "rows")]] = 1.0
    shift = 2 * np.stack([_symmetric(generator, n, settings.shift) for _ in range(2)], axis=1)
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    turn = np.stack([np.stack([cosine, -sine], 1), np.stack([sine, cosine], 1)], axis=1)
    matrices = np.concatenate([turn * flips[:, None], shift[..., None]], axis=2)
    return torch.from_numpy(matrices.astype(np.float32))


def _move(images: Tensor, labels: Tensor, to_source: Tensor) -> tuple[Tensor, Tensor]:
    grid = F.affine_grid(to_source, list(images.shape), align_corners=False)
    least = images.amin(dim=(2, 3), keepdim=True)
    moved = F.grid_sample(images - least, grid, mode="bilinear", align_corners=False) + least
    moved_labels = F.grid_sample(
        labels[:, None].float(), grid, mode="nearest", align_corners=False
    )
    return moved, moved_labels[:, 0].to(labels.dtype)


def _change_intensity(
    images: Tensor, settings: AugmentationSettings, generator: np.random.Generator
) -> Tensor:
    """Gamma over the slice's range, contrast about its mean, brightness and noise in its sd."""
    draws = np.stack(
        [_symmetric(generator, len(images), settings.intensity) for _ in range(3)], axis=1
    )
    noise = torch.Generator(images.device).manual_seed(int(generator.integers(2**62)))
    factors = torch.from_numpy(draws.astype(np.float32)).to(images.device)[:, :, None, None, None]
    gamma, contrast, brightness = (1 + factors[:, 0], 1 + factors[:, 1], factors[:, 2])
    least = images.amin(dim=(2, 3), keepdim=True)
    extent = (images.amax(dim=(2, 3), keepdim=True) - least).clamp_min(1e-6)
    out = ((images - least) / extent).clamp_min(0).pow(gamma) * extent + least
    mean = out.mean(dim=(2, 3), keepdim=True)
    deviation = out.std(dim=(2, 3), keepdim=True)
    out = (out - mean) * contrast + mean + brightness * deviation
    random = torch.randn(out.shape, generator=noise, device=out.device)
    out = out + settings.noise_sd * deviation * random
    return out.contiguous(memory_format=torch.channels_last)


def _symmetric(generator: np.random.Generator, n: int, extent: float) -> ndarray:
    return generator.uniform(-extent, extent, n)

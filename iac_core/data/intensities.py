"""Normalisation of intensities: per volume for MR, by the training patients' foreground for CT."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy import ndarray

from iac_core.errors import ConfigError

LEAST_HU, MOST_HU = -1024, 3071
"""Range of stored CT, 12 bits, in Hounsfield units; float16 holds it to 2 units at worst."""
N_BINS = MOST_HU - LEAST_HU + 1


def zscore(
    image: Float[ndarray, "c x y z"], percentiles: tuple[float, float], *, nonzero: bool
) -> Float[ndarray, "c x y z"]:
    """Clip each channel to its percentiles, subtract its mean and divide by its deviation.

    Args:
        image: Intensities.
        percentiles: Lower and upper, of the voxels that count.
        nonzero: Only voxels that are not 0 count; the others become 0 (skull-stripped brains).

    Returns:
        Float32; a channel without any variation becomes zeros.
    """
    out = np.zeros(image.shape, dtype=np.float32)
    for channel, values in enumerate(image):
        counted = values != 0 if nonzero else np.ones(values.shape, dtype=bool)
        if not counted.any():
            continue
        inner = values[counted].astype(np.float64)
        inner = np.clip(inner, *np.percentile(inner, percentiles))
        deviation = inner.std()
        out[channel][counted] = (inner - inner.mean()) / deviation if deviation > 0 else 0.0
    return out


def clip_to_histogram(image: Float[ndarray, "c x y z"]) -> Float[ndarray, "c x y z"]:
    """Return CT within the range that is stored and counted."""
    clipped: ndarray = np.clip(image, LEAST_HU, MOST_HU)
    return clipped


def foreground_histogram(
    image: Float[ndarray, "c x y z"], foreground: Bool[ndarray, "x y z"]
) -> Integer[ndarray, "c bins"]:
    """Return how many foreground voxels have each Hounsfield unit, uint32, per channel."""
    counts = [
        np.bincount(np.rint(channel[foreground]).astype(np.int64) - LEAST_HU, minlength=N_BINS)
        for channel in image
    ]
    return np.stack(counts).astype(np.uint32)


@dataclass(frozen=True, slots=True, kw_only=True)
class CtStatistics:
    """How CT of a split is normalised: clipped, centred, scaled; each per channel, ``(C,)``."""

    low: Float[ndarray, " c"]
    high: Float[ndarray, " c"]
    mean: Float[ndarray, " c"]
    deviation: Float[ndarray, " c"]

    @classmethod
    def from_histogram(
        cls, counts: Integer[ndarray, "c bins"], percentiles: tuple[float, float]
    ) -> "CtStatistics":
        """Return the statistics of counted voxels, as nnU-Net takes them.

        Args:
            counts: Voxels per Hounsfield unit from `LEAST_HU` on.
            percentiles: Lower and upper clip.

        Raises:
            ConfigError: If there is no voxel.
        """
        total = counts.sum(axis=1, dtype=np.float64)
        if not (total > 0).all():
            raise ConfigError(
                "CT is normalised by the foreground of the training patients, which must not be "
                "empty",
                value="no foreground voxel",
                way_out="give the split other training patients",
            )
        values = np.arange(LEAST_HU, MOST_HU + 1, dtype=np.float64)
        mean = counts @ values / total
        variance = counts @ values**2 / total - mean**2
        cumulative = counts.cumsum(axis=1) / total[:, None]
        low, high = (
            values[[np.searchsorted(row, percent / 100) for row in cumulative]]
            for percent in percentiles
        )
        return cls(low=low, high=high, mean=mean, deviation=np.sqrt(np.maximum(variance, 1e-6)))

    def normalise(self, image: Float[ndarray, "b c h w"]) -> Float[ndarray, "b c h w"]:
        """Return normalised slices, float32."""
        low, high, mean, deviation = (
            part[:, None, None].astype(np.float32)
            for part in (self.low, self.high, self.mean, self.deviation)
        )
        out: ndarray = (np.clip(image, low, high) - mean) / deviation
        return out

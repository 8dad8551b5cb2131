"""Values of voxels: what can be neither trained on nor scored is found and named."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from iac_core.data.findings import Findings
from iac_core.data.intensities import LEAST_HU, MOST_HU
from iac_core.types import Intensity

_LABEL_TOLERANCE = 1e-3
_MOST_LABEL = 255
_LARGEST = 1e15
"""Squares of larger intensities, summed over a volume, leave the range of float32."""
_GAP, _LEAST_SHARE = 1000.0, 1e-3
"""A fill value lies this many ranges of the others away, and is more than stray voxels."""
_SAME_SHARE = 0.99
"""With so many equal voxels the default percentiles clip the others away."""
_N_SAMPLES = 1000


def check_labels(stored: ndarray, findings: Findings) -> ndarray | None:
    """Return labels as uint8; None with an error noted unless all are whole and from 0 to 255.

    Args:
        stored: Integers or floats, any shape; floats may be off by 0.001, as header factors round.
        findings: Where the error is noted.
    """
    low, high = stored.min(), stored.max()
    if stored.dtype.kind in "iu" and low >= 0 and high <= _MOST_LABEL:
        return np.ascontiguousarray(stored, dtype=np.uint8)
    if stored.dtype.kind in "iu":
        wrong = (stored < 0) | (stored > _MOST_LABEL)
        rounded = stored
    else:
        rounded = np.round(stored)
        with np.errstate(invalid="ignore"):
            wrong = ~(np.abs(stored - rounded) <= _LABEL_TOLERANCE)
        wrong |= (stored < -_LABEL_TOLERANCE) | (stored > _MOST_LABEL)
    if not wrong.any():
        return np.ascontiguousarray(rounded).astype(np.uint8)
    index = tuple(np.argwhere(wrong)[0])
    findings.error(
        f"a label must be a whole number from 0 to {_MOST_LABEL}",
        f"{stored[index]} ({int(wrong.sum())} such voxels)",
        "export the labels as integers, without interpolation",
        place=_first(wrong),
    )
    return None


def is_lost(labels: ndarray, stored: ndarray, findings: Findings) -> bool:
    """Note it if the header's factors make one label of labels that differ in the file."""
    if labels.min() < labels.max() or stored.min() == stored.max():
        return False
    findings.error(
        "labels that differ in the file must differ as they are read",
        f"{stored.min():g} to {stored.max():g} in the file, all read as {labels.min()}",
        "correct scl_slope and scl_inter in the header, or export the labels again",
    )
    return True


def check_intensities(image: Float[ndarray, "c x y z"], findings: Findings) -> None:
    """Note intensities that normalisation would turn into nonsense.

    Errors are NaN and infinite voxels, values beyond 1e15 (such as the -3.4e38 that some programs
    write where there are no data), and a fill value so far from all others that nothing of their
    contrast is left.

    Args:
        image: Intensities of one file.
        findings: Where errors are noted.
    """
    low, high = float(image.min()), float(image.max())
    if not np.isfinite(low) or not np.isfinite(high):
        wrong = ~np.isfinite(image)
        findings.error(
            "every voxel must be a finite number",
            f"{int(wrong.sum())} voxels that are NaN or infinite (as float32)",
            "export the image again, or fill these voxels with the background intensity",
            place=_first(wrong.any(axis=0)),
        )
        return
    if max(-low, high) > _LARGEST:
        wrong = np.abs(image) > _LARGEST
        findings.error(
            f"intensities must be from -{_LARGEST:g} to {_LARGEST:g}",
            f"{low if -low > high else high:.6g} ({int(wrong.sum())} such voxels)",
            "fill voxels without data with the background intensity, or scale the image",
            place=_first(wrong.any(axis=0)),
        )
        return
    for channel in image:
        least, most = float(channel.min()), float(channel.max())
        _check_fill_value(channel, least, most, findings)
        _check_fill_value(channel, most, least, findings)


def _check_fill_value(
    channel: Float[ndarray, "x y z"], fill: float, far: float, findings: Findings
) -> None:
    """Note an extreme value far from all others that more than stray voxels have.

    Args:
        channel: Intensities.
        fill: The lowest or the highest of them.
        far: The other extreme.
        findings: Where the error is noted.
    """
    sample = _sample(channel)
    others = sample[sample != fill]
    if fill == far or (len(others) and np.abs(others - far).max() > abs(far - fill) / _GAP):
        return
    is_fill = channel == fill
    share = float(is_fill.mean())
    if share < _LEAST_SHARE:
        return
    rest = channel[~is_fill]
    low, high = float(rest.min()), float(rest.max())
    if low == high or min(abs(low - fill), abs(high - fill)) <= _GAP * (high - low):
        return
    findings.error(
        "an image must have contrast beside the value that marks voxels without data",
        f"{fill:.6g} in {share:.0%} of the voxels, all others from {low:.6g} to {high:.6g}",
        "fill voxels without data with the background intensity",
        place=_first(is_fill),
    )


def check_contrast(
    image: Float[ndarray, "c x y z"], findings: Sequence[Findings], intensity: Intensity
) -> None:
    """Note channels that are constant: an error if all are, a warning if some or nearly.

    What counts is what normalisation sees: all voxels of MR, those that are not 0 where the
    background is masked, CT clipped to the range that is stored.

    Args:
        image: Every channel of a volume.
        findings: Where to note it, one for each channel.
        intensity: What the intensities mean.
    """
    flat = [_is_flat(channel, intensity) for channel in image]
    for is_flat, channel, found in zip(flat, image, findings, strict=True):
        low, high = float(channel.min()), float(channel.max())
        value = f"{low:g} in every voxel" if low == high else _RANGE_OF[intensity](low, high)
        way_out = "export the image again; nothing can be learned from it"
        if is_flat and all(flat):
            found.error("an image must not be constant", value, way_out)
        elif is_flat:
            found.warn("a channel should not be constant", value, way_out)
        elif intensity == "mr" and (share := _largest_share(channel)) >= _SAME_SHARE:
            found.warn(
                f"less than {_SAME_SHARE:.0%} of the voxels should have one and the same value",
                f"{share:.2%}",
                "the default percentiles clip all others away: crop the image, set "
                "prepare.clip_percentiles, or mask it (modality mr_masked)",
            )


_RANGE_OF: Mapping[str, Callable[[float, float], str]] = {
    "mr": lambda low, high: f"{low:g} to {high:g}",
    "mr_masked": lambda low, high: f"{low or high:g} in every voxel that is not 0",
    "ct": lambda low, high: (
        f"{low:g} to {high:g}, of which nothing lies within {LEAST_HU} to {MOST_HU} HU"
    ),
}


def _is_flat(channel: Float[ndarray, "x y z"], intensity: Intensity) -> bool:
    counted = _counted(_sample(channel), intensity)
    if len(counted) and counted.min() < counted.max():
        return False
    counted = _counted(channel.reshape(-1), intensity)
    return not len(counted) or bool(counted.min() == counted.max())


def _counted(values: Float[ndarray, " n"], intensity: Intensity) -> Float[ndarray, " n"]:
    if intensity == "mr":
        return values
    counted: ndarray = (
        np.clip(values, LEAST_HU, MOST_HU) if intensity == "ct" else values[values != 0]
    )
    return counted


def _sample(channel: Float[ndarray, "x y z"]) -> Float[ndarray, " n"]:
    flat = channel.reshape(-1)
    taken: ndarray = flat[:: max(1, len(flat) // _N_SAMPLES)]
    return taken


def _largest_share(channel: Float[ndarray, "x y z"]) -> float:
    """Share of the median's voxels; 0 where a sample shows that it is far from 0.99."""
    sample = _sample(channel)
    middle = np.partition(sample, len(sample) // 2)[len(sample) // 2]
    if (sample == middle).mean() < _SAME_SHARE - 0.04:
        return 0.0
    return float((channel == middle).mean())


def _first(mask: ndarray) -> str:
    return f"voxel {tuple(int(index) for index in np.argwhere(mask)[0])}"

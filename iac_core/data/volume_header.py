"""The header of a NIfTI file, trusted within bounds: checked before any voxel is read.

What cannot be read without a guess is an error; what can be read in one way only, but may not be
what was meant, is a warning.

| field | finding |
| --- | --- |
| ``sizeof_hdr``, ``magic``, ``dim`` | error: without them there is no volume |
| ``datatype`` | error unless it is a plain integer or a float of at most 64 bits |
| ``bitpix`` | warning where ``datatype`` says otherwise: the file's length shows which is true |
| ``vox_offset`` | error unless it is a whole number behind the header; 0 is a warning |
| ``scl_slope``, ``scl_inter`` | error if one is infinite, or the intercept is NaN beside a slope |

Where the voxels lie is checked in `volume_grid`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from numpy import ndarray

from iac_core.data.findings import Findings
from iac_core.data.volume_grid import affine_of, check_grid

HEADER_BYTES = 540
"""Enough for the header of either version."""
_SIZES: dict[int, tuple[Any, bytes, bytes, int]] = {
    348: (Nifti1Header, b"n+1", b"ni1", 352),
    540: (Nifti2Header, b"n+2", b"ni2", 544),
}
"""``sizeof_hdr`` → class, magic of a single file, magic of a pair, first byte of voxels."""
_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
_COLOURS = {128: "RGB", 2304: "RGBA"}
_COMPLEX = (32, 1792, 2048)
_OTHER_TYPES = {0: "unknown", 1: "one bit a voxel", 1536: "floats of 128 bits"}
_MOST_OFFSET = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeHeader:
    """What reading the voxels needs.

    Attributes:
        shape: Extents of the axes, at least three.
        dtype: Of the stored voxels, with their byte order.
        offset: First byte of the voxels.
        slope: Stored values are multiplied by it; 1 where the header scales nothing.
        inter: Added to the product; 0 where the header scales nothing.
        affine: Voxel indices to millimetres, ``(4, 4)`` float64.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    affine: Float[ndarray, "4 4"]

    @property
    def n_bytes(self) -> int:
        """Bytes of the stored voxels."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def is_scaled(self) -> bool:
        """Whether values differ from the stored ones."""
        return (self.slope, self.inter) != (1.0, 0.0)


def parse_header(block: bytes, findings: Findings, *, n_channels: int) -> VolumeHeader | None:
    """Return the header at the start of a file; None with every error noted if it is unusable.

    Args:
        block: The first `HEADER_BYTES` bytes, uncompressed.
        findings: Where errors and warnings are noted.
        n_channels: Channels that the volume must have.
    """
    raw = _raw_header(block, findings)
    if raw is None:
        return None
    before = len(findings.problems)
    with np.errstate(all="ignore"):
        shape = _shape(raw, findings, n_channels)
        dtype = _dtype(raw, findings)
        offset = _offset(raw, findings)
        slope, inter = _scaling(raw, findings)
        affine = affine_of(raw, findings)
        if affine is not None:
            check_grid(affine, shape, findings)
    if affine is None or dtype is None or shape is None or len(findings.problems) > before:
        return None
    return VolumeHeader(
        shape=shape, dtype=dtype, offset=offset, slope=slope, inter=inter, affine=affine
    )


def _raw_header(block: bytes, findings: Findings) -> Any:  # noqa: ANN401 - either class of nibabel
    """The fields, in the byte order that ``sizeof_hdr`` shows."""
    for size, (kind, single, pair, _) in _SIZES.items():
        for order, code in (("little", "<"), ("big", ">")):
            if len(block) < size or int.from_bytes(block[:4], order) != size:  # type: ignore[arg-type]
                continue
            raw = kind(block[:size], endianness=code, check=False)
            magic = raw["magic"].item()
            if magic == pair:
                findings.error(
                    "header and voxels must be in one file",
                    "the header of a pair (.hdr and .img)",
                    "convert the pair to one .nii.gz file",
                )
                return None
            if magic == single:
                return raw if _has_its_line_ends(raw, findings) else None
            findings.error(
                "a NIfTI file must be whole",
                f"a header with the magic {magic!r} (Analyze files have none)",
                "convert the file to NIfTI, or copy it again if it is damaged",
            )
            return None
    findings.error(
        "a NIfTI file must be whole",
        f"no NIfTI header at its start, but {bytes(block[:12])!r}" if block else "no content",
        "the file is damaged or of another kind; copy it again, or convert it to NIfTI",
    )
    return None


def _has_its_line_ends(raw: Any, findings: Findings) -> bool:  # noqa: ANN401
    """Whether a header of version 2 keeps the line ends that a transfer as text would change."""
    if "eol_check" not in raw or raw["eol_check"].tolist() in ([13, 10, 26, 10], [0, 0, 0, 0]):
        return True
    findings.error(
        "a NIfTI file must be whole",
        "line ends that a transfer as text has changed",
        "copy the file again, as binary",
    )
    return False


def _shape(raw: Any, findings: Findings, n_channels: int) -> tuple[int, ...] | None:  # noqa: ANN401
    dim = [int(extent) for extent in raw["dim"]]
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1:
        findings.error(
            "a header must name 1 to 7 axes (dim[0]) and their extents, each at least 1",
            f"dim {dim}",
            "the header is damaged; copy the file again, or export it again",
        )
        return None
    shape = tuple(dim[1 : dim[0] + 1])
    fits = len(shape) == 3 or (len(shape) == 4 and shape[3] == n_channels)
    if not fits or (len(shape) == 3 and n_channels != 1):
        channels = "" if n_channels == 1 else f" and a fourth for {n_channels} channels"
        findings.error(
            f"a volume must have 3 axes{channels}",
            f"shape {shape}",
            "store each frame or channel as the layout wants it",
        )
        return None
    return shape


def _dtype(raw: Any, findings: Findings) -> np.dtype[Any] | None:  # noqa: ANN401
    code, bits = int(raw["datatype"]), int(raw["bitpix"])
    rule = "voxels must be integers, or floats of at most 64 bits (datatype)"
    if code in _COLOURS:
        findings.error(
            "voxels must be numbers, not colours",
            f"{_COLOURS[code]} (datatype {code})",
            "export the label numbers instead of their display colours, or an image in grey",
        )
    elif code in _COMPLEX:
        findings.error(
            rule,
            f"complex numbers (datatype {code})",
            "store the magnitude: the imaginary part would be lost",
        )
    elif code not in _DTYPES:
        findings.error(
            rule,
            f"datatype {code}, {_OTHER_TYPES.get(code, 'which does not exist')}",
            "export the volume again, for example as int16, uint8 or float32",
        )
    if code not in _DTYPES:
        return None
    dtype: np.dtype[Any] = np.dtype(raw.endianness + _DTYPES[code])
    if bits != 8 * dtype.itemsize:
        findings.warn(
            f"bitpix must fit the datatype {code}, {8 * dtype.itemsize} bits",
            bits,
            "the datatype was used; correct the header",
        )
    return dtype


def _offset(raw: Any, findings: Findings) -> int:  # noqa: ANN401
    """First byte of the voxels; where it is 0, the first that they can have."""
    least = _SIZES[int(raw["sizeof_hdr"])][3]
    offset = float(raw["vox_offset"])
    if offset == 0:
        rule, way_out = "vox_offset should say where the voxels begin", f"byte {least} was assumed"
        findings.warn(rule, 0, f"{way_out}, which the file's length allows; correct the header")
        return least
    if not (least <= offset <= _MOST_OFFSET and offset.is_integer()):
        findings.error(
            f"vox_offset must be a whole number from {least} to {_MOST_OFFSET}",
            f"{offset:g}",
            "the header is damaged; copy the file again, or export it again",
        )
        return least
    return int(offset)


def _scaling(raw: Any, findings: Findings) -> tuple[float, float]:  # noqa: ANN401
    """Slope and intercept; a slope of 0 or NaN means that nothing is scaled."""
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    means_none = slope == 0 or math.isnan(slope)
    if math.isinf(slope) or math.isinf(inter) or (not means_none and math.isnan(inter)):
        findings.error(
            "scl_slope and scl_inter must be finite numbers, or both NaN for no scaling",
            f"{slope:g} and {inter:g}",
            "correct the header, or export the volume again",
        )
        return 1.0, 0.0
    if means_none:
        if inter not in (0.0,) and not math.isnan(inter):
            findings.warn(
                "scl_inter counts only beside a scl_slope that is neither 0 nor NaN",
                f"scl_slope {slope:g} and scl_inter {inter:g}",
                "the stored values were used; correct the header if they are to be scaled",
            )
        return 1.0, 0.0
    return slope, inter

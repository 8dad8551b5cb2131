"""Where a NIfTI header places its voxels: affine, units, right angles.

| field | finding |
| --- | --- |
| ``xyzt_units`` | metres and micrometres are converted, with a warning; unknown is millimetres |
| ``sform``, ``qform`` | error where spacing or axes differ: distances and sides would depend on \
the program that reads; warning where only the position or a rotation differs, or neither is set |
| axes that are not at right angles | error beyond about one degree: distances are computed on a \
right-angled grid; warning beyond rounding |
| edges up to 0.001 or above 100 mm, axes above 3 m | error: no scanner makes them |
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation
from numpy import ndarray

from iac_core.data.findings import Findings

_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_NAMES = {1: "metres", 3: "micrometres"}
_MOST_CODE = 5
_SPACING_TOLERANCE = 0.01
_CORNERS = np.array([(*corner, 1) for corner in itertools.product((0, 1), repeat=3)])
GRID_TOLERANCE = 0.1
"""Grids may lie apart by this share of the smallest voxel edge: headers are rounded."""
_ROUNDED_SHEAR, _MOST_SHEAR = 1e-3, 0.02
_ROUNDED = 1 + 1e-6  # float32 in the header
_LEAST_EDGE_MM, _MOST_EDGE_MM, _MOST_EXTENT_MM = 1e-3, 100.0, 3000.0


def affine_of(raw: Any, findings: Findings) -> Float[ndarray, "4 4"] | None:  # noqa: ANN401
    """Return voxel indices to millimetres, by sform, else qform, else pixdim alone.

    Args:
        raw: A header of nibabel.
        findings: Where errors and warnings are noted.

    Returns:
        The affine, float64; None with an error noted if the header gives none.
    """
    codes = {name: int(raw[f"{name}_code"]) for name in ("sform", "qform")}
    for name, code in codes.items():
        if not 0 <= code <= _MOST_CODE:
            rule = f"{name}_code must be from 0 to {_MOST_CODE}"
            findings.error(rule, code, "the header is damaged; correct it, or export it again")
            return None
    edges = np.asarray(raw["pixdim"][1:4], dtype=np.float64)
    has_edges = bool(np.isfinite(edges).all() and (edges > 0).all())
    _settle_handedness(raw, codes, findings)
    qform = _qform(raw) if codes["qform"] and has_edges else None
    if not has_edges or (codes["qform"] and qform is None):
        note = findings.warn if codes["sform"] else findings.error
        way_out = "sform was used; correct the header" if codes["sform"] else "correct the header"
        shown = edges.tolist() if not has_edges else _quaternion(raw)
        what = "pixdim must hold edge lengths above 0" if not has_edges else (
            "the quaternion of qform must be of length 1"
        )  # fmt: skip
        note(what, shown, way_out)
        if not codes["sform"]:
            return None
    if not codes["sform"] and not codes["qform"]:
        findings.warn(
            "a header should say where the patient's right, front and head are (sform or qform)",
            "the codes 0 and 0",
            "the axes were taken to point left, front and head; set sform if they do not",
        )
    affine = raw.get_sform() if codes["sform"] else raw.get_best_affine()
    affine = np.asarray(affine, dtype=np.float64)
    if not _is_invertible(affine):
        findings.error(
            "the header must place every voxel at a point of its own",
            f"the affine {affine[:3].round(4).tolist()}",
            "correct the header (sform or qform), or export the file again",
        )
        return None
    if codes["sform"] and has_edges:
        _check_forms(affine, qform, edges, raw, findings)
    factor = _mm_per_unit(raw, findings)
    return affine if factor == 1 else np.diag([factor, factor, factor, 1.0]) @ affine


def _settle_handedness(raw: Any, codes: Mapping[str, int], findings: Findings) -> None:  # noqa: ANN401
    """Set pixdim[0] (qfac) to -1 or 1; the standard takes 0 as 1."""
    handedness = float(raw["pixdim"][0])
    if handedness in (-1, 1):
        return
    if codes["qform"] and handedness != 0:
        findings.warn(
            "pixdim[0] must be -1, 0 or 1: it says whether the third axis is mirrored",
            f"{handedness:g}",
            f"{-1 if handedness < 0 else 1} was used; correct the header",
        )
    raw["pixdim"][0] = -1 if handedness < 0 else 1


def _is_invertible(affine: Float[ndarray, "4 4"]) -> bool:
    edges = voxel_sizes(affine)
    if not np.isfinite(affine).all() or not np.isfinite(edges).all() or edges.min() < 1e-12:
        return False
    return abs(float(np.linalg.det(affine[:3, :3] / edges))) > 1e-4


def _quaternion(raw: Any) -> list[float]:  # noqa: ANN401
    return [float(raw[f"quatern_{letter}"]) for letter in "bcd"]


def _qform(raw: Any) -> Float[ndarray, "4 4"] | None:  # noqa: ANN401
    try:
        qform = np.asarray(raw.get_qform(), dtype=np.float64)
    except ValueError:  # the quaternion is longer than 1
        return None
    return qform if np.isfinite(qform).all() else None


def _mm_per_unit(raw: Any, findings: Findings) -> float:  # noqa: ANN401
    unit = int(raw["xyzt_units"]) & 7
    if unit not in _MM_PER_UNIT:
        findings.warn(
            "xyzt_units must name metres, millimetres, micrometres or nothing",
            unit,
            "millimetres were assumed; correct the header",
        )
    elif unit in _UNIT_NAMES:
        findings.warn(
            "lengths should be in millimetres (xyzt_units)",
            _UNIT_NAMES[unit],
            "they were converted; correct the header if its lengths are millimetres",
        )
    return _MM_PER_UNIT.get(unit, 1.0)


def _check_forms(
    sform: Float[ndarray, "4 4"],
    qform: Float[ndarray, "4 4"] | None,
    edges: Float[ndarray, " 3"],
    raw: Any,  # noqa: ANN401
    findings: Findings,
) -> None:
    """Note where sform contradicts pixdim or qform."""
    sizes = voxel_sizes(sform)
    way_out = "set the code of the wrong one to 0, and pixdim to the true edges"
    if (np.abs(sizes / edges - 1) > _SPACING_TOLERANCE).any():
        findings.error(
            "sform and pixdim must give a voxel the same edges: distances rest on them",
            f"{_shown(sizes)} and {_shown(edges)}",
            way_out,
        )
        return
    if qform is None:
        return
    apart = corner_distance([int(extent) for extent in raw["dim"][1:4]], sform, qform)
    if apart <= GRID_TOLERANCE * sizes.min():
        return
    if not np.array_equal(io_orientation(sform), io_orientation(qform)):
        findings.error(
            "sform and qform must agree in where right, front and head are",
            f"axes {_axes(sform)} and {_axes(qform)}",
            way_out,
        )
        return
    findings.warn(
        "sform and qform should place the volume alike",
        f"corners up to {apart:.4g} apart (codes {int(raw['sform_code'])} and "
        f"{int(raw['qform_code'])})",
        "sform was used, and spacing and axes are the same in both",
    )


def check_grid(
    affine: Float[ndarray, "4 4"], shape: tuple[int, ...] | None, findings: Findings
) -> None:
    """Note axes that are not at right angles, and lengths that no scanner makes.

    Args:
        affine: Voxel indices to millimetres.
        shape: Extents; None if they are unknown.
        findings: Where errors and warnings are noted.
    """
    edges = voxel_sizes(affine)
    unit = affine[:3, :3] / edges
    cosine = float(np.abs(unit.T @ unit - np.eye(3)).max())
    if cosine > _ROUNDED_SHEAR:
        degrees = math.degrees(math.asin(min(1.0, cosine)))
        note = findings.error if cosine > _MOST_SHEAR else findings.warn
        note(
            "axes must be at right angles: distances are computed on a right-angled grid",
            f"{degrees:.2g} degrees off (a tilted gantry, or an sform with shear)",
            "resample the volume to a right-angled grid"
            if cosine > _MOST_SHEAR
            else "the shear was ignored; distances are off by less than 2 %",
        )
    way_out = "correct the unit (xyzt_units) or the edges in the header"
    if not (edges.min() > _LEAST_EDGE_MM * _ROUNDED and edges.max() <= _MOST_EDGE_MM):
        rule = (
            f"edges of a voxel must be above {_LEAST_EDGE_MM:g} and at most {_MOST_EDGE_MM:g} mm"
        )
        findings.error(rule, f"{_shown(edges)} mm", way_out)
    elif shape is not None and (extents := edges * shape[:3]).max() > _MOST_EXTENT_MM:
        rule = f"a volume must be at most {_MOST_EXTENT_MM:g} mm long"
        findings.error(rule, f"{_shown(extents)} mm", way_out)


def corner_distance(
    shape: Sequence[int], first: Float[ndarray, "4 4"], second: Float[ndarray, "4 4"]
) -> float:
    """Return how far apart two affines place a corner of a volume at most, in their unit."""
    reach = np.array([*(extent - 1 for extent in shape), 1])
    off = _CORNERS * reach @ (first - second)[:3].T
    return float(np.sqrt((off * off).sum(axis=1).max()))


def _shown(lengths: Float[ndarray, " n"]) -> str:
    return " × ".join(f"{length:.4g}" for length in lengths)


def _axes(affine: Float[ndarray, "4 4"]) -> str:
    """Where the axes of a file point, as three letters such as LAS."""
    names = ("LR", "PA", "IS")
    return "".join(
        names[int(axis)][int(sign > 0)] if np.isfinite(axis) else "?"
        for axis, sign in io_orientation(affine)
    )

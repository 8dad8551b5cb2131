"""Dice, HD95 and surface Dice of whole volumes in millimetres, with one rule for empty masks.

===============  =====  ============  ===============================================
mask             Dice   surface Dice  HD95, both kinds
===============  =====  ============  ===============================================
both empty       NaN    NaN           NaN (left out of means, counted)
one empty        0      0             diagonal of the volume (a finite penalty, flagged)
===============  =====  ============  ===============================================
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy import ndarray

from iac_core.errors import ShapeError
from iac_core.evaluation.surface import (
    Spacing,
    boundary_voxels,
    nearest_distances,
    surface_elements,
)

MaskState = Literal["ok", "both_empty", "pred_empty", "gt_empty"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScore:
    """Scores of one class of one volume.

    Attributes:
        dice: 2 TP / (2 TP + FP + FN).
        hd95_mm: The larger of the two directed 95th percentiles of boundary distances.
        hd95_pooled_mm: The 95th percentile of both sets of distances together (MedPy's
            definition).
        surface_dice: Share of both surfaces' area within the tolerance of the other.
        state: Whether a mask was empty.
        reference_ml: Volume of the expert mask, in millilitres.
        prediction_ml: Volume of the predicted mask.
    """

    dice: float
    hd95_mm: float
    hd95_pooled_mm: float
    surface_dice: float
    state: MaskState
    reference_ml: float
    prediction_ml: float


def score_class(
    reference: Bool[ndarray, "x y z"],
    prediction: Bool[ndarray, "x y z"],
    *,
    spacing_mm: Spacing,
    tolerance_mm: float,
) -> ClassScore:
    """Score one class of one volume.

    Args:
        reference: Expert mask.
        prediction: Predicted mask on the same grid.
        spacing_mm: Voxel edge lengths along X, Y, Z.
        tolerance_mm: Tolerance of the surface Dice.

    Raises:
        ShapeError: If the masks differ in shape.
        ValueError: If an edge length is not above 0.

    Examples:
        >>> a = np.zeros((4, 4, 1), dtype=bool)
        >>> a[0, 1] = True
        >>> b = np.roll(a, 2, axis=0)
        >>> score_class(a, b, spacing_mm=(0.5, 1.0, 5.0), tolerance_mm=2.0).hd95_mm
        1.0
    """
    check_same_grid(reference, prediction, spacing_mm)
    voxel_ml = math.prod(spacing_mm) / 1000
    n_reference, n_prediction = int(reference.sum()), int(prediction.sum())
    state = mask_state(n_reference, n_prediction)
    if state == "ok":
        dice = 2 * int((reference & prediction).sum()) / (n_reference + n_prediction)
        box = _union_box(reference, prediction)
        a, b = reference[box], prediction[box]
        hd95, pooled = _hausdorff(a, b, spacing_mm)
        surface = _surface_dice(a, b, spacing_mm, tolerance_mm)
    elif state == "both_empty":
        dice = hd95 = pooled = surface = math.nan
    else:
        dice = surface = 0.0
        hd95 = pooled = diagonal_mm(reference.shape, spacing_mm)
    return ClassScore(
        dice=dice,
        hd95_mm=hd95,
        hd95_pooled_mm=pooled,
        surface_dice=surface,
        state=state,
        reference_ml=n_reference * voxel_ml,
        prediction_ml=n_prediction * voxel_ml,
    )


def score_volume(
    reference: Integer[ndarray, "x y z"],
    prediction: Integer[ndarray, "x y z"],
    *,
    spacing_mm: Spacing,
    classes: Mapping[str, tuple[int, ...]],
    tolerance_mm: float,
) -> dict[str, ClassScore]:
    """Score every class of a volume.

    Args:
        reference: Expert label values.
        prediction: Predicted label values on the same grid.
        spacing_mm: Voxel edge lengths along X, Y, Z.
        classes: Name → the label values that make the class up; classes may overlap.
        tolerance_mm: Tolerance of the surface Dice.

    Raises:
        ShapeError: If the volumes differ in shape.
    """
    check_same_grid(reference, prediction, spacing_mm)
    return {
        name: score_class(
            np.isin(reference, values),
            np.isin(prediction, values),
            spacing_mm=spacing_mm,
            tolerance_mm=tolerance_mm,
        )
        for name, values in classes.items()
    }


def mask_state(n_reference: int, n_prediction: int) -> MaskState:
    """Return which of the masks is empty, given their voxels.

    Examples:
        >>> mask_state(5, 0)
        'pred_empty'
    """
    if n_reference and n_prediction:
        return "ok"
    if n_reference:
        return "pred_empty"
    return "gt_empty" if n_prediction else "both_empty"


def diagonal_mm(shape: Sequence[int], spacing_mm: Spacing) -> float:
    """Return the diagonal of a volume."""
    return math.hypot(*(n * edge for n, edge in zip(shape, spacing_mm, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """A mean with what it rests on.

    Attributes:
        mean: Over the volumes of a patient, then patients per class, then classes; NaN if nothing
            is defined.
        n_patients: Patients.
        n_values: Volume × class values that are defined.
        n_both_empty: Values left out because both masks were empty.
        n_pred_empty: Values with an empty prediction.
        n_gt_empty: Values with an empty reference.
    """

    mean: float
    n_patients: int
    n_values: int
    n_both_empty: int
    n_pred_empty: int
    n_gt_empty: int


def aggregate(rows: Iterable[Mapping[str, Any]], metric: str) -> Aggregate:
    """Return the mean of a metric over patients.

    Args:
        rows: With ``patient_id``, ``class_name``, ``state`` and the metric.
        metric: Name of the column.
    """
    rows = list(rows)
    per_patient: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        values = per_patient.setdefault(row["class_name"], {}).setdefault(row["patient_id"], [])
        if not math.isnan(row[metric]):
            values.append(row[metric])
    class_means = []
    for patients in per_patient.values():
        means = [math.fsum(values) / len(values) for values in patients.values() if values]
        if means:
            class_means.append(math.fsum(means) / len(means))
    states = [row["state"] for row in rows]
    return Aggregate(
        mean=math.fsum(class_means) / len(class_means) if class_means else math.nan,
        n_patients=len({row["patient_id"] for row in rows}),
        n_values=sum(not math.isnan(row[metric]) for row in rows),
        n_both_empty=states.count("both_empty"),
        n_pred_empty=states.count("pred_empty"),
        n_gt_empty=states.count("gt_empty"),
    )


def check_same_grid(reference: ndarray, prediction: ndarray, spacing_mm: Spacing) -> None:
    """Refuse masks of different shape, and edge lengths that are not above 0.

    Raises:
        ShapeError: If the shapes differ.
        ValueError: If an edge length is not above 0.
    """
    if reference.shape != prediction.shape:
        raise ShapeError(
            f"reference and prediction must have the same shape, got {reference.shape} and "
            f"{prediction.shape}; bring the prediction back to the original grid"
        )
    if min(spacing_mm) <= 0:
        raise ValueError(f"spacing_mm must be above 0, got {spacing_mm}")


def _union_box(a: Bool[ndarray, "x y z"], b: Bool[ndarray, "x y z"]) -> tuple[slice, ...]:
    """The smallest box that holds both masks; what lies outside is outside both."""
    either = a | b
    box = []
    for axis in range(3):
        used = np.flatnonzero(either.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1))
    return tuple(box)


def _hausdorff(
    a: Bool[ndarray, "x y z"], b: Bool[ndarray, "x y z"], spacing_mm: Spacing
) -> tuple[float, float]:
    points: list[Float[ndarray, "n 3"]] = [
        boundary_voxels(mask) * np.asarray(spacing_mm) for mask in (a, b)
    ]
    forward = nearest_distances(points[1], points[0])
    backward = nearest_distances(points[0], points[1])
    directed = max(float(np.percentile(forward, 95)), float(np.percentile(backward, 95)))
    return directed, float(np.percentile(np.concatenate([forward, backward]), 95))


def _surface_dice(
    a: Bool[ndarray, "x y z"], b: Bool[ndarray, "x y z"], spacing_mm: Spacing, tolerance_mm: float
) -> float:
    edges = (float(spacing_mm[0]), float(spacing_mm[1]), float(spacing_mm[2]))
    points_a, areas_a = surface_elements(a, edges)
    points_b, areas_b = surface_elements(b, edges)
    near_a = areas_a[nearest_distances(points_a, points_b) <= tolerance_mm].sum()
    near_b = areas_b[nearest_distances(points_b, points_a) <= tolerance_mm].sum()
    return float((near_a + near_b) / (areas_a.sum() + areas_b.sum()))

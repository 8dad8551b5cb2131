import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from iac_core.errors import ShapeError
from iac_core.evaluation import metrics
from iac_core.evaluation.metrics import aggregate, check_same_grid, score_volume
from iac_core.evaluation.surface import element_areas

ORACLE_WARNINGS = pytest.mark.filterwarnings(
    "ignore:.*always_return_as_numpy.*:FutureWarning",
    "ignore::DeprecationWarning:surface_distance",
)
MASKS = arrays(bool, (6, 5, 4))
SPACINGS = st.tuples(*[st.floats(0.3, 6.0)] * 3)


def score_class(reference, prediction, *, spacing_mm, tolerance_mm):
    """`metrics.score_class` with whole numbers allowed."""
    spacing = tuple(float(edge) for edge in spacing_mm)
    return metrics.score_class(
        reference, prediction, spacing_mm=spacing, tolerance_mm=float(tolerance_mm)
    )


def cube(shape, *ranges):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(*limits) for limits in ranges)] = True
    return mask


def voxel_pair(offset):
    a = np.zeros((12, 12, 12), dtype=bool)
    b = a.copy()
    a[3, 3, 3] = True
    b[3 + offset[0], 3 + offset[1], 3 + offset[2]] = True
    return a, b


def dilated(mask):
    from scipy.ndimage import binary_dilation

    return binary_dilation(mask)


TEN_CUBE = cube((30, 30, 20), (5, 15), (5, 15), (5, 15))
TWO_BLOCKS = cube((128, 128, 32), (30, 50), (30, 50), (10, 20)) | cube(
    (128, 128, 32), (90, 110), (90, 110), (10, 14)
)
GOLDEN = [
    (*voxel_pair((3, 4, 0)), (1, 1, 1), 2, 5, 5, 0),
    (*voxel_pair((3, 4, 0)), (2, 1, 5), 2, 7.2111, 7.2111, 0),
    (*voxel_pair((0, 0, 2)), (2, 1, 5), 2, 10, 10, 0),
    (TEN_CUBE, np.roll(TEN_CUBE, 3, axis=0), (0.5, 1, 2), 1, 1.5, 1.5, 0.5083),
    (TEN_CUBE, dilated(TEN_CUBE), (1, 1, 5), 2, 5, 5, 0.9175),
    (
        cube((20, 20, 10), (0, 6), (0, 6), (0, 5)),
        cube((20, 20, 10), (0, 8), (0, 6), (0, 5)),
        (1, 1, 1),
        1,
        2,
        2,
        0.8970,
    ),
    (
        cube((128, 128, 32), (30, 50), (30, 50), (10, 20)),
        TWO_BLOCKS,
        (1, 1, 3),
        2,
        79.2105,
        77.2334,
        0.7869,
    ),
]


@pytest.mark.parametrize("case", range(len(GOLDEN)))
def test_scores_equal_the_golden_values(case):
    reference, prediction, spacing, tolerance, hd95, pooled, surface = GOLDEN[case]
    score = score_class(reference, prediction, spacing_mm=spacing, tolerance_mm=tolerance)
    assert score.hd95_mm == pytest.approx(hd95, abs=1e-4)
    assert score.hd95_pooled_mm == pytest.approx(pooled, abs=1e-4)
    assert score.surface_dice == pytest.approx(surface, abs=1e-4)
    assert score.state == "ok"


def test_both_masks_empty_is_undefined_and_says_so():
    empty = np.zeros((3, 3, 3), dtype=bool)
    score = score_class(empty, empty, spacing_mm=(1, 1, 1), tolerance_mm=2)
    assert score.state == "both_empty"
    values = (score.dice, score.hd95_mm, score.hd95_pooled_mm, score.surface_dice)
    assert all(math.isnan(value) for value in values)


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_mask_costs_the_diagonal(swap):
    full, empty = np.ones((3, 4, 2), dtype=bool), np.zeros((3, 4, 2), dtype=bool)
    pair = (full, empty) if swap else (empty, full)
    score = score_class(*pair, spacing_mm=(1, 1, 6), tolerance_mm=2)
    assert score.state == ("pred_empty" if swap else "gt_empty")
    assert (score.dice, score.surface_dice) == (0, 0)
    assert score.hd95_mm == score.hd95_pooled_mm == pytest.approx(13.0)


def test_masks_of_different_shape_and_spacings_of_nothing_are_refused():
    one, other = np.zeros((2, 2, 2), bool), np.zeros((2, 2, 3), bool)
    with pytest.raises(ShapeError, match="same shape"):
        check_same_grid(one, other, (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="above 0"):
        check_same_grid(one, one, (1.0, 0.0, 1.0))


def test_overlapping_classes_are_scored_from_label_values():
    reference = np.array([1, 2, 4, 0]).reshape(4, 1, 1)
    prediction = np.array([1, 1, 4, 0]).reshape(4, 1, 1)
    classes = {"whole": (1, 2, 4), "core": (1, 4)}
    scores = score_volume(
        reference, prediction, spacing_mm=(1.0, 1.0, 1.0), classes=classes, tolerance_mm=1.0
    )
    assert scores["whole"].dice == 1
    assert scores["core"].dice == pytest.approx(4 / 5)
    assert scores["whole"].reference_ml == pytest.approx(0.003)


@settings(max_examples=40)
@given(MASKS, MASKS, SPACINGS)
def test_scores_are_symmetric_and_in_range(a, b, spacing):
    one = score_class(a, b, spacing_mm=spacing, tolerance_mm=2)
    other = score_class(b, a, spacing_mm=spacing, tolerance_mm=2)
    for name in ("dice", "hd95_mm", "hd95_pooled_mm", "surface_dice"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), nan_ok=True)
    if one.state != "both_empty":
        assert 0 <= one.dice <= 1
        assert 0 <= one.surface_dice <= 1 + 1e-12


@settings(max_examples=30)
@given(MASKS, MASKS, SPACINGS, st.floats(0.5, 4))
def test_hd95_scales_with_the_spacing(a, b, spacing, factor):
    scaled = tuple(factor * edge for edge in spacing)
    one = score_class(a, b, spacing_mm=spacing, tolerance_mm=2)
    other = score_class(a, b, spacing_mm=scaled, tolerance_mm=2)
    assert other.hd95_mm == pytest.approx(factor * one.hd95_mm, nan_ok=True)


@settings(max_examples=30)
@given(MASKS.filter(lambda mask: mask.any()), SPACINGS)
def test_a_mask_agrees_with_itself(mask, spacing):
    score = score_class(mask, mask, spacing_mm=spacing, tolerance_mm=1)
    assert (score.dice, score.hd95_mm, score.surface_dice) == (1, 0, 1)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 0.7, 5.0), (1.0, 1.3, 0.7)])
def test_element_areas_equal_the_published_table(spacing):
    from monai.metrics.utils import create_table_neighbour_code_to_surface_area

    table, kernel = create_table_neighbour_code_to_surface_area(spacing)
    bits = kernel.reshape(-1).long()
    ours = element_areas(spacing)
    for pattern in range(256):
        code = sum(int(bits[bit]) for bit in range(8) if pattern >> bit & 1)
        assert ours[pattern] == pytest.approx(float(table[code]), rel=2e-4, abs=1e-6)


def perturbed(mask, generator):
    shifted = np.roll(mask, generator.integers(-2, 3, size=3), axis=(0, 1, 2))
    return dilated(shifted) if generator.random() < 0.5 else shifted


def oracle_hd95(reference, prediction, spacing):
    from monai.metrics import compute_hausdorff_distance

    masks = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
    return float(compute_hausdorff_distance(*masks, percentile=95, spacing=spacing))


def assert_agrees_with_oracles(reference, prediction, spacing):
    import surface_distance
    from medpy.metric.binary import hd95 as medpy_hd95

    score = score_class(reference, prediction, spacing_mm=spacing, tolerance_mm=2)
    assert score.hd95_mm == pytest.approx(oracle_hd95(reference, prediction, spacing), abs=1e-4)
    pooled = medpy_hd95(prediction, reference, voxelspacing=spacing)
    assert score.hd95_pooled_mm == pytest.approx(float(pooled), abs=1e-4)
    distances = surface_distance.compute_surface_distances(reference, prediction, spacing)
    surface = surface_distance.compute_surface_dice_at_tolerance(distances, 2)
    assert score.surface_dice == pytest.approx(surface, abs=1e-4)


@ORACLE_WARNINGS
@pytest.mark.parametrize("seed", range(4))
def test_scores_of_random_blobs_agree_with_monai_medpy_and_surface_distance(seed):
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(seed)
    blob = gaussian_filter(generator.normal(size=(24, 20, 12)), 2) > 0.01
    spacing = tuple(generator.uniform(0.7, 5, size=3))
    assert_agrees_with_oracles(blob, perturbed(blob, generator), spacing)


REAL_MASKS = [
    ("acdc_subset/training/patient001/patient001_frame01_gt.nii.gz", 3),
    ("acdc_subset/training/patient034/patient034_frame16_gt.nii.gz", 2),
    ("msd_hippocampus/Task04_Hippocampus/labelsTr/hippocampus_001.nii.gz", 1),
    ("msd_hippocampus/Task04_Hippocampus/labelsTr/hippocampus_003.nii.gz", 2),
    ("kits19_labels/case_00064/segmentation.nii.gz", 1),
    ("kits19_labels/case_00037/segmentation.nii.gz", 2),
]


@pytest.mark.slow
@ORACLE_WARNINGS
@pytest.mark.parametrize(("name", "label"), REAL_MASKS)
def test_scores_of_real_masks_agree_with_monai_medpy_and_surface_distance(real_data, name, label):
    import nibabel

    path = real_data / name
    if not path.exists():
        path = sorted(path.parent.glob("*_gt.nii.gz"))[-1]
    file = nibabel.load(path)
    mask = np.asarray(file.dataobj) == label
    used = np.argwhere(mask)
    margin = tuple(
        slice(max(0, low - 6), high + 7)
        for low, high in zip(used.min(axis=0), used.max(axis=0), strict=True)
    )
    mask = mask[margin]
    spacing = tuple(float(edge) for edge in file.header.get_zooms()[:3])
    generator = np.random.default_rng(0)
    assert_agrees_with_oracles(mask, perturbed(mask, generator), spacing)


def test_aggregate_means_volumes_then_patients_then_classes():
    def row(patient, class_name, value, state="ok"):
        return {"patient_id": patient, "class_name": class_name, "dice": value, "state": state}

    rows = [
        row("a", "LV", 0.8),
        row("a", "LV", 0.6),
        row("b", "LV", 0.9),
        row("a", "RV", math.nan, "both_empty"),
        row("b", "RV", 0.0, "pred_empty"),
    ]
    result = aggregate(rows, "dice")
    assert result.mean == pytest.approx(((0.7 + 0.9) / 2 + 0.0) / 2)
    assert (result.n_patients, result.n_values) == (2, 4)
    assert (result.n_both_empty, result.n_pred_empty, result.n_gt_empty) == (1, 1, 0)

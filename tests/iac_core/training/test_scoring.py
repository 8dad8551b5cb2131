import numpy as np
import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.implant import Supernet
from iac_core.config import CellSettings
from iac_core.training.scoring import MaskScorer, strata
from iac_core.types import Scoring


@pytest.fixture
def make_scorer(make_room):
    room = make_room()
    backbone = build_backbone(
        UNetSettings(widths=(8, 16)), n_channels=1, n_classes=room.data.n_classes, seed=0
    )
    supernet = Supernet(backbone, CellSettings(n_nodes=2, form="replace"), 0)

    def make(keep_features=True, batch_size=8):
        return MaskScorer(
            supernet,
            room.data,
            room.split.validation,
            seed=0,
            batch_size=batch_size,
            device=torch.device("cpu"),
            precision="float32",
            keep_features=keep_features,
        )

    return make


def random_masks(n, seed=0):
    return np.random.default_rng(seed).random((n, 1, 5, 8)) < 0.6


@pytest.mark.parametrize("measure", ["dice", "negative_loss"])
def test_a_value_does_not_depend_on_the_masks_beside_it(make_scorer, measure):
    scorer, masks = make_scorer(), random_masks(13)
    importance = scorer.supernet.architecture.importance().detach()
    scoring = Scoring(n_slices=8, measure=measure)
    together = scorer.values(importance, masks, scoring)
    alone = np.concatenate([scorer.values(importance, mask[None], scoring) for mask in masks])
    assert together == pytest.approx(alone, abs=1e-6)
    if measure == "negative_loss":
        assert len(set(np.round(together, 9))) == len(masks)


def test_the_whole_mask_has_the_value_of_the_supernet(make_scorer):
    scorer = make_scorer()
    importance = scorer.supernet.architecture.importance().detach()
    data = scorer.data
    value = scorer.values(
        importance, np.ones((1, 1, 5, 8), dtype=bool), Scoring(n_slices=8, measure="negative_loss")
    )[0]
    from iac_core.seeding import numpy_generator
    from iac_core.training.batches import load_batch
    from iac_core.training.losses import segmentation_loss
    from iac_core.training.scoring import draw_evenly

    groups = strata(data, scorer.patients)
    indices = draw_evenly(groups, 8, numpy_generator(0, "scoring", 0))
    images, labels = load_batch(data, indices, torch.device("cpu"))
    with torch.no_grad():
        expected = -float(segmentation_loss(scorer.supernet(images), labels))
    assert value == pytest.approx(expected, abs=1e-5)


def test_kept_features_give_the_same_values(make_scorer):
    masks, scoring = random_masks(3), Scoring(n_slices=8, measure="negative_loss")
    values = []
    for keep in (True, False):
        scorer = make_scorer(keep)
        importance = scorer.supernet.architecture.importance().detach()
        values.append(scorer.values(importance, masks, scoring))
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_equal_draws_take_equal_slices_and_scored_slices_are_counted(make_scorer):
    scorer, mask = make_scorer(), random_masks(1)
    importance = scorer.supernet.architecture.importance().detach()
    first, again, other = (
        scorer.values(importance, mask, Scoring(n_slices=4, draw=draw, measure="negative_loss"))[0]
        for draw in (1, 1, 2)
    )
    assert first == again != other
    assert scorer.n_slices_scored == 12


def test_slices_come_from_validation_patients_alone_and_from_all_of_them(make_scorer, make_room):
    scorer, room = make_scorer(), make_room()
    allowed = set(room.data.slice_indices(room.split.validation, for_training=False).tolist())
    assert set(scorer.pool.tolist()) <= allowed
    for patient in room.split.validation:
        own = room.data.slice_indices([patient], for_training=False)
        assert np.isin(own, scorer.pool).any()

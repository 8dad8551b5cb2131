"""Scores of paths by shared weights."""

import numpy as np
import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.implant import Supernet
from iac_core.config import CellSettings
from iac_core.errors import ConfigError
from iac_core.searches.cell_space import CellSpace
from iac_core.training.batches import load_batch
from iac_core.training.losses import segmentation_loss
from iac_core.training.path_scoring import PathScorer

CELL = CellSettings(n_nodes=2, partial_channels=1, form="replace")


@pytest.fixture
def supernet():
    backbone = build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=0)
    return Supernet(backbone, CELL, 0)


@pytest.fixture
def make_scorer(make_room, supernet):
    room = make_room()

    def make(patients=room.split.train, **changes):
        settings = {
            "seed": 0, "batch_size": 5, "n_slices": None, "device": torch.device("cpu"),
            "precision": "float32", "features": None,
        }  # fmt: skip
        return PathScorer(supernet, room.data, patients, **(settings | changes))

    return make


def some_genotypes(n):
    space, generator = CellSpace(CELL, 1), np.random.default_rng(0)
    return space, [space.sample(generator) for _ in range(n)]


def test_a_score_is_that_of_a_plain_loop_over_the_batches(make_scorer, supernet):
    scorer = make_scorer()
    space, (genotype,) = some_genotypes(1)
    path, data = space.mask(genotype), scorer.data
    score = scorer.score(path)
    losses, hits, sizes = [], np.zeros(4), np.zeros(4)
    with torch.no_grad():
        for half in scorer.batches:
            for batch in half:
                images, labels = load_batch(data, batch, torch.device("cpu"))
                features = supernet.implant.encode(images)
                logits = supernet.path_from_features(features, data.slice_shape, path)
                losses += [float(segmentation_loss(logits, labels))] * len(batch)
                for kind in range(4):
                    predicted, reference = logits.argmax(dim=1) == kind, labels == kind
                    hits[kind] += 2 * int((predicted & reference).sum())
                    sizes[kind] += int(predicted.sum() + reference.sum())
    assert score.negative_loss == pytest.approx(-np.mean(losses), abs=1e-6)
    assert score.dice == pytest.approx((hits[1:] / sizes[1:]).mean())
    weights = [sum(map(len, half)) for half in scorer.batches]
    of_halves = np.average(score.negative_loss_of_halves, weights=weights)
    assert score.negative_loss == pytest.approx(of_halves)


def test_halves_share_no_patient_and_batches_are_of_about_the_batch_size(make_scorer):
    scorer = make_scorer()
    patients = []
    for half in scorer.batches:
        slices = np.concatenate(half)
        patients.append(
            {
                volume.patient_id
                for volume in scorer.data.volumes
                if any(volume.first_slice <= one < volume.first_slice + volume.n_slices
                       for one in slices)
            }
        )  # fmt: skip
        assert all(5 <= len(batch) < 10 for batch in half)
    assert not patients[0] & patients[1]


def test_values_depend_on_the_genotype_alone(make_scorer):
    scorer = make_scorer(n_slices=12)
    _, genotypes = some_genotypes(4)
    values = scorer.values(genotypes, "negative_loss")
    assert len(set(values)) == 4
    assert scorer.values(genotypes[::-1], "negative_loss").tolist() == values[::-1].tolist()
    assert make_scorer(n_slices=12).values(genotypes, "negative_loss").tolist() == values.tolist()
    dice = scorer.values(genotypes, "dice")
    assert ((dice >= 0) & (dice <= 1)).all()


def test_the_number_of_slices_is_a_limit(make_scorer):
    assert make_scorer(n_slices=12).n_slices == 12
    assert make_scorer(n_slices=10**6).n_slices == make_scorer().n_slices


def test_one_patient_is_halved_by_slices(make_scorer):
    scorer = make_scorer(patients=("patient001",))
    first, second = (set(np.concatenate(half)) for half in scorer.batches)
    assert first
    assert second
    assert not first & second


def test_patients_without_slices_are_refused(make_scorer):
    with pytest.raises(ConfigError, match="scoring needs at least 2 slices, got 0"):
        make_scorer(patients=())


def test_the_contribution_is_the_share_of_what_the_decoder_receives(make_scorer, supernet):
    scorer = make_scorer(n_slices=12)
    space, (genotype,) = some_genotypes(1)
    path = space.mask(genotype)
    assert scorer.contribution(path) == pytest.approx(1)
    with torch.no_grad():
        for cell in supernet.implant.cells:
            for layer in cell.inputs:
                layer.conv.weight.zero_()
    assert scorer.contribution(path) == 0


def test_scoring_leaves_the_super_net_as_it_was(make_scorer, supernet):
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    _, genotypes = some_genotypes(2)
    make_scorer().values(genotypes, "dice")
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, before[name]), name

"""A one-shot search, run for real at the smallest size."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.genotype import Genotype
from iac_core.config import AugmentationSettings, CellSettings, PretrainSettings, SearchSettings
from iac_core.errors import ConfigError, NotFiniteError, StopRequested
from iac_core.searches.cell_space import CellSpace
from iac_core.searches.settings import OneShotSettings
from iac_core.training.finalists import choose_finalists
from iac_core.training.one_shot import OneShot, one_shot
from iac_core.training.one_shot_record import OneShotRecord
from iac_core.training.pretrain import pretrain
from iac_core.training.search import halves
from iac_core.types import SilentReporter

CELL = CellSettings(n_nodes=2)
SEARCH = SearchSettings(batch_size=4, steps_per_epoch=3, checkpoint_every_epochs=2)
SETTINGS = OneShotSettings(
    n_steps=10, n_evaluations=12, population=6, tournament=3, n_finalists=2, finalist_steps=3
)


class StopsAtAsk(SilentReporter):
    """Asks a search to stop when it asks for the n-th time; keeps what it was told."""

    def __init__(self, n=0):
        self.left, self.told = n, []

    def should_stop(self):
        self.left -= 1
        return self.left == 0

    def progress(self, *, epoch, n_epochs, **values):
        self.told.append((epoch, n_epochs))


def backbone():
    return build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=0)


def run(room, settings=SETTINGS, cell=CELL, search=SEARCH):
    return one_shot(backbone(), settings, room, cell=cell, search=search, seed=3)


def without_times(record):
    timing = ("seconds", "ended_at")
    curve = [{k: str(v) for k, v in row.items() if k not in timing} for row in record.curve]
    events = [{k: v for k, v in event.items() if k not in timing} for event in record.events]
    return (
        record.genotype, events, curve, record.candidates, record.agreement, record.agreement_p
    )  # fmt: skip


def test_a_search_trains_scores_and_finds_its_best_genotype(make_room):
    reporter = StopsAtAsk()
    record = run(make_room(reporter=reporter))
    assert len(record.candidates) == 12
    finalists = [one for one in record.candidates if one["finalist"] is not None]
    assert len(finalists) == 2
    assert max(record.candidates, key=lambda one: one["score"]) in finalists
    best = max(finalists, key=lambda one: one["finalist"]["negative_loss"])
    assert record.genotype == Genotype.from_json(best["genotype"])
    assert all(one["score"] == one["negative_loss"] for one in record.candidates)
    assert [one["parent"] is None for one in record.candidates] == 6 * [True] + 6 * [False]
    assert [row["n_weight_steps"] for row in record.curve] == [3, 3, 3, 1, 0, 0, 6]
    assert [row["n_scored_slices"] > 0 for row in record.curve] == 4 * [False] + 3 * [True]
    assert reporter.told == [(epoch, 7) for epoch in range(1, 8)]
    assert record.search_s > 0
    assert record.contribution == pytest.approx(1)
    assert set(record.outcome()) >= {"search_is_alive", "live_edge_share", "cell_contribution"}


def test_the_weights_that_are_trained_are_those_of_the_cells_alone(make_room):
    network = backbone()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    search = OneShot(network, SETTINGS, make_room(), CELL, SEARCH, 3)
    cells = [value.clone() for value in search.training.supernet.implant.cells.parameters()]
    search.run_epoch()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name
    after = list(search.training.supernet.implant.cells.parameters())
    assert not any(torch.equal(one, other) for one, other in zip(cells, after, strict=True))


def test_training_lowers_the_loss(make_room):
    network = backbone()
    pretrain(network, make_room("backbone"), PretrainSettings(epochs=3, batch_size=8), seed=0)
    settings = replace(SETTINGS, n_steps=60, learning_rate_factor=10.0)
    search = OneShot(network, settings, make_room(), CELL, SEARCH, 3)
    while not search.training.is_done:
        search.run_epoch()
    losses = search.training.losses
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.05


def test_weights_and_scores_see_different_patients(make_room):
    room = make_room()
    search = OneShot(backbone(), SETTINGS, room, CELL, SEARCH, 3)
    weight_half, scoring_half = halves(room.split.train, 3)
    scored = np.concatenate([batch for half in search.scorer().batches for batch in half])
    trained = room.data.slice_indices(weight_half, for_training=True)
    assert set(search.training.slices) == set(trained)
    assert set(scored) == set(room.data.slice_indices(scoring_half, for_training=True))
    assert not set(scored) & set(trained)


@pytest.mark.parametrize("n_asks", [1, 5, 11, 15, 22, 23, 25, 27])
def test_a_stopped_search_goes_on_bit_for_bit(make_room, n_asks):
    settings = replace(SETTINGS, lag=2)
    whole = run(make_room("whole"), settings)
    with pytest.raises(StopRequested):
        run(make_room("stopped", StopsAtAsk(n_asks)), settings)
    assert without_times(run(make_room("stopped"), settings)) == without_times(whole)


def test_a_search_that_is_stopped_again_and_again_ends_with_the_same_result(make_room):
    room = make_room("stopped", reporter=StopsAtAsk(5))
    for _ in range(30):
        room.reporter.left = 5
        try:
            record = run(room)
        except StopRequested:
            continue
        break
    assert without_times(record) == without_times(run(make_room("whole")))


@pytest.mark.parametrize("sampling", ["uniform", "fair"])
def test_a_search_that_eliminates_goes_on_bit_for_bit(make_room, monkeypatch, sampling):
    """A bound of almost nothing: something goes at every look."""
    monkeypatch.setattr("iac_core.searches.elimination.evidence_bound", lambda *_: 0.3)
    settings = replace(
        SETTINGS, n_steps=20, eliminates=True, eliminate_from_step=8, sampling=sampling
    )
    whole = run(make_room("whole"), settings)
    assert len({event["epoch"] for event in whole.events}) > 1
    gone = sum(len(event["operations"]) for event in whole.events)
    assert whole.curve[0]["n_operations"] - whole.curve[-1]["n_operations"] == gone
    for n_asks in (12, 18, 25):
        with pytest.raises(StopRequested):
            run(make_room(f"stopped{n_asks}", StopsAtAsk(n_asks)), settings)
        again = run(make_room(f"stopped{n_asks}"), settings)
        assert without_times(again) == without_times(whole)
    search = OneShot(backbone(), settings, make_room("whole"), CELL, SEARCH, 3)
    search.load()
    for one in whole.candidates:
        mask = search.training.space.mask(Genotype.from_json(one["genotype"]))
        assert not (mask & ~search.training.space.allowed).any()


def test_without_elimination_nothing_leaves_the_space(make_room):
    record = run(make_room(), replace(SETTINGS, n_steps=16))
    assert record.events == []
    assert {row["n_operations"] for row in record.curve} == {5 * 7}


def test_finalists_leave_the_shared_weights_as_they_were(make_room):
    search = OneShot(backbone(), SETTINGS, make_room(), CELL, SEARCH, 3)
    while not search.training.is_done:
        search.run_epoch()
    search.score_all()
    before = [weight.clone() for weight in search.training.weights]
    search.score_finalists()
    for weight, value in zip(search.training.weights, before, strict=True):
        assert torch.equal(weight, value)
    record = search.record()
    tuned = [one for one in record.candidates if one["finalist"]]
    assert all(one["finalist"]["negative_loss"] != one["negative_loss"] for one in tuned)


def test_without_finalists_the_best_of_the_shared_weights_is_found(make_room):
    record = run(make_room(), replace(SETTINGS, n_finalists=0))
    best = max(record.candidates, key=lambda one: one["score"])
    assert record.genotype == Genotype.from_json(best["genotype"])
    assert len(record.curve) == 6


def test_finalists_are_the_best_that_differ_then_the_best_of_the_rest():
    space, generator = CellSpace(CellSettings(), 1), np.random.default_rng(0)
    first = space.sample(generator)
    close = space.mutate(first, generator)
    far = space.sample(generator)
    genotypes, scores = [far, close, first], [1.0, 2.0, 3.0]
    assert choose_finalists(genotypes, scores, 2) == [2, 0]
    assert choose_finalists(genotypes, scores, 3) == [2, 0, 1]
    assert choose_finalists(genotypes, scores, 9) == [2, 0, 1]


def test_form_and_partial_channels_of_retraining_change_nothing(make_room):
    cells = [CELL, replace(CELL, form="replace", partial_channels=2)]
    first, second = (run(make_room(str(n)), cell=cell) for n, cell in enumerate(cells))
    assert without_times(first) == without_times(second)


@pytest.mark.parametrize(
    "changes",
    [
        {"augmentation": AugmentationSettings(enabled=True)},
        {"n_micro_batches": 2},
    ],
    ids=["views", "micro-batches"],
)
def test_a_search_runs_with_views_and_cut_batches(make_room, changes):
    record = run(make_room(**changes))
    assert math.isfinite(record.curve[0]["train_loss"])
    assert len(record.candidates) == 12


def test_features_that_are_not_kept_give_the_same_search(make_room):
    kept = run(make_room("kept"))
    computed = run(make_room("computed"), search=replace(SEARCH, keep_features=False))
    scores = [[one["score"] for one in record.candidates[:6]] for record in (kept, computed)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_a_loss_that_is_no_number_ends_the_search(make_room):
    settings = replace(SETTINGS, learning_rate_factor=1)
    # Far outside of the range that a sweep file may give: it diverges in a step.
    object.__setattr__(settings, "learning_rate_factor", 1e30)
    with pytest.raises(NotFiniteError, match="the mean loss of an epoch must be finite"):
        run(make_room(), settings)


def test_a_search_is_alive_if_its_ranking_is_reproducible_and_the_cell_contributes():
    genotype = Genotype(1, ((),))
    record = OneShotRecord(
        genotype=genotype, events=[], curve=[], candidates=[], n_steps=1,
        agreement=0.5, agreement_p=0.01, contribution=1.0,
    )  # fmt: skip
    assert record.is_alive
    record.agreement_p = 0.2
    assert not record.is_alive
    record.agreement_p, record.contribution = 0.01, 0.1
    assert not record.is_alive
    record.agreement, record.agreement_p = math.nan, 1.0
    assert record.outcome()["score_agreement"] is None


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="population must not exceed n_evaluations"):
        OneShotSettings(population=30, n_evaluations=20)
    with pytest.raises(ConfigError, match="n_steps must be at least 1"):
        OneShotSettings(n_steps=0)

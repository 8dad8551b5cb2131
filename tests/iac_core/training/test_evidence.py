"""The sums of gradients of a running search, its looks for life, and what its cells contribute."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.architecture import ArchitectureParameters
from iac_core.cells.implant import FIRST_GATE
from iac_core.config import CellSettings, SearchSettings
from iac_core.pruners.fixed_schedule import FixedSchedule, FixedScheduleSettings
from iac_core.pruners.no_pruning import NoPruning, NoPruningSettings
from iac_core.training.evidence import EvidenceMeter
from iac_core.training.search import Search, search

CELL = CellSettings(n_nodes=2)
SEARCH = SearchSettings(epochs=5, batch_size=4, steps_per_epoch=4, alpha_warmup_epochs=1)


def backbone():
    return build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=0)


def make(room, *, pruner=None, settings=SEARCH):
    pruner = pruner or NoPruning(NoPruningSettings())
    return Search(backbone(), pruner, room, CELL, settings, 0)


def watched_gradients(run):
    """Every architecture step's gradients as the optimiser gets them, dense."""
    seen = []
    step = run.alpha_optimiser.step

    def watch(*args):
        dense = np.zeros(run.architecture.active.shape)
        dense[run.architecture.active.numpy()] = run.architecture.alpha.grad.double().numpy()
        seen.append((dense, run.architecture.beta.grad.double().numpy().copy()))
        return step(*args)

    run.alpha_optimiser.step = watch
    return seen


@pytest.mark.parametrize("optimiser", ["adamw", "adam_l2"])
@pytest.mark.parametrize("prunes", [False, True])
def test_sums_are_those_of_the_gradients_step_by_step(make_room, optimiser, prunes):
    schedule = FixedSchedule(FixedScheduleSettings(every_epochs=2))
    settings = replace(SEARCH, alpha_optimiser=optimiser, alpha_weight_decay=0.5)
    run = make(make_room(), pruner=schedule if prunes else None, settings=settings)
    seen = watched_gradients(run)
    while not run.is_over:
        run.run_epoch()
    alphas, betas = (np.array(part) for part in zip(*seen, strict=True))
    found = run.evidence.read()
    assert found.n_steps == len(seen) == 16
    assert (alphas[-1] == 0).any() == prunes
    np.testing.assert_allclose(found.gradient_sum, alphas.sum(axis=0))
    np.testing.assert_allclose(
        found.gradient_products, np.einsum("sleo,slep->leop", alphas, alphas)
    )
    np.testing.assert_allclose(found.edge_gradient_sum, betas.sum(axis=0))
    np.testing.assert_allclose(
        found.edge_gradient_products, np.einsum("sle,slf->lef", betas, betas)
    )
    assert not found.gradient_sum.flags.writeable


def architecture():
    return ArchitectureParameters(CELL, 1, torch.Generator().manual_seed(0))


def add(meter, of, gradient):
    of.alpha.grad = torch.from_numpy(gradient).float().flatten()
    of.beta.grad = torch.zeros_like(of.beta)
    meter.add(of)


def test_an_edge_is_alive_from_the_look_at_which_its_evidence_exceeds_the_bound():
    of = architecture()
    meter = EvidenceMeter(of, 40)
    gradient = np.zeros((1, 5, 8))
    gradient[0, 1, 4] = 1e-9  # any size will do
    gradient[0, 2, 0] = 1.0  # `none` alone makes no edge alive …
    gradient[0, 2, 1:] = np.array([1, -1, 1, -1, 1, -1, 0])
    for step in range(40):
        flipped = gradient.copy()
        flipped[0, 2, 1:] *= (-1) ** step  # … if the others only make noise
        flipped[0, 2, 1:] -= 0.0
        add(meter, of, flipped)
    rows = meter.rows_of_looks(3, np.zeros((1, 5)))
    assert [row["alpha_step"] for row in rows[::5]] == [8, 16, 32]
    assert [row["look"] for row in rows[::5]] == [0, 1, 2]
    evidence = {(row["alpha_step"], row["edge"]): row["evidence"] for row in rows}
    assert evidence[32, 1] == pytest.approx(np.sqrt(32))
    assert evidence[32, 0] == 0
    assert 4 < meter.bound < np.sqrt(32)
    assert meter.read().alive_since.tolist() == [[-1, 32, -1, -1, -1]] or (
        meter.read().alive_since[0, 1] == 32
    )
    assert [row["is_alive"] for row in rows if row["edge"] == 1] == [False, False, True]
    assert meter.rows_of_looks(4, np.zeros((1, 5))) == []


def test_an_edge_that_was_pruned_stays_what_it_was():
    of = architecture()
    meter = EvidenceMeter(of, 40)
    gradient = np.zeros((1, 5, 8))
    gradient[0, :, 4] = 1.0
    for _ in range(8):
        add(meter, of, gradient)
    keep = np.ones((1, 5, 8), dtype=bool)
    keep[0, 3, 7] = False
    of.prune(keep, None)
    for _ in range(32):
        of.alpha.grad = torch.from_numpy(gradient[keep]).float()
        of.beta.grad = torch.zeros_like(of.beta)
        meter.add(of)
    assert meter.read().alive_since.tolist() == [[32, 32, 32, -1, 32]]
    rows = meter.rows_of_looks(9, np.zeros((1, 5)))
    assert [row["evidence"] for row in rows if row["edge"] == 3] == pytest.approx([8**0.5] * 3)


def test_a_record_says_what_happened_at_every_look(make_room):
    settings = replace(SEARCH, epochs=6)
    found = search(
        backbone(),
        NoPruning(NoPruningSettings()),
        make_room(),
        cell=CELL,
        settings=settings,
        seed=0,
    )
    assert [row["alpha_step"] for row in found.looks] == [8] * 5 + [16] * 5
    assert [row["epoch"] for row in found.looks] == [2] * 5 + [4] * 5
    assert found.n_alpha_steps.tolist() == [0, 4, 8, 12, 16, 20]
    shares = found.importance[2, 0]
    expected = -(shares * np.log2(shares)).sum(axis=-1)
    assert [row["entropy_bits"] for row in found.looks[:5]] == pytest.approx(expected)
    np.testing.assert_allclose(found.gradient_sum[-1], found.evidence.gradient_sum, rtol=1e-6)
    assert found.live_edge_share == found.evidence.is_alive.mean()


@pytest.mark.parametrize(
    ("join", "start"), [("replace", None), ("added", FIRST_GATE["added"]), ("residual", 0.0)]
)
def test_the_join_is_the_searchs_own_and_says_what_a_cell_contributes(make_room, join, start):
    run = make(make_room(), settings=replace(SEARCH, join=join))
    gates = list(run.supernet.implant.gates)
    assert len(gates) == (0 if start is None else 1)
    assert all((gate == torch.tensor(start)).all() for gate in gates)
    (share,) = run._contribution()
    if join == "replace":
        assert share == 1
    elif join == "residual":
        assert share == 0
    else:
        assert 0 < share < 1
    assert run._contribution() == share


def test_a_cell_that_replaces_the_skip_with_nothing_contributes_nothing(make_room):
    run = make(make_room())
    with torch.no_grad():
        for parameter in run.supernet.implant.cells.parameters():
            parameter.zero_()
    assert run._contribution().tolist() == [0]


@pytest.mark.parametrize(("join", "is_smaller"), [("replace", False), ("residual", True)])
def test_gradients_reach_alpha_from_the_first_step_unless_gates_start_at_0(
    make_room, join, is_smaller
):
    run = make(make_room(), settings=replace(SEARCH, join=join))
    run.keep_features()
    run.architecture_step(run.alpha_slices[:4])
    largest = float(np.abs(run.evidence.read().gradient_sum).max())
    assert (largest == 0) == is_smaller


def test_a_penalty_is_part_of_the_architecture_steps_loss_alone(make_room):
    plain, planted = make(make_room("a")), make(make_room("b"))
    planted.architecture_penalty = lambda importance: -importance[0, 1, 3]
    for run in (plain, planted):
        run.keep_features()
        run.architecture_step(run.alpha_slices[:4])
    difference = planted.evidence.read().gradient_sum - plain.evidence.read().gradient_sum
    assert difference[0, 1, 3] == pytest.approx(-7 / 64, rel=0.01)
    assert np.abs(difference[0, [0, 2, 3, 4]]).max() < 1e-6


def test_adamw_without_decay_is_the_default_and_l2_stays_by_name():
    assert SearchSettings().resolved_alpha_weight_decay == 0
    assert SearchSettings(alpha_optimiser="adam_l2").resolved_alpha_weight_decay == 1e-3
    assert SearchSettings(alpha_weight_decay=0.2).resolved_alpha_weight_decay == 0.2

"""Which candidates a search asks for, in which order: fixed for a seed and a toy score.

A change of the code must leave every line of ``golden/searches.json`` as it is, or a search that
was killed before the change goes on with other candidates than it would have asked for.
``PYTHONPATH=.:tests/support python tests/contracts/test_golden_searches.py`` prints all of them
but those of whole one-shot searches, which a failing test prints.
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from search_runs import run_search

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.config import CellSettings, SearchSettings
from iac_core.searches.cell_space import CellSpace
from iac_core.searches.evolution import RegularisedEvolution
from iac_core.searches.mixed_block import MixedBlockSpace
from iac_core.searches.mixed_block_settings import MASKS, MixedBlockSpaceSettings
from iac_core.searches.searchers import (
    EvolutionSettings,
    LocalSearchSettings,
    RandomSearchSettings,
    mixed_block_search,
)
from iac_core.searches.settings import OneShotSettings
from iac_core.training.one_shot import OneShot
from iac_core.training.path_scoring import PathScore

GOLDEN = Path(__file__).with_name("golden") / "searches.json"
EVOLUTIONS = {
    "default": {},
    "lag": {"lag": 4},
    "small": {"population": 6, "tournament": 3, "n_evaluations": 40, "lag": 9},
}
CELLS = {
    "shared": CellSettings(),
    "per_level": CellSettings(n_nodes=2, architecture="per_level"),
    "tiny": CellSettings(n_nodes=1, operations=("none", "skip_connect", "sep_conv_3x3")),
}
MIXED = {
    "local_search": LocalSearchSettings(n_evaluations=200),
    "descent": LocalSearchSettings(n_evaluations=200, n_restarts=0),
    "random_search": RandomSearchSettings(n_evaluations=60),
    "evolution": EvolutionSettings(n_evaluations=100, population=12, tournament=4),
}
SMALL = MixedBlockSpace(MixedBlockSpaceSettings(n_nodes=6, n_levels=3))
ONE_SHOT = OneShotSettings(
    n_steps=8, n_evaluations=60, population=10, tournament=4, n_finalists=5, finalist_steps=1
)
SEARCH = SearchSettings(batch_size=2, steps_per_epoch=4)
ONE_SHOTS = {
    "lag_1": ONE_SHOT,
    "lag_3": replace(ONE_SHOT, lag=3),
    "dice": replace(ONE_SHOT, measure="dice", n_finalists=3),
}


def digest(asked):
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def asked_by(search):
    record = run_search(search).record
    return digest(
        [
            (str(one.candidate), one.parent, one.round, one.variable, score)
            for one, score in record.history
        ]
    )


def evolution(cell, seed, **changes):
    settings = {"population": 50, "tournament": 10, "n_evaluations": 200, "lag": 1} | changes
    return RegularisedEvolution(CellSpace(cell, 3), seed=seed, **settings)


def golden_evolutions():
    return {
        f"evolution/{cell}/{name}/{seed}": asked_by(evolution(CELLS[cell], seed, **changes))
        for cell in CELLS
        for name, changes in EVOLUTIONS.items()
        for seed in (0, 3)
    }


def golden_mixed_block_searches():
    return {
        f"mixed_block/{name}/{mask}/{seed}": asked_by(
            mixed_block_search(settings, SMALL, phases, seed=seed)
        )
        for name, settings in MIXED.items()
        for mask, phases in MASKS.items()
        for seed in (0, 3)
    }


class ToyScorer:
    """Scores a path by effects of its operations; keeps the paths in order."""

    n_slices = 1

    def __init__(self):
        self.asked = []

    def score(self, path):
        self.asked.append(np.argwhere(path).tolist())
        effects = np.random.default_rng(0).normal(size=path.shape)
        value = round(float(effects[path].sum()), 1)
        return PathScore(
            dice=-value,
            negative_loss=value,
            dice_of_halves=(0.0, 0.0),
            negative_loss_of_halves=(0.0, 0.0),
        )


@pytest.mark.parametrize("name", sorted(ONE_SHOTS))
@pytest.mark.parametrize("cell", ["shared", "per_level"])
def test_a_one_shot_search_scores_the_same_genotypes_in_the_same_order(
    make_room, monkeypatch, name, cell
):
    scorer = ToyScorer()
    monkeypatch.setattr(OneShot, "scorer", lambda _: scorer)
    backbone = build_backbone(UNetSettings(widths=(4, 8)), n_channels=1, n_classes=4, seed=0)
    search = OneShot(backbone, ONE_SHOTS[name], make_room(), CELLS[cell], SEARCH, 3)
    while not search.training.is_done:
        search.run_epoch()
    search.score_all()
    search.score_finalists()
    assert len(scorer.asked) == 60 + ONE_SHOTS[name].n_finalists
    key = f"one_shot/{cell}/{name}"
    assert (key, digest(scorer.asked)) == (key, json.loads(GOLDEN.read_text()).get(key))


@pytest.mark.parametrize("found", [golden_evolutions, golden_mixed_block_searches])
def test_a_search_asks_for_the_same_candidates_in_the_same_order(found):
    golden, now = json.loads(GOLDEN.read_text()), found()
    assert now == {name: golden[name] for name in now}


def test_golden_searches_are_distinct():
    golden = json.loads(GOLDEN.read_text())
    assert len(set(golden.values())) >= 0.8 * len(golden)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(golden_evolutions() | golden_mixed_block_searches(), indent=1))

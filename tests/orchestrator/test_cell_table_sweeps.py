"""Sweeps of the cell tables: their cells, and the searches that find their place in them."""

from pathlib import Path

import pytest

from iac_core.cells.genotype import Genotype
from orchestrator.expand import expand
from orchestrator.session import tables
from orchestrator.spec import load_sweep
from workers.task import DataSource
from workers.task_graph import stage_tasks

SWEEPS = Path(__file__).parents[2] / "sweeps"
DATA = ["hippocampus", "acdc"]
POOLS = {"max_pool_3x3", "avg_pool_3x3"}


def jobs(name):
    return expand(load_sweep(SWEEPS / f"{name}.yaml", tables=tables())).jobs


def stages(name):
    """Name and retraining seed → kind → stage of every job."""
    source = DataSource(layout="msd", path="", fingerprint="f")
    return {
        (job.pruner, job.retrain_seed): {task.kind: task for task in stage_tasks(job, source, {})}
        for job in jobs(name)
    }


@pytest.mark.parametrize("data", DATA)
def test_found_cells_are_retrained_on_the_backbone_and_with_the_seeds_of_the_table(data):
    table, found = jobs(f"cell_table_{data}"), jobs(f"{data}_searches")
    source = DataSource(layout="msd", path="", fingerprint="f")
    assert {job.retrain_seed for job in found} == {job.retrain_seed for job in table}
    assert {stage_tasks(job, source, {})[1].key for job in (*table, *found)} == {
        stage_tasks(table[0], source, {})[1].key
    }
    for section in ("cell", "retrain", "evaluate", "split"):
        assert {getattr(job.settings, section) for job in found} <= {
            getattr(job.settings, section) for job in table
        }


@pytest.mark.parametrize("data", DATA)
def test_a_table_has_60_random_cells_7_uniform_ones_and_20_without_pools(data):
    found = {
        name: own["evaluate"].genotype for (name, _), own in stages(f"cell_table_{data}").items()
    }
    random = {found[f"random_{n}"] for n in range(60)}
    free = {found[f"free_{n}"] for n in range(20)}
    assert (len(random), len(free), len(random & free)) == (60, 20, 0)
    assert len(found) == 60 + 20 + 7 + 2
    for text in free:
        (cell,) = Genotype.from_json(text).levels
        assert not {edge.operation for edge in cell} & POOLS
    assert {seed for _, seed in stages(f"cell_table_{data}")} == {0, 1, 2}
    assert {job.settings.evaluate.subsets for job in jobs(f"cell_table_{data}")} == {
        ("validation", "test")
    }


@pytest.mark.parametrize("data", DATA)
def test_the_second_form_has_20_of_the_cells_on_the_same_backbone(data):
    table, second = stages(f"cell_table_{data}"), stages(f"cell_table_{data}_papers")
    assert len(second) == 20 * 3
    for name, own in second.items():
        assert own["retrain"].genotype == table[name]["retrain"].genotype
        assert own["pretrain"].key == table[name]["pretrain"].key
        assert own["retrain"].key != table[name]["retrain"].key
        cells = [dict(one[name]["retrain"].settings["cell"]) for one in (table, second)]
        assert (cells[0].pop("node_width"), cells[0].pop("start")) == (1.0, "matched")
        assert cells[0] == cells[1]  # None and plain are what was implied before they existed

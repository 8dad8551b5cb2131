"""`orchestrator replay`: what is known and estimated of pruners on a sweep's recorded searches."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from iac_core.errors import ConfigError
from iac_core.pruners.js_stability import JsStabilitySettings
from orchestrator.recorded import grid_cells, read_search
from orchestrator.replays import replay_rooms, replay_table, replayable, varied
from orchestrator.session import open_sweep
from workers.stages.files import LIVENESS

ROOT = Path(__file__).parents[2]


def test_a_replay_begins_as_the_search_that_was_run(finished):
    rooms = replay_rooms(grid_cells(finished))
    table = replay_table(rooms, {"js_stability": finished.spec.pruners["js_stability"]})
    (row,) = table.to_dict("records")
    assert row["first_removal_epoch"] == row["real_first_removal_epoch"]
    assert row["epochs_full"] == 14
    assert not row["is_exact"]
    assert row["epochs"] <= 14
    assert 0 <= row["genotypes_agree"] <= 1
    assert row["epoch_equivalents"] < row["epochs"]


def test_cells_without_a_finished_full_search_are_left_out(finished):
    cells = grid_cells(finished)
    assert [(cell.job.seed, cell.full is not None) for cell in cells] == [(0, True), (1, False)]
    assert [room.cell.job.seed for room in replay_rooms(cells)] == [0]
    with pytest.raises(ConfigError, match="none for phantom · unet · seed 1"):
        replay_rooms(cells[1:])


def test_the_recorded_seconds_are_those_of_the_table(finished):
    (cell, _) = grid_cells(finished)
    record = finished.store.record("search", cell.full.task.key)
    assert cell.full.search_s == pytest.approx(record.outcome["search_s"])
    assert cell.full.first_removal_epoch is None
    assert set(cell.others) == {"js_stability", "js_stability_fast"}
    assert read_search(finished.store, cell.full.task).genotype == cell.full.genotype


def test_the_recorded_evidence_is_that_of_the_search(finished):
    (cell, _) = grid_cells(finished)
    evidence, task = cell.full.evidence, cell.full.task
    assert evidence.n_alpha_steps.tolist() == [0, *range(2, 27, 2)]
    assert evidence.gradient_sum.shape == cell.full.alpha.shape
    assert evidence.gradient_products.dtype == np.float32
    assert (evidence.gradient_sum[-1] != 0).all()
    liveness = json.loads(finished.store.read("search", task.key, LIVENESS))
    # Looks at steps 8 and 16 of 26, on each of 5 edges.
    assert [row["alpha_step"] for row in liveness["looks"]] == [8] * 5 + [16] * 5
    outcome = finished.store.record("search", task.key).outcome
    alive = [row["is_alive"] for row in liveness["looks"][-5:]]
    assert outcome["live_edge_share"] == np.mean(alive) == (evidence.alive_since >= 0).mean()
    assert outcome["cell_contribution"] == min(liveness["contribution"]) == 1  # it replaces
    assert outcome["search_is_alive"] == (outcome["live_edge_share"] >= 0.9)


def test_an_evidence_based_pruner_is_replayed_on_it(finished):
    rooms = replay_rooms(grid_cells(finished))
    can, _ = replayable({"evidence": JsStabilitySettings(window_epochs=1)}, rooms)
    assert set(can) == {"evidence"}


def test_what_cannot_be_replayed_is_told_apart(finished):
    rooms = replay_rooms(grid_cells(finished))
    pruners = {name: finished.spec.pruners[name] for name in ("js_stability", "js_stability_fast")}
    can, cannot = replayable(pruners, rooms)
    assert set(can) == {"js_stability"}
    assert (
        "pace.alpha_warmup_epochs must be that of the recorded search"
        in (cannot["js_stability_fast"])
    )


def test_values_of_settings_are_combined_and_checked(finished):
    pruners = {"js_stability": finished.spec.pruners["js_stability"]}
    found = varied(pruners, ["threshold=1e-3,2e-3", "rank_guard=true,false"])
    assert list(found) == [
        f"js_stability[threshold={threshold},rank_guard={guard}]"
        for threshold in (0.001, 0.002)
        for guard in (True, False)
    ]
    assert found["js_stability[threshold=0.001,rank_guard=False]"].window_epochs == 1
    with pytest.raises(ConfigError, match="did you mean 'threshold'"):
        varied(pruners, ["treshold=1"])
    with pytest.raises(ConfigError, match="threshold must be above 0"):
        varied(pruners, ["threshold=-1"])
    with pytest.raises(ConfigError, match="window_epochs must be a valid integer, got 'two'"):
        varied(pruners, ["window_epochs=two"])
    with pytest.raises(ConfigError, match="FIELD=VALUE"):
        varied(pruners, ["threshold"])


def test_the_command_prints_what_is_known_and_writes_every_cell(finished):
    command = [sys.executable, "-m", "orchestrator", "replay", str(finished.spec.path)]
    done = subprocess.run(
        [*command, "--runs", str(finished.runs_dir), "--vary", "max_share=0.3,0.5"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "js_stability[max_share=0.5]" in done.stdout
    assert "Known: the first removal" in done.stdout
    assert "1 of 2 full searches are not finished" in done.stdout
    assert "not replayed: js_stability_fast" in done.stderr
    table = pd.read_csv(finished.run_dir / "replay.csv")
    assert list(table["pruner"]) == [f"js_stability[max_share={value}]" for value in (0.3, 0.5)]
    assert table["real_epochs"].notna().tolist() == [False, True]
    done = subprocess.run(
        [*command, "--runs", str(finished.runs_dir), "--pruner", "random"],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--pruner must be an operation pruner, got 'random'" in done.stderr


def test_a_sweep_without_a_full_search_says_what_to_add(write_sweep, tmp_path):
    session = open_sweep(write_sweep("[js_stability]"), {}, tmp_path / "runs", needs_data=False)
    with pytest.raises(ConfigError, match=r"add it to grid\.pruner"):
        grid_cells(session)

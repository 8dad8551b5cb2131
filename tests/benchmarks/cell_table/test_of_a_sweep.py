"""The benchmark on what a real sweep leaves."""

import json
import sys

import pandas as pd
import pytest
from tiny_sweep import TINY_SWEEP

from benchmarks.cell_table.__main__ import main
from orchestrator.executors import InlineExecutor
from orchestrator.rows import job_tables
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep
from results.store import write_table

CELLS = "".join(f"      random_{n}: {{type: random, draw: {n}}}\n" for n in range(3))
CELLS += "      free_0: {type: random, draw: 9, operations: [skip_connect, sep_conv_3x3]}\n"
CELLS += "      skip: {type: uniform, operation: skip_connect}\n"
# Long enough for networks that predict something.
PRETRAIN = "pretrain: {epochs: 4, batch_size: 8, steps_per_epoch: 15, learning_rate: 1.0e-2"
RETRAIN = "retrain: {epochs: 2, batch_size: 8, steps_per_epoch: 8, learning_rate: 1.0e-2"


@pytest.mark.slow
def test_the_tables_of_a_sweep_are_read(phantom_folder, tmp_path, monkeypatch, capsys):
    text = TINY_SWEEP.replace("PHANTOM", str(phantom_folder))
    text = text.replace("PRUNERS", "[random_0, random_1, random_2, free_0, skip, no_cell_longer]")
    text = text.replace("seed: SEEDS", "seed: [0]\n      retrain.seed: [0, 1]")
    text = text.replace("pretrain: {epochs: 2, batch_size: 4, steps_per_epoch: 3", PRETRAIN)
    text = text.replace("retrain: {epochs: 2, batch_size: 4, steps_per_epoch: 2", RETRAIN)
    text = text.replace("cell: {n_nodes: 2}", "cell: {n_nodes: 2, form: replace}")
    text = text.replace("    pruners:\n", f"    pruners:\n{CELLS}")
    (tmp_path / "tiny.yaml").write_text(text)
    session = open_sweep(tmp_path / "tiny.yaml", {}, tmp_path / "runs", needs_data=True)
    jobs = session.expansion.jobs
    run_sweep(jobs, session.room(), InlineExecutor(), view=View(), on_job_end=lambda end: None)
    found = [job_tables(s.tasks, session.store, sweep="tiny") for s in session.plan().states]
    for name in ("jobs", "curves"):
        rows = pd.concat([tables[name] for tables in found], ignore_index=True)
        write_table(tmp_path / "tables" / f"{name}.parquet", name, rows)
    monkeypatch.setattr(sys, "argv", ["cell_table", str(tmp_path / "tables")])
    main()
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["n_cells"], said["n_seeds"]) == (3, 2)
    assert {"random", "without pools", "skip", "no_cell_longer"} <= set(said["cells"])
    first = said["replay"]["2"]
    assert first["random search"] == first["random search"] | {"n_candidates": 2, "epochs": 4}
    # Two epochs: halving decides after the first.
    assert first["successive halving"] == first["successive halving"] | {
        "n_candidates": 3, "epochs": 4,
    }  # fmt: skip

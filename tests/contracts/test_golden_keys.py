"""Names under which results are found again: stage keys, job ids and columns never change.

A change of the code must leave every line of ``golden/keys.json`` and ``golden/names.json`` as it
is, or what was computed before is not found. A new backbone, pruner or control adds lines;
``PYTHONPATH=. python tests/contracts/test_golden_keys.py`` prints all of them as JSON. A line
changes only together with the version of its stage, or with a default.
"""

import json
import sys
from pathlib import Path

from iac_core.backbones import BACKBONES
from iac_core.pruners import OPERATION_PRUNERS
from iac_core.training.searches import SEARCHES
from orchestrator.expand import expand
from orchestrator.session import tables
from orchestrator.spec import load_sweep
from results.schema import TABLES, columns
from workers.arms import ARMS
from workers.stages.table import STAGES
from workers.task import DataSource
from workers.task_graph import stage_tasks

FOLDER = Path(__file__).with_name("golden")
SOURCE = DataSource(layout="acdc", path="/data", fingerprint="0123456789abcdef")
GENOTYPE = '{"n_nodes":1,"levels":[[[0,2,"skip_connect"],[1,2,"skip_connect"]]]}'

SWEEP = """
metadata:
  sweep:
    name: golden
    datasets: {{acdc: {{layout: acdc, path: /data}}}}
    grid:
      dataset: [acdc]
      backbone: [{backbones}]
      pruner: [{pruners}]
      seed: [{seeds}]
{axes}
    backbones:
      external:
        target: package.module:Network
        skips: [{{module: decoder, argument: 1}}]
    pruners:
      skips: {{type: uniform, operation: skip_connect}}
      convolutions: {{type: uniform, operation: sep_conv_3x3}}
      drawn: {{type: random, draw: 3, operations: [none, skip_connect, sep_conv_3x3]}}
      patient: {{type: js_stability, patience_epochs: 9}}
"""
PRUNERS = [*OPERATION_PRUNERS, *SEARCHES, *(name for name in ARMS if name and name != "uniform")]
UNSEARCHED = ["random", "no_cell", "no_cell_longer"]
SWEEPS = {
    "backbones": {"backbones": list(BACKBONES), "pruners": ["none", *UNSEARCHED]},
    "pruners": {
        "backbones": ["unet"],
        "pruners": [*PRUNERS, "skips", "convolutions", "drawn", "patient"],
        "seeds": [0, 1],
    },
    "views": {
        "backbones": ["unet", "nnunet"],
        "pruners": ["none", *UNSEARCHED],
        "axes": "      augmentation: [true]",
    },
    "cells": {
        "backbones": ["unet"],
        "pruners": ["none", "random"],
        "axes": """\
      cell.form: [replace, added, residual]
      cell.start: [plain, matched]
      cell.node_width: [null, 0.5]""",
    },
    "splits": {
        "backbones": ["unet"],
        "pruners": ["none", "no_cell"],
        "axes": """\
      split.validation: [first, next_fold]
      split.fold: [0, 1]
      retrain.seed: [null, 7]""",
    },
}


def found_keys(folder):
    """Sweep, job and its axes → job id and keys."""
    found = {}
    for name, given in SWEEPS.items():
        values = {"seeds": [0], "axes": ""} | given
        text = SWEEP.format(
            axes=values["axes"],
            **{
                axis: ", ".join(map(str, values[axis]))
                for axis in ("backbones", "pruners", "seeds")
            },
        )
        path = folder / f"{name}.yaml"
        path.write_text(text)
        for job in expand(load_sweep(path, tables=tables())).jobs:
            settings = job.settings
            label = [name, job.label]
            if name == "cells":
                label += [settings.cell.form, settings.cell.start, str(settings.cell.node_width)]
            if name == "splits":
                label += [settings.split.validation, str(settings.split.fold)]
                label += [f"retrained with {job.retrain_seed}"]
            tasks = stage_tasks(job, SOURCE, {})
            known = {task.id: {"genotype": GENOTYPE} for task in tasks if task.kind == "search"}
            keys = {task.role: task.key for task in stage_tasks(job, SOURCE, known)}
            found[" · ".join(label)] = {"job_id": job.job_id, **keys}
    return found


def found_names():
    """Table → its columns, type and unit."""
    return {
        table: [
            f"{column.name}: {column.type} {column.unit}".rstrip() for column in columns(table)
        ]
        for table in TABLES
    }


def golden(name):
    return json.loads((FOLDER / name).read_text())


def test_stage_keys_and_job_ids_are_what_they_were(tmp_path):
    expected, found = golden("keys.json"), found_keys(tmp_path)
    changed = {name: found.get(name) for name, keys in expected.items() if found.get(name) != keys}
    assert not changed
    assert set(found) == set(expected), "add the new lines"


def test_every_kind_of_stage_backbone_and_arm_is_pinned_twice(tmp_path):
    expected = golden("keys.json")
    assert len({keys["job_id"] for keys in expected.values()}) >= 60
    for kind in STAGES:
        assert len({keys[kind] for keys in expected.values() if kind in keys}) >= 2
    for name in [*BACKBONES, *PRUNERS, "skips"]:
        assert sum(f" · {name} · " in label for label in expected) >= 2, name


def test_columns_of_the_tables_are_what_they_were():
    expected, found = golden("names.json"), found_names()
    assert {name: found.get(name) for name in expected} == expected
    assert set(found) == set(expected)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        keys = found_keys(Path(made))
    sys.stdout.write(json.dumps({"keys.json": keys, "names.json": found_names()}, indent=1))

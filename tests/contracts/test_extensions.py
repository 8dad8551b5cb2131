"""What a contributor adds is one module and its line in a registry, and then it is everywhere.

The packages are copied, a module is written and a registry is given its line; the command line
then runs from the copy.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_sweep import TINY_SWEEP

from results.store import read_table

ROOT = Path(__file__).parents[2]
PACKAGES = ("addresses", "files", "iac_core", "workers", "results", "orchestrator")

STAGE_KIND = '''
"""The stage ``coverage``: how much of the scored volumes is foreground."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iac_core.evaluation.masks import Masks
from iac_core.evaluation.per_patient import volumes_to_score
from workers.job import plain
from workers.stage_kind import StageKind
from workers.work import Work


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageSettings:
    __pydantic_config__: ClassVar = {"extra": "forbid"}
    percent: bool = False


def settings_of(job):
    return job.settings.section("coverage") or CoverageSettings()


def run(context):
    data, job = context.data(), context.task.job
    masks = Masks(context.parent("predict"))
    volumes = volumes_to_score(data, context.split(data), job.settings.evaluate)
    shares = [np.mean(masks.of(volume.volume_id) > 0) for _, volume in volumes]
    return {"share": float(np.mean(shares)) * (100 if settings_of(job).percent else 1)}


COVERAGE = StageKind(
    name="coverage",
    version=1,
    section="coverage",
    settings=CoverageSettings,
    inputs=lambda job, source, genotype: {"coverage": plain(settings_of(job))},
    run=run,
    work=lambda sections, size, data: Work(per_round=data.n_volumes),
    uses_gpu=False,
    columns={"share": "stage_coverage_share"},
)
'''
ARM = '''
"""The arm ``covered``: the backbone as it is, and how much it covers."""

from workers.arms import Step, named


class Covered:
    name = "covered"
    settings = None
    searches = has_cells = False

    def steps(self, job, known):
        trained = named("prepare", "pretrain")
        return [
            Step(role="prepare", kind="prepare"),
            Step(role="pretrain", kind="pretrain", parents=named("prepare")),
            Step(role="predict", kind="predict", parents=trained),
            Step(role="coverage", kind="coverage", parents=trained, implied=named("predict")),
            Step(role="evaluate", kind="evaluate", parents=trained, implied=named("predict")),
        ]
'''
BACKBONE = '''
"""A backbone of one convolution."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class OneConvolutionSettings:
    __pydantic_config__: ClassVar = {"extra": "forbid"}
    kernel: int = 3
    n_skips: ClassVar[int] = 0


class OneConvolution(nn.Module):
    sites = ()

    def __init__(self, settings, *, n_channels, n_classes):
        super().__init__()
        padding = settings.kernel // 2
        self.convolution = nn.Conv2d(n_channels, n_classes, settings.kernel, padding=padding)

    def encode(self, images):
        return [images]

    def decode(self, features):
        return self.convolution(features[0])

    def forward(self, images):
        return self.decode(self.encode(images))
'''
ADDED = {
    "stage kind": (
        "workers/stages/coverage.py", STAGE_KIND,
        "workers/stages/table.py", 'STAGES["coverage"] = __import__("workers.stages.coverage", '
        'fromlist=["x"]).COVERAGE\n',
    ),
    "arm": (
        "workers/covered.py", ARM,
        "workers/arms.py", 'ARMS["covered"] = __import__("workers.covered", '
        'fromlist=["x"]).Covered()\n',
    ),
    "backbone": (
        "iac_core/backbones/one_convolution.py", BACKBONE,
        "iac_core/backbones/__init__.py",
        "_own = __import__('iac_core.backbones.one_convolution', "
        "fromlist=['x']); BACKBONES['one_convolution'] = BackboneEntry(_own.OneConvolution, "
        "_own.OneConvolutionSettings)\n",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the packages with everything added: a module and a line each."""
    root = tmp_path_factory.mktemp("extended")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for module, content, registry, line in ADDED.values():
        assert not (root / module).exists()
        (root / module).write_text(content)
        assert line.count("\n") == 1
        with (root / registry).open("a") as file:
            file.write(line)
    return root


def orchestrator(root, folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, words)], cwd=folder, text=True,
        env=os.environ | {"PYTHONPATH": str(root)}, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_a_stage_kind_an_arm_and_a_backbone_appear_everywhere(extended, phantom_folder, tmp_path):
    root = extended
    text = TINY_SWEEP.replace("PHANTOM", str(phantom_folder)).replace("SEEDS", "[0]")
    text = text.replace("PRUNERS", "[no_cell, covered]").replace("[unet]", "[one_convolution]")
    text = text.replace("    backbones: {unet: {widths: [8, 16]}}\n", "")
    text = text.replace("    stages:\n", "    stages:\n      coverage: {percent: true}\n")
    text = text.replace("resources: {", "resources: {coverage: {cpus: 2}, ")
    (tmp_path / "tiny.yaml").write_text(text)

    planned = orchestrator(root, tmp_path, "plan", "tiny.yaml")
    row = next(line for line in planned.splitlines() if line.startswith("coverage ")).split()
    assert row[1:5] == ["1", "1", "0", "1"]
    ran = orchestrator(root, tmp_path, "run", "tiny.yaml", "--inline")
    assert "done    coverage" in ran
    jobs = read_table(tmp_path / "runs/tiny/tables/jobs.parquet", "jobs").set_index("pruner")
    assert 0 < jobs.loc["covered", "stage_coverage_share"] < 100
    assert jobs.loc["covered", "arm_type"] == "covered"
    assert jobs.loc["covered", "test_dice"] == jobs.loc["no_cell", "test_dice"]
    stages = read_table(tmp_path / "runs/tiny/tables/stages.parquet", "stages")
    assert list(stages["kind"]).count("coverage") == 1
    for name in ("report.md", "report.tex", "report.html"):
        report = (tmp_path / "runs/tiny/report" / name).read_text()
        assert "coverage share" in report, name
        assert "covered" in report, name
        assert "convolution" in report, name

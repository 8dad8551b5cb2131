"""From a job to its stages: what each stage's key is made of, and which comes next."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from iac_core.backbones.nnunet_unet import NnunetSettings
from iac_core.cells.genotype import (
    RandomCellSettings,
    UniformCellSettings,
    random_genotype,
    uniform_genotype,
)
from iac_core.config import CellSettings, DatasetOptions, PretrainSettings, RetrainSettings
from iac_core.data import open_dataset
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.seeding import numpy_generator
from iac_core.types import SegmentationDataset
from workers.job import Job, content_hash, identity, plain

STAGE_VERSIONS: dict[str, int] = {
    "prepare": 2,
    "pretrain": 1,
    "search": 3,
    "retrain": 2,
    "evaluate": 1,
}
"""Kind of stage → version; raise it whenever the stage's results change."""

CONTROLS: dict[str, tuple[str, ...]] = {
    "random": ("prepare", "pretrain", "retrain", "evaluate"),
    "uniform": ("prepare", "pretrain", "retrain", "evaluate"),
    "no_cell": ("prepare", "pretrain", "evaluate"),
    "no_cell_longer": ("prepare", "pretrain", "retrain", "evaluate"),
}
"""Values of the pruner axis that search nothing → their chain of stages.

``random`` retrains a random genotype, ``uniform`` one with the same operation on every edge,
``no_cell`` is the backbone as it is, ``no_cell_longer`` the backbone trained for the retraining's
epochs.
"""

CONTROL_SETTINGS: dict[str, type] = {"random": RandomCellSettings, "uniform": UniformCellSettings}
"""Controls that have settings → their class; the others have none."""

SEARCH_CHAIN: tuple[str, ...] = ("prepare", "pretrain", "search", "retrain", "evaluate")
"""The chain of every operation pruner."""

_CELL_IN_RETRAIN = (
    "n_nodes",
    "partial_channels",
    "second_input",
    "form",
    "node_width",
    "start",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """The data folder of a dataset.

    Attributes:
        layout: Reader of the folder.
        path: The folder, as a worker sees it; not part of any key.
        options: What of it is used.
        fingerprint: Of its content; empty if the folder is not at hand, keys are provisional then.
        max_volume_gib: Largest volume file that is read, GiB in memory; not part of any key.
    """

    layout: str
    path: str
    fingerprint: str
    options: DatasetOptions = field(default_factory=DatasetOptions)
    max_volume_gib: float = MAX_VOLUME_GIB

    def open(self) -> SegmentationDataset:
        """Return the reader of the folder."""
        return open_dataset(
            self.layout, Path(self.path), self.options, max_volume_gib=self.max_volume_gib
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTask:
    """One stage to compute: everything a worker needs, and its key.

    Attributes:
        kind: Kind of stage.
        key: Hash of `settings`, first 16 hexadecimal digits.
        settings: Everything that can change the result, as plain values.
        parents: Kind → key of the stages it builds on.
        job: A job that needs it; the others that share it agree in all of `settings`.
        source: The data folder.
        genotype: JSON of the cells to retrain; empty for a backbone without cells.
    """

    kind: str
    key: str
    settings: Mapping[str, Any]
    parents: Mapping[str, str]
    job: Job
    source: DataSource
    genotype: str = ""

    def names(self) -> dict[str, Any]:
        """Return what the sweep calls the job, for people and for estimates; in no key."""
        job = self.job
        return {
            "dataset": job.dataset,
            "backbone": job.backbone,
            "pruner": job.pruner,
            "has_cells": has_cells(job.control),
            "size": job.settings.prepare.size,
        }


def has_cells(control: str) -> bool:
    """Whether the jobs of a control, or of a search if it is empty, end with cells."""
    return control not in ("no_cell", "no_cell_longer")


def chain(pruner: str) -> tuple[str, ...]:
    """Return the kinds of stages of a value of the pruner axis, in order."""
    return CONTROLS.get(pruner, SEARCH_CHAIN)


def stage_tasks(
    job: Job, source: DataSource, genotypes: Mapping[str, str]
) -> tuple[StageTask, ...]:
    """Return the job's stages whose keys are known, in order.

    A retraining's key depends on the genotype, so the chain of a search ends with the search until
    its genotype is known.

    Args:
        job: The job.
        source: The data folder of its dataset.
        genotypes: Key of a finished search → JSON of the genotype it found.
    """
    control = job.control
    tasks: dict[str, StageTask] = {}
    for kind in chain(control):
        genotype = ""
        if kind in ("retrain", "evaluate") and has_cells(control):
            found = _given_genotype(job) if control else genotypes.get(tasks["search"].key, "")
            if not found:
                break
            genotype = found
        parents = _parents(kind, tasks)
        settings = {
            "kind": kind,
            "version": STAGE_VERSIONS[kind],
            "parents": parents,
            **_INPUTS[kind](job, source, genotype),
        }
        tasks[kind] = StageTask(
            kind=kind,
            key=content_hash(settings),
            settings=settings,
            parents=parents,
            job=job,
            source=source,
            genotype=genotype,
        )
    return tuple(tasks.values())


def _parents(kind: str, tasks: Mapping[str, StageTask]) -> dict[str, str]:
    wanted = {
        "prepare": (),
        "pretrain": ("prepare",),
        "search": ("prepare", "pretrain"),
        "retrain": ("prepare", "pretrain"),
        "evaluate": ("prepare", "pretrain", "retrain"),
    }[kind]
    return {name: tasks[name].key for name in wanted if name in tasks}


def _given_genotype(job: Job) -> str:
    """JSON of the cells of a control."""
    settings, backbone = job.settings, job.settings.backbone
    n_skips: int = backbone.n_skips  # type: ignore[attr-defined]
    if isinstance(settings.pruner, UniformCellSettings):
        return uniform_genotype(settings.cell, n_skips, settings.pruner.operation).to_json()
    drawn = settings.pruner
    if not isinstance(drawn, RandomCellSettings):
        return _random_genotype(settings.cell, n_skips, job.seed)
    seed = job.seed if drawn.draw is None else drawn.draw
    cell = settings.cell
    if drawn.operations is not None:
        cell = replace(cell, operations=drawn.operations)
    return _random_genotype(cell, n_skips, seed)


@functools.lru_cache(maxsize=1024)
def _random_genotype(cell: CellSettings, n_skips: int, seed: int) -> str:
    """JSON of the random cells of a seed: every data set and augmentation asks for the same."""
    return random_genotype(cell, n_skips, numpy_generator(seed, "random_genotype")).to_json()


def _prepare_inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    inputs = {
        "layout": source.layout,
        "fingerprint": source.fingerprint,
        "options": plain(source.options),
    }
    backbone = job.settings.backbone
    if not isinstance(backbone, NnunetSettings):
        return {**inputs, "prepare": plain(job.settings.prepare)}
    return {
        **inputs,
        # Its plans come from the training patients.
        "split": job.split_identity(),
        "nnunet": {"planner": backbone.planner, "gpu_memory_gb": backbone.gpu_memory_gb},
        "background_share": job.settings.prepare.background_share,
    }


def _pretrain_inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    by_nnunet = isinstance(job.settings.backbone, NnunetSettings)
    return {
        "split": job.split_identity(),
        "backbone": job.backbone_identity(),
        "backbone_type": type(job.settings.backbone).__name__,
        **({} if by_nnunet else {"pretrain": _without_seed(job.settings.pretrain)}),
        "seed": job.pretrain_seed,
        # Every later stage builds on this one, so that its key holds the views too; nnU-Net's
        # training has its own.
        **({} if by_nnunet else _views(job)),
    }


def _without_seed(settings: PretrainSettings | RetrainSettings) -> dict[str, Any]:
    """A training's settings but its seed: the key holds the one that counts."""
    return {name: value for name, value in plain(settings).items() if name != "seed"}


def _views(job: Job) -> dict[str, Any]:
    """The random views of a training; nothing where there are none."""
    if not job.settings.augmentation.enabled:
        return {}
    return {"augmentation": job.augmentation_identity()}


def _views_after_nnunet(job: Job) -> dict[str, Any]:
    return _views(job) if isinstance(job.settings.backbone, NnunetSettings) else {}


def _search_inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    cell = identity("cell", job.settings.cell)
    return {
        "pruner": plain(job.settings.pruner),
        "pruner_type": type(job.settings.pruner).__qualname__,
        # Form and start concern retraining alone; the search has a join of its own.
        "cell": {k: v for k, v in cell.items() if k not in ("form", "start")},
        "search": plain(job.settings.search),
        "seed": job.seed,
        **_views_after_nnunet(job),
    }


def _retrain_inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    retrain = _without_seed(job.settings.retrain)
    if not genotype:
        unused = ("scope", "learning_rate")
        retrain = {name: value for name, value in retrain.items() if name not in unused}
        return {"retrain": retrain, "seed": job.retrain_seed, **_views_after_nnunet(job)}
    cell = identity("cell", job.settings.cell)
    return {
        "genotype": genotype,
        "cell": {name: cell[name] for name in _CELL_IN_RETRAIN if name in cell},
        "retrain": retrain,
        "seed": job.retrain_seed,
        **_views_after_nnunet(job),
    }


def _evaluate_inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    return {"evaluate": plain(job.settings.evaluate)}


_INPUTS = {
    "prepare": _prepare_inputs,
    "pretrain": _pretrain_inputs,
    "search": _search_inputs,
    "retrain": _retrain_inputs,
    "evaluate": _evaluate_inputs,
}

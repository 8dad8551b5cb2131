"""Measures what stages cost where nothing was observed: a few real steps of each network.

The stages themselves run, through the worker's entry, on phantom slices of the sweep's size: three
epochs of two steps, of which the middle one counts. So start and end of a stage, validation, other
channels and classes, and a pruner's savings are not measured.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iac_core.backbones.external import ExternalSettings
from iac_core.config import AugmentationSettings, SplitSettings
from iac_core.data import DATASETS
from iac_core.data.fingerprint import fingerprint
from iac_core.data.phantom import PhantomSettings, write_phantom
from iac_core.pruners.no_pruning import NoPruningSettings
from orchestrator.costs import (
    CostModel,
    Observation,
    Question,
    keep_probe,
    observation_of,
    question_of,
)
from orchestrator.plan import KnownRecords, state_of
from workers.arms import arm_of
from workers.job import Job
from workers.provenance import device_name, is_gpu
from workers.recipes import recipe_of
from workers.run_stage import StageOrder, run_stage
from workers.stage_store import StageRecord, StageStore
from workers.stages.files import CURVE
from workers.stages.prepare import PREPARE
from workers.stages.pretrain import PRETRAIN
from workers.stages.retrain import RETRAIN
from workers.stages.table import STAGES
from workers.task import DataSource
from workers.task_graph import JobGraph
from workers.work import DataSize

_STEPS = 2
_EPOCHS = 3
_COUNTED = 1
_NEAR = 2
"""Levels of groups up to here know the backbone and the device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a probe did: lines for people."""

    measured: tuple[str, ...]
    left_out: tuple[str, ...]


def probe(
    wanted: Iterable[tuple[Job, Question]],
    model: CostModel,
    store: StageStore,
    *,
    device: str,
    n_threads: int = 1,
    budget_s: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
) -> Probed:
    """Measure the networks of a plan that no observation of this device knows.

    Each measurement is kept beside the store and added to the model.

    Args:
        wanted: Missing stages, each with a job that needs it.
        model: What is known already.
        store: Where stages lie.
        device: ``cpu`` or ``cuda``.
        n_threads: Threads of torch.
        budget_s: No further stage is begun after so many seconds.
        clock: Seconds that only rise.
    """
    jobs: dict[tuple[str, int], Job] = {}
    # A job that searches passes through every kind of stage.
    for job, question in sorted(wanted, key=lambda entry: not arm_of(entry[0]).searches):
        found = model.answer(question)
        if STAGES[question.kind].needs_backbone() and (found is None or found.level > _NEAR):
            jobs.setdefault((job.backbone, job.settings.prepare.size), job)
    measured, left_out = [], []
    end = clock() + budget_s
    with tempfile.TemporaryDirectory(prefix="probe-") as name:
        source = _phantom(Path(name)) if jobs else None
        order = StageOrder(
            store_root=str(Path(name) / "store"),
            stop_file=str(Path(name) / "stop"),
            device=device,
            n_threads=n_threads,
        )
        for (backbone, size), job in jobs.items():
            if _cannot_be_probed(job.settings.backbone):
                left_out.append(f"{backbone}: follows from the data or from your own code")
                continue
            if clock() > end:
                left_out.append(f"{backbone}: the time was up, --probe again goes on with it")
                continue
            assert source is not None
            for observation in _stages_of(_short(job), source, order):
                keep_probe(
                    store,
                    f"{observation.of.kind}-{observation.of.arm}-{backbone}-{size}-{device}",
                    observation,
                )
                model.add(observation)
                measured.append(" ".join([observation.of.kind, observation.of.arm, backbone]))
    return Probed(measured=tuple(measured), left_out=tuple(left_out))


def _cannot_be_probed(backbone: object) -> bool:
    """Whether a network follows from the data, or is the user's own."""
    return isinstance(backbone, ExternalSettings) or recipe_of(backbone).network_follows_from_data


def _phantom(folder: Path) -> DataSource:
    root = folder / "phantom"
    write_phantom(root, PhantomSettings(n_patients=4))
    found = fingerprint(DATASETS["acdc"](root), root)
    return DataSource(layout="acdc", path=str(root), fingerprint=found)


def _short(job: Job) -> Job:
    """The job with few steps; a search is full, so that no pruner shortens it."""
    settings = job.settings
    few: dict[str, Any] = {
        "epochs": _EPOCHS,
        "steps_per_epoch": _STEPS,
        "validate_every_epochs": _EPOCHS,
    }
    searches = arm_of(job).searches
    return replace(
        job,
        dataset="",
        pruner="none" if searches else job.pruner,
        settings=replace(
            settings,
            prepare=replace(settings.prepare, normalisation="modality"),
            split=SplitSettings(n_folds=4, validation_share=0.3),
            augmentation=AugmentationSettings(),
            pretrain=replace(settings.pretrain, **few),
            search=replace(
                settings.search,
                epochs=_EPOCHS,
                steps_per_epoch=_STEPS,
                alpha_warmup_epochs=0,
            ),
            retrain=replace(settings.retrain, **few),
            pruner=NoPruningSettings() if searches else settings.pruner,
        ),
    )


def _stages_of(job: Job, source: DataSource, order: StageOrder) -> Iterator[Observation]:
    """Run the job's stages one after the other; yield what the trained ones took."""
    store = StageStore(Path(order.store_root))
    records = KnownRecords(store)
    model_name = device_name(order.device)
    prepared: StageRecord | None = None
    graph = JobGraph(job, source)
    while ready := state_of(graph, records).ready:
        task = ready[0]
        record = run_stage(task, order).record
        if record is None:  # does not fit here, for example in memory
            return
        records.add(record)
        if task.kind == PREPARE.name:
            prepared = record
        found = observation_of(record, prepared)
        assert found is not None
        curve = store.folder(task.kind, task.key) / CURVE
        if curve.exists():
            epoch = json.loads(curve.read_text(encoding="utf-8"))[_COUNTED]
            work = replace(found.of.work, rounds=1.0)
            found = replace(found, of=replace(found.of, work=work), seconds=epoch["seconds"])
        found = replace(
            found, of=replace(found.of, device=model_name, on_gpu=is_gpu(model_name)), key=""
        )
        yield found
        if task.kind == PRETRAIN.name:  # the control that trains on does the same steps
            longer = question_of(
                RETRAIN.name,
                replace(job, control="no_cell_longer"),
                device=model_name,
                on_gpu=is_gpu(model_name),
                is_exclusive=False,
                data=DataSize(),
            )
            yield replace(found, of=replace(found.of, kind=RETRAIN.name, arm=longer.arm))

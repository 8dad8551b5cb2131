"""From the finished stages of a job to a folder that is used without them."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from iac_core.cells.genotype import Genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.data.slices import PreparedData
from iac_core.errors import ConfigError
from iac_core.exported import ProgramFormat, write_export, write_program
from iac_core.types import SilentReporter
from workers.job import plain
from workers.provenance import provenance
from workers.recipes import recipe_of
from workers.stage_store import StageStore
from workers.stages.context import StageContext
from workers.stages.networks import final_network
from workers.task import StageTask


def export_job(
    task: StageTask, store: StageStore, folder: Path, programs: tuple[ProgramFormat, ...]
) -> dict[ProgramFormat, float]:
    """Write genotype, weights and description of a job with cells; whole or not at all.

    Args:
        task: The job's ``evaluate`` stage, done.
        store: Where the stages lie.
        folder: The folder to write; it must not exist.
        programs: Formats in which the whole network is written too.

    Returns:
        Format → largest difference of a logit between that program and the network.

    Raises:
        ConfigError: If the folder exists, the job has no cells, or a program differs.
    """
    if folder.exists():
        raise ConfigError(
            "an export must go into a new folder",
            value=folder,
            way_out="remove or rename it",
        )
    if not task.genotype:
        raise ConfigError(
            "a job to export must have cells",
            value=task.job.label,
        )
    context = StageContext(
        task=task,
        folder=folder,
        store=store,
        device=torch.device("cpu"),
        is_exclusive=False,
        reporter=SilentReporter(),
    )
    data = context.data()
    network = final_network(context, data)
    assert isinstance(network, ImplantedNetwork)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        write_export(
            partial,
            network,
            Genotype.from_json(task.genotype),
            task.job.settings.cell,
            _description(context, data),
        )
        differences = {
            kind: write_program(
                network,
                partial,
                kind,
                n_channels=data.n_channels,
                slice_shape=data.slice_shape,
            )
            for kind in programs
        }
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return differences


def _description(context: StageContext, data: PreparedData) -> dict[str, Any]:
    task, job = context.task, context.task.job
    stages = {
        parent.role: (parent.kind, parent.key) for parent in task.parents if parent.is_in_key
    } | {task.role: task.id}
    records = {role: context.store.record(*place) for role, place in stages.items()}
    outcomes = {role: dict(record.outcome) for role, record in records.items() if record}
    ct = None
    if data.ct is not None:
        ct = {name: value.tolist() for name, value in asdict(data.ct).items()}
    return {
        "job": {
            "job_id": job.job_id,
            "dataset": job.dataset,
            "backbone": job.backbone,
            "pruner": job.pruner,
            "seed": job.seed,
        },
        "backbone": {
            "type": job.backbone_type,
            "settings": plain(job.settings.backbone),
        },
        "data": {
            "channels": list(data.channels),
            "n_neighbours": data.n_neighbours,
            "label_values": list(data.label_values),
            "classes": {name: list(values) for name, values in data.classes.items()},
            "preparation": recipe_of(job.settings.backbone).preparation(
                job, context.parent("prepare")
            ),
            "ct": ct,
        },
        "stages": {role: key for role, (_, key) in stages.items()},
        "outcomes": outcomes,
        "provenance": provenance("cpu", torch.get_num_threads()),
    }

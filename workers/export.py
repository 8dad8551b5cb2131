"""From the finished stages of a job to a folder that is used without them."""

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from iac_core.backbones.nnunet_unet import NnunetSettings
from iac_core.cells.genotype import Genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.data.slices import PreparedData
from iac_core.errors import ConfigError
from iac_core.exported import ProgramFormat, write_export, write_program
from iac_core.nnunet.cases import PlannedCases
from iac_core.types import SilentReporter
from workers.job import plain
from workers.provenance import provenance
from workers.stage_store import StageStore
from workers.stages import StageRoom, final_network
from workers.tasks import StageTask


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
    room = StageRoom(
        task=task,
        folder=folder,
        store=store,
        device=torch.device("cpu"),
        is_exclusive=False,
        reporter=SilentReporter(),
    )
    data = room.data()
    network = final_network(room, data)
    assert isinstance(network, ImplantedNetwork)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        write_export(
            partial,
            network,
            Genotype.from_json(task.genotype),
            task.job.settings.cell,
            _description(task, store, data),
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


def _description(task: StageTask, store: StageStore, data: PreparedData) -> dict[str, Any]:
    job = task.job
    keys = {**task.parents, "evaluate": task.key}
    records = {kind: store.record(kind, key) for kind, key in keys.items()}
    outcomes = {kind: dict(record.outcome) for kind, record in records.items() if record}
    preparation = plain(job.settings.prepare)
    if isinstance(job.settings.backbone, NnunetSettings):
        preparation = PlannedCases(store.folder("prepare", task.parents["prepare"])).plans
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
            "type": type(job.settings.backbone).__name__,
            "settings": plain(job.settings.backbone),
        },
        "data": {
            "channels": list(data.channels),
            "n_neighbours": data.n_neighbours,
            "label_values": list(data.label_values),
            "classes": {name: list(values) for name, values in data.classes.items()},
            "preparation": preparation,
            "ct": ct,
        },
        "stages": keys,
        "outcomes": outcomes,
        "provenance": provenance("cpu", torch.get_num_threads()),
    }

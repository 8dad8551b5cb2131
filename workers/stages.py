"""The table of stages: for each kind the function that computes it.

A function gets a `StageRoom` and writes its files into the room's folder; what it returns is the
outcome, small plain values for the manifest.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from files.writing import whole_file, write_json, write_text
from iac_core.backbones import build_backbone
from iac_core.backbones.interface import Backbone
from iac_core.backbones.nnunet_unet import NnunetSettings
from iac_core.cells.genotype import Genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.checkpoint import load_checkpoint, save_checkpoint
from iac_core.data.prepare import prepare
from iac_core.data.slices import PreparedData
from iac_core.data.splits import Split, SplitFileError, make_split
from iac_core.errors import ConfigError, DataError
from iac_core.evaluation.cost import count_macs, count_parameters
from iac_core.evaluation.per_patient import Segment, score_patients, segment_slices
from iac_core.nnunet.cases import PlannedCases
from iac_core.nnunet.prepare import prepare_by_nnunet
from iac_core.nnunet.training import pretrain_by_nnunet
from iac_core.pruners import build_pruner
from iac_core.pruners.evidence import GRADIENT_SUMS
from iac_core.training.fit import FitResult, TrainingRoom, evaluation_mode
from iac_core.training.pretrain import pretrain, train_longer
from iac_core.training.retrain import retrain
from iac_core.training.search import compile_kernels, search
from iac_core.training.searches import SearchKind, search_kind
from iac_core.types import Reporter
from workers.provenance import OtherLoad
from workers.stage_record import DamagedStageError
from workers.stage_store import CHECKPOINT, StageStore
from workers.tasks import StageTask

WEIGHTS = "weights.pt"
CURVE = "curve.json"
SPLIT = "split.json"
GENOTYPE = "genotype.json"
TRAJECTORY = "trajectory.npz"
EVENTS = "events.json"
LIVENESS = "liveness.json"
PATIENTS = "patients.json"

Outcome = dict[str, Any]

_RECORDED = (
    "alpha",
    "beta",
    "importance",
    "active",
    "jsd",
    "beta_jsd",
    *GRADIENT_SUMS,
    "n_alpha_steps",
)
"""Arrays of a search's record, first axis epochs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRoom:
    """Where a stage works.

    Attributes:
        task: What to compute.
        folder: Where its files go; holds the checkpoint of an earlier attempt, if there was one.
        store: Where the stages it builds on are.
        device: Device to compute on.
        is_exclusive: Whether the stage has its device to itself.
        reporter: Told of progress, asked whether to stop.
        n_micro_batches: Parts that each batch is cut into, for want of GPU memory.
    """

    task: StageTask
    folder: Path
    store: StageStore
    device: torch.device
    is_exclusive: bool
    reporter: Reporter
    n_micro_batches: int = 1

    def parent(self, kind: str) -> Path:
        """Return the folder of a stage that this one builds on.

        Raises:
            DamagedStageError: If the stage is not whole, or a file is not as it was written.
        """
        key = self.task.parents[kind]
        if self.store.record(kind, key) is None:
            raise self.store.damaged(kind, key, "it has no whole manifest")
        return self.store.folder(kind, key)

    @contextmanager
    def reading(self, kind: str) -> Iterator[Path]:
        """Read files of a stage that this one builds on: what is wrong with them is its fault.

        Only the files of older versions, which have no checksums, can fail in here.

        Raises:
            DamagedStageError: If a file cannot be read.
        """
        folder = self.parent(kind)
        try:
            yield folder
        except DamagedStageError:
            raise
        except (DataError, SplitFileError, FileNotFoundError) as error:
            reason = str(error).splitlines()[0]
            raise self.store.damaged(kind, self.task.parents[kind], reason) from error

    def data(self) -> PreparedData:
        """Open the prepared slices; CT is normalised by the split's training patients."""
        with self.reading("prepare") as folder:
            data = PreparedData.open(folder)
        return data.with_ct_of(self.split(data).train)

    def weights(self, kind: str) -> dict[str, Any]:
        """Return the trained weights of a stage that this one builds on."""
        with self.reading(kind) as folder:
            return load_checkpoint(folder / WEIGHTS)

    def split(self, data: PreparedData) -> Split:
        """Return the split of the job, the saved one where a pre-training saved it."""
        if "pretrain" in self.task.parents:
            with self.reading("pretrain") as folder:
                return Split.load(folder / SPLIT)
        return make_split(data.patients, self.task.job.settings.split, data.official_test)

    def training_room(self, data: PreparedData, split: Split) -> TrainingRoom:
        """Return what the training functions need."""
        return TrainingRoom(
            data=data,
            split=split,
            device=self.device,
            checkpoint_path=self.folder / CHECKPOINT,
            reporter=self.reporter,
            augmentation=self.task.job.settings.augmentation,
            n_micro_batches=self.n_micro_batches,
        )


def prepare_stage(room: StageRoom) -> Outcome:
    """Turn the data folder into slices; for nnU-Net's network by nnU-Net itself."""
    source, settings = room.task.source, room.task.job.settings
    dataset = source.open()
    if not isinstance(settings.backbone, NnunetSettings):
        return asdict(prepare(dataset, settings.prepare, room.folder, room.reporter))
    refs = dataset.volumes()
    patients = sorted({ref.patient_id for ref in refs})
    official = sorted({ref.patient_id for ref in refs if ref.is_official_test})
    summary = prepare_by_nnunet(
        dataset,
        make_split(patients, settings.split, official),
        settings.backbone,
        settings.prepare,
        room.folder,
        room.reporter,
        n_processes=torch.get_num_threads(),
    )
    return asdict(summary)


def pretrain_stage(room: StageRoom) -> Outcome:
    """Train a backbone."""
    job, data = room.task.job, room.data()
    split = room.split(data)
    split.save(room.folder / SPLIT)
    training_room, settings = room.training_room(data, split), job.settings
    if isinstance(settings.backbone, NnunetSettings):
        result = pretrain_by_nnunet(
            room.parent("prepare"),
            settings.backbone,
            training_room,
            seed=job.pretrain_seed,
            checkpoint_every_epochs=settings.pretrain.checkpoint_every_epochs,
            n_processes=torch.get_num_threads(),
        )
    else:
        backbone = _fresh_backbone(room, data)
        result = pretrain(backbone, training_room, settings.pretrain, seed=job.pretrain_seed)
    return {"split_hash": split.hash, **_keep(room, result)}


def search_stage(room: StageRoom) -> Outcome:
    """Search a cell for the trained backbone."""
    kind = search_kind(room.task.job.settings.pruner)
    if kind is not None:
        return _search_of_kind(room, kind)
    job, data = room.task.job, room.data()
    compile_s = _compile()
    load = OtherLoad()
    record = search(
        _trained_backbone(room, data),
        build_pruner(job.settings.pruner),
        room.training_room(data, room.split(data)),
        cell=job.settings.cell,
        settings=job.settings.search,
        seed=job.seed,
    )
    genotype = record.genotype.to_json()
    write_text(room.folder / GENOTYPE, genotype)
    _write(room, EVENTS, record.events)
    _write(room, CURVE, record.curve)
    _write(room, LIVENESS, {"looks": record.looks, "contribution": record.contribution.tolist()})
    arrays: dict[str, Any] = {name: getattr(record, name) for name in _RECORDED}
    for name in ("n_weight_steps", "n_architecture_steps", "n_scored_slices"):
        arrays[name] = np.array([entry[name] for entry in record.curve], dtype=np.int64)
    with whole_file(room.folder / TRAJECTORY) as file:
        np.savez_compressed(
            file,
            edges=np.asarray(record.edges),
            operations=np.asarray(record.operations),
            alive_since=record.evidence.alive_since,
            evidence_bound=np.float64(record.evidence.bound),
            **arrays,
        )
    return {
        "genotype": genotype,
        "search_is_alive": record.is_alive,
        "live_edge_share": record.live_edge_share,
        "cell_contribution": float(record.contribution.min()),
        "search_s": record.search_s,
        "search_compile_s": compile_s,
        "search_epochs": len(record.curve),
        "search_epochs_full": job.settings.search.epochs,
        "n_steps_per_epoch": record.n_steps,
        "alpha_learning_rate": record.alpha_learning_rate,
        "search_exclusive": room.is_exclusive,
        "search_other_load": load.share(),
    }


def _search_of_kind(room: StageRoom, kind: SearchKind) -> Outcome:
    """Search by something else than an operation pruner: there is no trajectory of alpha."""
    job, data = room.task.job, room.data()
    compile_s = _compile()
    load = OtherLoad()
    found = kind.run(
        _trained_backbone(room, data),
        job.settings.pruner,
        room.training_room(data, room.split(data)),
        cell=job.settings.cell,
        search=job.settings.search,
        seed=job.seed,
    )
    genotype = found.genotype.to_json()
    write_text(room.folder / GENOTYPE, genotype)
    files = {EVENTS: found.events, CURVE: found.curve, **found.files()}
    for name, content in files.items():
        _write(room, name, content)
    return {
        "genotype": genotype,
        "search_s": found.search_s,
        "search_compile_s": compile_s,
        "search_epochs": len(found.curve),
        "search_epochs_full": len(found.curve),
        "n_steps_per_epoch": found.n_steps,
        "search_exclusive": room.is_exclusive,
        "search_other_load": load.share(),
        **found.outcome(),
    }


def _compile() -> float:
    """Compile the kernels of a search; return the seconds, which no search counts."""
    started = time.perf_counter()
    compile_kernels()
    return time.perf_counter() - started


def retrain_stage(room: StageRoom) -> Outcome:
    """Train the discrete cells, or the backbone for longer if there are none."""
    job, data = room.task.job, room.data()
    training_room = room.training_room(data, room.split(data))
    settings = job.settings.retrain
    network = _network(room, data)
    if isinstance(network, ImplantedNetwork):
        result = retrain(network, training_room, settings, seed=job.retrain_seed)
        return _keep(room, result)
    result = train_longer(network, training_room, settings, seed=job.retrain_seed)
    return _keep(room, result)


def evaluate_stage(room: StageRoom) -> Outcome:
    """Score every patient of the subsets on the original grid."""
    job, data = room.task.job, room.data()
    module = final_network(room, data)
    rows = score_patients(
        _segment(room, module, data),
        data,
        room.split(data),
        job.settings.evaluate,
        room.reporter,
    )
    _write(room, PATIENTS, rows)
    parameters = count_parameters(module)
    cells = module.implant.cell_parameters() if isinstance(module, ImplantedNetwork) else ()
    shape = (1, data.n_channels, *data.slice_shape)
    return {
        "n_parameters": parameters.total,
        "n_cell_parameters": sum(weight.numel() for weight in cells),
        "n_macs": count_macs(module, shape),
        "classes": list(data.classes),
    }


STAGES: dict[str, Callable[[StageRoom], Outcome]] = {
    "prepare": prepare_stage,
    "pretrain": pretrain_stage,
    "search": search_stage,
    "retrain": retrain_stage,
    "evaluate": evaluate_stage,
}
"""Kind of stage → function. Its version is in `workers.tasks.STAGE_VERSIONS`."""


def final_network(room: StageRoom, data: PreparedData) -> nn.Module:
    """Return the network that an evaluation scores, with all its trained weights.

    Args:
        room: That of an ``evaluate`` stage.
        data: The prepared slices.

    Raises:
        ConfigError: If retrained weights do not fit.
    """
    module = _as_module(_network(room, data))
    if "retrain" not in room.task.parents:
        return module
    state = room.weights("retrain")
    missing, unexpected = module.load_state_dict(state, strict=False)
    if unexpected or any(not name.startswith("implant.backbone.") for name in missing):
        raise ConfigError(
            "retrained weights must fit the network",
            value=f"{unexpected} {missing}",
        )
    return module


def _segment(room: StageRoom, module: nn.Module, data: PreparedData) -> Segment:
    settings = room.task.job.settings
    if isinstance(settings.backbone, NnunetSettings):
        cases = PlannedCases(room.parent("prepare"))
        return cases.segmenter(
            module.eval(), data, device=room.device, mirrors=settings.backbone.mirrors
        )
    return segment_slices(
        evaluation_mode(module),
        data,
        batch_size=max(1, settings.evaluate.batch_size // room.n_micro_batches),
        device=room.device,
    )


def _keep(room: StageRoom, result: FitResult) -> Outcome:
    """Write weights and curve of a training; return its outcome."""
    save_checkpoint(room.folder / WEIGHTS, result.state)
    _write(room, CURVE, result.curve)
    return {
        "seconds": sum(entry["seconds"] for entry in result.curve),
        "best_epoch": result.best_epoch,
        "best_validation_dice": result.best_dice,
        **({} if result.start_dice is None else {"start_validation_dice": result.start_dice}),
    }


def _write(room: StageRoom, name: str, value: object) -> None:
    """Write plain values; what was not measured is NaN."""
    write_json(room.folder / name, value, takes_nan=True, is_indented=True)


def _fresh_backbone(room: StageRoom, data: PreparedData) -> Backbone:
    job = room.task.job
    n_channels, n_classes = data.n_channels, data.n_classes
    backbone: Backbone
    if isinstance(job.settings.backbone, NnunetSettings):
        cases = PlannedCases(room.parent("prepare"))
        backbone = cases.network(
            n_channels=n_channels, n_classes=n_classes, seed=job.pretrain_seed
        )
    else:
        backbone = build_backbone(
            job.settings.backbone,
            n_channels=n_channels,
            n_classes=n_classes,
            seed=job.pretrain_seed,
        )
    _as_module(backbone).to(room.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return backbone


def _trained_backbone(room: StageRoom, data: PreparedData) -> Backbone:
    backbone = _fresh_backbone(room, data)
    _as_module(backbone).load_state_dict(room.weights("pretrain"))
    return backbone


def _network(room: StageRoom, data: PreparedData) -> Backbone | ImplantedNetwork:
    """The trained backbone, with fresh cells in it if the task has a genotype."""
    job, backbone = room.task.job, _trained_backbone(room, data)
    if not room.task.genotype:
        return backbone
    network = ImplantedNetwork(
        backbone,
        Genotype.from_json(room.task.genotype),
        job.settings.cell,
        scope=job.settings.retrain.scope,
        seed=job.retrain_seed,
    )
    network.to(room.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _as_module(network: Backbone | nn.Module) -> nn.Module:
    assert isinstance(network, nn.Module)
    return network

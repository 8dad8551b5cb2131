"""What of a job's stages depends on who trains the backbone: this project, or nnU-Net.

A recipe prepares the data, trains the backbone, builds its network and segments volumes with it,
and says what of that belongs to the keys. Nothing else asks which of the two it is.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from iac_core.backbones import build_backbone
from iac_core.backbones.interface import Backbone
from iac_core.backbones.nnunet_unet import NnunetSettings
from iac_core.config import PretrainSettings, RetrainSettings
from iac_core.data.prepare import prepare
from iac_core.data.slices import PreparedData
from iac_core.data.splits import make_split
from iac_core.evaluation.per_patient import Segment, segment_slices
from iac_core.nnunet.cases import PlannedCases
from iac_core.nnunet.prepare import prepare_by_nnunet
from iac_core.nnunet.training import pretrain_by_nnunet
from iac_core.training.fit import FitResult, TrainingRoom, evaluation_mode
from iac_core.training.pretrain import pretrain
from workers.job import Job, plain
from workers.stages.context import StageContext
from workers.task import Outcome


class Recipe(Protocol):
    """How the data of a backbone are prepared, how it is trained, and how it segments."""

    @property
    def network_follows_from_data(self) -> bool:
        """Whether the network is known once its data are prepared, and not before."""
        ...

    @property
    def package(self) -> str:
        """Package that must be installed for it; empty if there is none."""
        ...

    @property
    def runs_apart(self) -> frozenset[str]:
        """Kinds of stages that compute in a process of their own, where nothing is measured."""
        ...

    def prepare_inputs(self, job: Job) -> dict[str, Any]:
        """Return what of a job the key of its preparation holds, as plain values."""
        ...

    def pretrain_inputs(self, job: Job) -> dict[str, Any]:
        """Return what of a job's training the key of its pre-training holds, as plain values."""
        ...

    def later_inputs(self, job: Job) -> dict[str, Any]:
        """Return what of a job every key after the pre-training holds for the recipe's sake."""
        ...

    def prepare(self, context: StageContext) -> Outcome:
        """Turn the data folder into slices in the context's folder."""
        ...

    def network(self, context: StageContext, data: PreparedData) -> Backbone:
        """Return the network with fresh weights, on the CPU."""
        ...

    def pretrain(self, context: StageContext, data: PreparedData, room: TrainingRoom) -> FitResult:
        """Train the backbone."""
        ...

    def segment(self, context: StageContext, network: nn.Module, data: PreparedData) -> Segment:
        """Return what predicts a volume."""
        ...

    def preparation(self, job: Job, prepared: Path) -> dict[str, Any]:
        """Return what has to be done to images before the network takes them, as plain values.

        Args:
            job: The job.
            prepared: Folder of its preparation.
        """
        ...


class OwnRecipe:
    """Slices, training and inference by this project."""

    network_follows_from_data = False
    package = ""
    runs_apart: frozenset[str] = frozenset()

    def prepare_inputs(self, job: Job) -> dict[str, Any]:
        """See `Recipe`."""
        return {"prepare": plain(job.settings.prepare)}

    def pretrain_inputs(self, job: Job) -> dict[str, Any]:
        """See `Recipe`; every later key builds on this one, so that it holds the views too."""
        return {"pretrain": without_seed(job.settings.pretrain), **_views(job)}

    def later_inputs(self, job: Job) -> dict[str, Any]:
        """See `Recipe`."""
        return {}

    def prepare(self, context: StageContext) -> Outcome:
        """See `Recipe`."""
        source, settings = context.task.source, context.task.job.settings
        return asdict(prepare(source.open(), settings.prepare, context.folder, context.reporter))

    def network(self, context: StageContext, data: PreparedData) -> Backbone:
        """See `Recipe`."""
        job = context.task.job
        return build_backbone(
            job.settings.backbone,
            n_channels=data.n_channels,
            n_classes=data.n_classes,
            seed=job.pretrain_seed,
        )

    def pretrain(self, context: StageContext, data: PreparedData, room: TrainingRoom) -> FitResult:
        """See `Recipe`."""
        job = context.task.job
        backbone = on_device(self.network(context, data), context.device)
        return pretrain(backbone, room, job.settings.pretrain, seed=job.pretrain_seed)

    def segment(self, context: StageContext, network: nn.Module, data: PreparedData) -> Segment:
        """See `Recipe`."""
        settings = context.task.job.settings.evaluate
        return segment_slices(
            evaluation_mode(network),
            data,
            batch_size=max(1, settings.batch_size // context.n_micro_batches),
            device=context.device,
        )

    def preparation(self, job: Job, prepared: Path) -> dict[str, Any]:
        """See `Recipe`."""
        found: dict[str, Any] = plain(job.settings.prepare)
        return found


class NnunetRecipe:
    """nnU-Net's fingerprint, plans, preprocessing, trainer and sliding window."""

    network_follows_from_data = True
    package = "nnunetv2"
    runs_apart = frozenset({"prepare", "pretrain"})

    def prepare_inputs(self, job: Job) -> dict[str, Any]:
        """See `Recipe`; the plans come from the training patients."""
        backbone = _nnunet(job)
        return {
            "split": job.split_identity(),
            "nnunet": {"planner": backbone.planner, "gpu_memory_gb": backbone.gpu_memory_gb},
            "background_share": job.settings.prepare.background_share,
        }

    def pretrain_inputs(self, job: Job) -> dict[str, Any]:
        """See `Recipe`; nnU-Net's training has settings and views of its own."""
        return {}

    def later_inputs(self, job: Job) -> dict[str, Any]:
        """See `Recipe`."""
        return _views(job)

    def prepare(self, context: StageContext) -> Outcome:
        """See `Recipe`."""
        job, source = context.task.job, context.task.source
        dataset = source.open()
        refs = dataset.volumes()
        patients = sorted({ref.patient_id for ref in refs})
        official = sorted({ref.patient_id for ref in refs if ref.is_official_test})
        summary = prepare_by_nnunet(
            dataset,
            make_split(patients, job.settings.split, official),
            _nnunet(job),
            job.settings.prepare,
            context.folder,
            context.reporter,
            n_processes=torch.get_num_threads(),
        )
        return asdict(summary)

    def network(self, context: StageContext, data: PreparedData) -> Backbone:
        """See `Recipe`."""
        cases = PlannedCases(context.parent("prepare"))
        return cases.network(
            n_channels=data.n_channels,
            n_classes=data.n_classes,
            seed=context.task.job.pretrain_seed,
        )

    def pretrain(self, context: StageContext, data: PreparedData, room: TrainingRoom) -> FitResult:
        """See `Recipe`."""
        job = context.task.job
        return pretrain_by_nnunet(
            context.parent("prepare"),
            _nnunet(job),
            room,
            seed=job.pretrain_seed,
            checkpoint_every_epochs=job.settings.pretrain.checkpoint_every_epochs,
            n_processes=torch.get_num_threads(),
        )

    def segment(self, context: StageContext, network: nn.Module, data: PreparedData) -> Segment:
        """See `Recipe`."""
        cases = PlannedCases(context.parent("prepare"))
        mirrors = _nnunet(context.task.job).mirrors
        return cases.segmenter(network.eval(), data, device=context.device, mirrors=mirrors)

    def preparation(self, job: Job, prepared: Path) -> dict[str, Any]:
        """See `Recipe`."""
        return PlannedCases(prepared).plans


_OWN = OwnRecipe()
RECIPES: dict[type, Recipe] = {NnunetSettings: NnunetRecipe()}
"""Class of a backbone's settings → its recipe; every other backbone has that of this project."""


def recipe_of(backbone: object) -> Recipe:
    """Return the recipe of a backbone.

    Args:
        backbone: Its settings.
    """
    return RECIPES.get(type(backbone), _OWN)


def on_device(backbone: Backbone, device: torch.device) -> Backbone:
    """Move a network to a device, in the memory format that its convolutions like best."""
    assert isinstance(backbone, nn.Module)
    backbone.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return backbone


def without_seed(settings: PretrainSettings | RetrainSettings) -> dict[str, Any]:
    """Return a training's settings but its seed: a key holds the one that counts."""
    return {name: value for name, value in plain(settings).items() if name != "seed"}


def _views(job: Job) -> dict[str, Any]:
    """The random views of a training; nothing where there are none."""
    if not job.settings.augmentation.enabled:
        return {}
    return {"augmentation": job.augmentation_identity()}


def _nnunet(job: Job) -> NnunetSettings:
    assert isinstance(job.settings.backbone, NnunetSettings)
    return job.settings.backbone

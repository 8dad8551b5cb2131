"""The stage ``pretrain``: the backbone is trained."""

from typing import Any

from iac_core.config import PretrainSettings
from workers.job import Job
from workers.recipes import recipe_of
from workers.stage_kind import StageKind
from workers.stages.context import StageContext
from workers.stages.files import CURVE, SPLIT
from workers.stages.networks import keep_training
from workers.task import DataSource, Outcome
from workers.work import DataSize, Sections, Work, work_of_training


def _inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    return {
        "split": job.split_identity(),
        "backbone": job.backbone_identity(),
        "backbone_type": job.backbone_type,
        "seed": job.pretrain_seed,
        **recipe_of(job.settings.backbone).pretrain_inputs(job),
    }


def _run(context: StageContext) -> Outcome:
    data = context.data()
    split = context.split(data)
    split.save(context.folder / SPLIT)
    room = context.training_room(data, split)
    result = recipe_of(context.task.job.settings.backbone).pretrain(context, data, room)
    return {"split_hash": split.hash, **keep_training(context, result)}


def _work(sections: Sections, size: int, data: DataSize) -> Work:
    settings = sections.get("pretrain")
    if settings is None:  # nnU-Net's own training, whose epochs have a fixed number of steps
        return Work(rounds=float(sections.get("backbone", {}).get("epochs", 1)), per_round=1.0)
    return work_of_training(settings, size, data)


PRETRAIN = StageKind(
    name="pretrain",
    version=1,
    section="pretrain",
    settings=PretrainSettings,
    inputs=_inputs,
    run=_run,
    work=_work,
    axes=("dataset", "backbone", "seed"),
    files=(CURVE,),
    columns={"split_hash": "split_hash", "seconds": "pretrain_s"},
)

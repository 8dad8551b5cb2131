"""The stage ``retrain``: discrete cells are trained, or the backbone for longer without any."""

from typing import Any

from iac_core.cells.implant import ImplantedNetwork
from iac_core.config import RetrainSettings
from iac_core.training.pretrain import train_longer
from iac_core.training.retrain import retrain
from workers.job import Job, identity
from workers.recipes import recipe_of, without_seed
from workers.stage_kind import StageKind
from workers.stages.context import StageContext
from workers.stages.files import CURVE
from workers.stages.networks import keep_training, network_to_train
from workers.task import DataSource, Outcome
from workers.work import DataSize, Sections, Work, work_of_training

_OF_THE_CELL = (
    "n_nodes",
    "partial_channels",
    "second_input",
    "form",
    "node_width",
    "start",
)
"""Settings of the cell that the retrained network depends on."""
_UNUSED_WITHOUT_CELLS = ("scope", "learning_rate")


def _inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    settings = without_seed(job.settings.retrain)
    later = recipe_of(job.settings.backbone).later_inputs(job)
    if not genotype:
        used = {k: v for k, v in settings.items() if k not in _UNUSED_WITHOUT_CELLS}
        return {"retrain": used, "seed": job.retrain_seed, **later}
    cell = identity("cell", job.settings.cell)
    return {
        "genotype": genotype,
        "cell": {name: cell[name] for name in _OF_THE_CELL if name in cell},
        "retrain": settings,
        "seed": job.retrain_seed,
        **later,
    }


def _run(context: StageContext) -> Outcome:
    job, data = context.task.job, context.data()
    room = context.training_room(data, context.split(data))
    network = network_to_train(context, data)
    settings, seed = job.settings.retrain, job.retrain_seed
    if isinstance(network, ImplantedNetwork):
        return keep_training(context, retrain(network, room, settings, seed=seed))
    return keep_training(context, train_longer(network, room, settings, seed=seed))


def _work(sections: Sections, size: int, data: DataSize) -> Work:
    return work_of_training(sections["retrain"], size, data)


RETRAIN = StageKind(
    name="retrain",
    version=2,
    section="retrain",
    settings=RetrainSettings,
    inputs=_inputs,
    run=_run,
    work=_work,
    varies_with="cells",
    files=(CURVE,),
    columns={
        "seconds": "retrain_s",
        "best_epoch": "best_retrain_epoch",
        "start_validation_dice": "start_val_dice",
    },
)

"""The stage ``evaluate``: every predicted volume is scored on its original grid."""

from typing import Any

from iac_core.config import EvaluateSettings
from iac_core.evaluation.masks import Masks
from iac_core.evaluation.per_patient import score_patients
from workers.job import Job, plain
from workers.stage_kind import StageKind
from workers.stages.context import StageContext
from workers.stages.files import PATIENTS, write_values
from workers.stages.predict import PREDICT, work_of_slices
from workers.task import DataSource, Outcome


def _inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    return {"evaluate": plain(job.settings.evaluate)}


def _run(context: StageContext) -> Outcome:
    data, settings = context.data(), context.task.job.settings.evaluate
    with context.reading("predict") as folder:
        masks = Masks(folder)
        rows = score_patients(
            lambda volume: masks.of(volume.volume_id),
            data,
            context.split(data),
            settings,
            context.reporter,
        )
    write_values(context.folder, PATIENTS, rows)
    predicted = context.record("predict").outcome
    return {
        **{name: predicted[name] for name in PREDICT.promises},
        "classes": list(data.classes),
    }


EVALUATE = StageKind(
    name="evaluate",
    version=1,
    section="evaluate",
    settings=EvaluateSettings,
    inputs=_inputs,
    run=_run,
    work=work_of_slices,
    varies_with="cells",
    uses_gpu=False,
    files=(PATIENTS,),
    columns={name: name for name in PREDICT.promises},
)

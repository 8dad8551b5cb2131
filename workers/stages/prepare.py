"""The stage ``prepare``: the data folder becomes slices on the disk."""

from typing import Any

from iac_core.config import PrepareSettings
from workers.job import Job, plain
from workers.recipes import recipe_of
from workers.stage_kind import StageKind
from workers.stages.context import StageContext
from workers.task import DataSource, Outcome
from workers.work import DataSize, Sections, Work


def _inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    return {
        "layout": source.layout,
        "fingerprint": source.fingerprint,
        "options": plain(source.options),
        **recipe_of(job.settings.backbone).prepare_inputs(job),
    }


def _run(context: StageContext) -> Outcome:
    return recipe_of(context.task.job.settings.backbone).prepare(context)


def _work(sections: Sections, size: int, data: DataSize) -> Work:
    return Work(per_round=None if data.n_volumes is None else float(data.n_volumes))


PREPARE = StageKind(
    name="prepare",
    version=2,
    section="prepare",
    settings=PrepareSettings,
    inputs=_inputs,
    run=_run,
    work=_work,
    axes=("dataset",),
    uses_gpu=False,
)

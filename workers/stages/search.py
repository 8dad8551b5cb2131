"""The stage ``search``: cells are searched for the trained backbone."""

import math
import time
from typing import Any

import numpy as np

from files.writing import whole_file, write_text
from iac_core.config import SearchSettings
from iac_core.pruners import build_pruner
from iac_core.pruners.evidence import GRADIENT_SUMS
from iac_core.training.search import SearchRecord, compile_kernels, search
from iac_core.training.searches import SEARCHES, SearchKind, search_kind
from workers.job import Job, identity, plain
from workers.key_names import key_name_of_class
from workers.provenance import OtherLoad
from workers.recipes import recipe_of
from workers.stage_kind import StageKind
from workers.stages.context import StageContext
from workers.stages.files import CURVE, EVENTS, GENOTYPE, LIVENESS, TRAJECTORY, write_values
from workers.stages.networks import trained_backbone
from workers.task import DataSource, Outcome
from workers.work import DataSize, Sections, Work, pixels_of, work_of_training

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
_PASSES = 2.0
"""Batches of a step: one of alpha's beside one of the weights'."""


def _inputs(job: Job, source: DataSource, genotype: str) -> dict[str, Any]:
    cell = identity("cell", job.settings.cell)
    return {
        "pruner": plain(job.settings.pruner),
        "pruner_type": job.pruner_type,
        # Form and start concern retraining alone; the search has a join of its own.
        "cell": {k: v for k, v in cell.items() if k not in ("form", "start")},
        "search": plain(job.settings.search),
        "seed": job.seed,
        **recipe_of(job.settings.backbone).later_inputs(job),
    }


def _run(context: StageContext) -> Outcome:
    kind = search_kind(context.task.job.settings.pruner)
    if kind is not None:
        return _run_other(context, kind)
    job, data = context.task.job, context.data()
    compile_s = _compile()
    load = OtherLoad()
    record = search(
        trained_backbone(context, data),
        build_pruner(job.settings.pruner),
        context.training_room(data, context.split(data)),
        cell=job.settings.cell,
        settings=job.settings.search,
        seed=job.seed,
    )
    _write(context, record)
    return {
        "genotype": record.genotype.to_json(),
        "search_is_alive": record.is_alive,
        "live_edge_share": record.live_edge_share,
        "cell_contribution": float(record.contribution.min()),
        "search_s": record.search_s,
        "search_compile_s": compile_s,
        "search_epochs": len(record.curve),
        "search_epochs_full": job.settings.search.epochs,
        "n_steps_per_epoch": record.n_steps,
        "alpha_learning_rate": record.alpha_learning_rate,
        "search_exclusive": context.is_exclusive,
        "search_other_load": load.share(),
    }


def _write(context: StageContext, record: SearchRecord) -> None:
    """Write the files of a search over alpha."""
    folder = context.folder
    write_text(folder / GENOTYPE, record.genotype.to_json())
    write_values(folder, EVENTS, record.events)
    write_values(folder, CURVE, record.curve)
    contribution = record.contribution.tolist()
    write_values(folder, LIVENESS, {"looks": record.looks, "contribution": contribution})
    arrays: dict[str, Any] = {name: getattr(record, name) for name in _RECORDED}
    for name in ("n_weight_steps", "n_architecture_steps", "n_scored_slices"):
        arrays[name] = np.array([entry[name] for entry in record.curve], dtype=np.int64)
    with whole_file(folder / TRAJECTORY) as file:
        np.savez_compressed(
            file,
            edges=np.asarray(record.edges),
            operations=np.asarray(record.operations),
            alive_since=record.evidence.alive_since,
            evidence_bound=np.float64(record.evidence.bound),
            **arrays,
        )


def _run_other(context: StageContext, kind: SearchKind) -> Outcome:
    """Search by something else than an operation pruner: there is no trajectory of alpha."""
    job, data = context.task.job, context.data()
    compile_s = _compile()
    load = OtherLoad()
    found = kind.run(
        trained_backbone(context, data),
        job.settings.pruner,
        context.training_room(data, context.split(data)),
        cell=job.settings.cell,
        search=job.settings.search,
        seed=job.seed,
    )
    genotype = found.genotype.to_json()
    write_text(context.folder / GENOTYPE, genotype)
    files = {EVENTS: found.events, CURVE: found.curve, **found.files()}
    for name, content in files.items():
        write_values(context.folder, name, content)
    return {
        "genotype": genotype,
        "search_s": found.search_s,
        "search_compile_s": compile_s,
        "search_epochs": len(found.curve),
        "search_epochs_full": len(found.curve),
        "n_steps_per_epoch": found.n_steps,
        "search_exclusive": context.is_exclusive,
        "search_other_load": load.share(),
        **found.outcome(),
    }


def _compile() -> float:
    """Compile the kernels of a search; return the seconds, which no search counts."""
    started = time.perf_counter()
    compile_kernels()
    return time.perf_counter() - started


def _work(sections: Sections, size: int, data: DataSize) -> Work:
    settings = sections["search"]
    name = sections.get("pruner_type")
    kind = next((k for k in SEARCHES.values() if key_name_of_class(k.settings) == name), None)
    if kind is None:
        return work_of_training(settings, size, data, passes=_PASSES)
    n_slices = math.nan if data.n_training_slices is None else float(data.n_training_slices)
    units = kind.n_slices(sections["pruner"], settings, n_slices)
    return Work(per_round=None if math.isnan(units) else units, pixels=pixels_of(size))


SEARCH = StageKind(
    name="search",
    version=3,
    section="search",
    settings=SearchSettings,
    inputs=_inputs,
    run=_run,
    work=_work,
    varies_with="pruner",
    is_timed=True,
    promises=("genotype",),
    files=(CURVE, EVENTS, LIVENESS, TRAJECTORY),
    columns={
        name: name
        for name in (
            "search_s",
            "search_compile_s",
            "search_epochs",
            "search_epochs_full",
            "search_exclusive",
            "search_other_load",
            "search_is_alive",
            "live_edge_share",
            "cell_contribution",
        )
    },
)

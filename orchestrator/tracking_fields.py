"""What a job's run holds in MLflow: parameters, metrics with the times of their epochs, tags."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from mlflow.entities import Metric, Param, RunTag

from addresses.redaction import redact
from results.metrics import METRICS
from workers.job import Job
from workers.stages.table import STAGES
from workers.task import StageTask

_PARAM_LENGTH = 6000
_TAG_LENGTH = 5000
_JOB_METRICS = (
    *(metric.job_column(subset) for metric in METRICS.values() for subset in metric.tracked),
    "search_s",
    "search_epochs",
    "search_is_alive",
    "live_edge_share",
    "cell_contribution",
    "start_val_dice",
    "pretrain_s",
    "retrain_s",
    "n_parameters",
    "n_macs",
)
_NOT_LOGGED = ("epoch", "ended_at")


def params_of(job: Job) -> list[Param]:
    """Return a job's settings, flat."""
    values: dict[str, Any] = {
        "dataset": job.dataset,
        "backbone": job.backbone,
        "pruner": job.pruner,
        "seed": job.seed,
        **{name.removeprefix("config_"): value for name, value in job.flat_settings().items()},
    }
    return [Param(name, redact(value)[:_PARAM_LENGTH]) for name, value in values.items()]


def curve_metrics(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Metric]:
    """Yield what each epoch of each stage has reported, at the time at which it ended."""
    for kind, entries in found.items():
        for entry in entries:
            for name, value in entry.items():
                if name not in _NOT_LOGGED and pd.notna(value):
                    timestamp = int(entry["ended_at"] * 1000)
                    yield Metric(f"{kind}_{name}", float(value), timestamp, int(entry["epoch"]))


def final_metrics(tables: Mapping[str, pd.DataFrame]) -> Iterator[Metric]:
    """Yield the numbers of a job's row, at the time at which its last stage ended."""
    row = tables["jobs"].iloc[0]
    _, timestamp = span_ms(tables["stages"])
    for name in _JOB_METRICS:
        if pd.notna(row[name]):
            yield Metric(name, float(row[name]), timestamp, 0)


def span_ms(stages: pd.DataFrame) -> tuple[int, int]:
    """Return first start and last end of a job's stages, in milliseconds since 1970."""
    ends = stages["end"].dropna()
    if len(ends) == 0:
        now = int(time.time() * 1000)
        return now, now
    return int(stages["start"].min() * 1000), int(ends.max() * 1000)


def tags_of(tasks: Sequence[StageTask], row: "pd.Series[Any]") -> list[RunTag]:
    """Return the tags of a job: the keys of its stages, where and with what it was computed."""
    values = {
        f"iac.{task.kind}_key": task.key for task in tasks if not STAGES[task.kind].is_on_demand
    }
    for name in ("commit", "device", "host", "versions", "failed_stage", "error"):
        values[f"iac.{name}"] = "" if pd.isna(row[name]) else redact(row[name])[:_TAG_LENGTH]
    values["mlflow.source.git.commit"] = values["iac.commit"]
    return [RunTag(name, value) for name, value in values.items() if value]

"""From stage folders to the rows of every table for one job."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy import ndarray

from files.encoding import DamagedError, from_json
from iac_core.errors import ConfigError
from iac_core.evaluation.metrics import aggregate
from results.metrics import METRICS, SHORT_SUBSETS
from results.schema import OUTCOME_PREFIX, TABLES, columns, conform
from workers.run_stage import Failure
from workers.stage_store import StageRecord, StageStore
from workers.stages.files import CURVE, EVENTS, LIVENESS, PATIENTS, TRAJECTORY
from workers.stages.table import STAGES
from workers.task import StageTask

Rows = list[dict[str, Any]]

_LISTS = (CURVE, EVENTS, PATIENTS)
"""Files whose outermost value is a list."""
_MACHINE_OF = ("search", "predict", "evaluate", "pretrain")
"""Roles of the stage whose machine a job's row names: the first that is there."""
_JOB_COLUMNS = {column.name for column in columns("jobs")}
_START = -1
"""Epoch that stands for the state that a training started from."""
_OF_AN_EPOCH = ("epoch", "train_loss", "validation_dice", "learning_rate", "seconds")
"""What the table of curves has of an entry of a stage's curve."""


def job_tables(
    state_tasks: Sequence[StageTask],
    store: StageStore,
    *,
    sweep: str,
    failure: Failure | None = None,
) -> dict[str, pd.DataFrame]:
    """Return table name → the job's rows, conforming to `results.schema`.

    Args:
        state_tasks: The job's stages, in order; those that are whole are read.
        store: Where stages lie.
        sweep: Name of the sweep.
        failure: Why the job failed, if it did.
    """
    job = state_tasks[0].job
    records = {
        task.role: record
        for task in state_tasks
        if (record := store.record(task.kind, task.key)) is not None
    }
    ids = {
        "job_id": job.job_id,
        "dataset": job.dataset,
        "backbone": job.backbone,
        "pruner": job.pruner,
        "seed": job.seed,
    }
    patients = _patient_rows(records, store)
    search_ids = {**ids, "search_key": _key(records, "search")}
    tables: dict[str, Rows] = {
        "jobs": [_job_row(state_tasks, records, patients, sweep, failure) | ids],
        "patients": [{**ids, **row} for row in patients],
        "trajectories": [{**search_ids, **row} for row in _trajectory_rows(records, store)],
        "events": [{**search_ids, **row} for row in _event_rows(records, store)],
        "liveness": [{**search_ids, **row} for row in _liveness_rows(records, store)],
        "curves": [{**ids, **row} for row in _curve_rows(records, store)],
        "stages": _stage_rows(state_tasks, records, store, job.job_id),
    }
    assert set(tables) == set(TABLES)
    return {name: conform(name, pd.DataFrame(rows)) for name, rows in tables.items()}


def curves(state_tasks: Sequence[StageTask], store: StageStore) -> dict[str, Rows]:
    """Return role of a stage → its curve, for the stages of a job that have one."""
    found = {}
    for task in state_tasks:
        if CURVE not in STAGES[task.kind].files:
            continue
        raw = store.read(task.kind, task.key, CURVE)
        record = store.record(task.kind, task.key)
        if raw is not None and record is not None:
            found[task.role] = _values(store, record, CURVE, raw)
    return found


def validation_dice(store: StageStore, task: StageTask) -> float:
    """Return the mean Dice of the validation patients that an evaluation scored.

    Args:
        store: Where stages lie.
        task: A finished ``evaluate`` stage that scored validation patients alone.

    Raises:
        ConfigError: If it scored test patients too: nothing is chosen by these.
    """
    subsets = task.job.settings.evaluate.subsets
    if subsets != ("validation",):
        raise ConfigError(
            "what is chosen by must score validation patients alone",
            value=", ".join(subsets),
        )
    record = store.record(task.kind, task.key)
    patients = _patient_rows({} if record is None else {"evaluate": record}, store)
    return float(mean_scores(patients)["val_dice"])


def _job_row(
    tasks: Sequence[StageTask],
    records: Mapping[str, StageRecord],
    patients: Rows,
    sweep: str,
    failure: Failure | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {"sweep": sweep, "status": "failed" if failure else "done"}
    row |= {"arm_type": tasks[0].owner.arm_type, **tasks[0].job.flat_settings()}
    row |= {
        _key_column(task.kind): task.key for task in tasks if not STAGES[task.kind].is_on_demand
    }
    row |= {"split_hash": "", **mean_scores(patients)}
    for record in records.values():
        row |= {
            column: record.outcome.get(name)
            for name, column in STAGES[record.kind].columns.items()
        }
    row |= {
        "genotype": next((task.genotype for task in reversed(tasks) if task.genotype), ""),
        "retrain_kept_start": _kept_start(records.get("retrain")),
        "evaluate_s": _seconds(records, ("predict", "evaluate")),
        "n_micro_batches": max(map(_n_micro_batches, records.values()), default=None),
    }
    if "search" in records:
        row["search_n_micro_batches"] = _n_micro_batches(records["search"])
    timed = next((records[role] for role in _MACHINE_OF if role in records), None)
    if timed is not None:
        row |= {
            "device": timed.provenance["device"],
            "n_threads": timed.provenance["n_threads"],
            "host": timed.provenance["host"],
            "torch_version": timed.provenance["versions"].get("torch", ""),
            "versions": json.dumps(timed.provenance["versions"], sort_keys=True),
            "commit": timed.provenance["commit"],
        }
    if failure is not None:
        row |= {
            "failed_stage": failure.stage,
            "failed_epoch": failure.epoch,
            "error": failure.error,
            "traceback": failure.trace,
        }
    return row


def _key_column(kind: str) -> str:
    """Column of ``jobs`` with the key of a kind of stage."""
    name = f"{kind}_key"
    return name if name in _JOB_COLUMNS else f"{OUTCOME_PREFIX}{name}"


def _kept_start(record: StageRecord | None) -> bool | None:
    """Whether a retraining returned the state it started from; older ones did not score that."""
    outcome = {} if record is None else record.outcome
    if outcome.get("start_validation_dice") is None:
        return None
    return bool(outcome.get("best_epoch") == _START)


def mean_scores(patients: Rows) -> dict[str, Any]:
    """Return the columns of ``jobs`` with the means of every metric, by the rule of `aggregate`.

    Args:
        patients: The job's rows of the table ``patients``; a subset without any has no columns.
    """
    row: dict[str, Any] = {}
    for subset, short in SHORT_SUBSETS.items():
        rows = [entry for entry in patients if entry["subset"] == subset]
        if not rows:
            continue
        row[f"n_{short}_patients"] = len({entry["patient_id"] for entry in rows})
        for metric in METRICS.values():
            row[metric.job_column(subset)] = aggregate(rows, metric.column).mean
    return row


def _patient_rows(records: Mapping[str, StageRecord], store: StageStore) -> Rows:
    record = records.get("evaluate")
    if record is None:
        return []
    rows: Rows = _values(store, record, PATIENTS, _file(store, record, PATIENTS))
    with _of_stage(store, record):
        for row in rows:
            for score, metric in METRICS.items():
                row[metric.column] = row.pop(score)
    return rows


def _trajectory_rows(records: Mapping[str, StageRecord], store: StageStore) -> Rows:
    """Rows of a search over alpha; a search that trains none leaves no trajectory."""
    record = records.get("search")
    content = None if record is None else store.read("search", record.key, TRAJECTORY)
    if record is None or content is None:
        return []
    with _of_stage(store, record), np.load(io.BytesIO(content)) as arrays:
        return _rows_of_arrays({name: arrays[name] for name in arrays.files})


def _rows_of_arrays(saved: Mapping[str, ndarray]) -> Rows:
    edges, operations = saved["edges"].tolist(), saved["operations"].tolist()
    return [
        {
            "epoch": epoch,
            "level": level,
            "edge": edge,
            "source": edges[edge][0],
            "target": edges[edge][1],
            "operation": operations[operation],
            "alpha": saved["alpha"][epoch, level, edge, operation],
            "beta": saved["beta"][epoch, level, edge],
            "importance": saved["importance"][epoch, level, edge, operation],
            "jsd": saved["jsd"][epoch, level, edge],
            "beta_jsd": saved["beta_jsd"][epoch, level, edge],
            "active": bool(saved["active"][epoch, level, edge, operation]),
            "n_weight_steps": int(saved["n_weight_steps"][epoch]),
            "n_architecture_steps": int(saved["n_architecture_steps"][epoch]),
            "n_scored_slices": int(saved["n_scored_slices"][epoch]),
        }
        for epoch, level, edge, operation in np.ndindex(saved["alpha"].shape)
    ]


def _event_rows(records: Mapping[str, StageRecord], store: StageStore) -> Rows:
    record = records.get("search")
    if record is None:
        return []
    rows: Rows = _values(store, record, EVENTS, _file(store, record, EVENTS))
    with _of_stage(store, record):
        return [{**row, "operations": ",".join(row["operations"])} for row in rows]


def _liveness_rows(records: Mapping[str, StageRecord], store: StageStore) -> Rows:
    """Rows of every look; searches without alpha and older ones have none."""
    record = records.get("search")
    content = None if record is None else store.read("search", record.key, LIVENESS)
    if record is None or content is None:
        return []
    with _of_stage(store, record):
        return list(_values(store, record, LIVENESS, content)["looks"])


def _curve_rows(records: Mapping[str, StageRecord], store: StageStore) -> Rows:
    """Rows of every epoch of a retraining, after one of its starting state where that was scored.

    What an entry of an older version lacks is null, and so is a Dice that was not computed.
    """
    record = records.get("retrain")
    content = None if record is None else store.read("retrain", record.key, CURVE)
    if record is None or content is None:
        return []
    entries = _values(store, record, CURVE, content)
    with _of_stage(store, record):
        rows = [{name: entry.get(name) for name in _OF_AN_EPOCH} for entry in entries]
    start = record.outcome.get("start_validation_dice")
    if start is not None:
        rows.insert(0, {"epoch": _START, "validation_dice": start})
    return [{"stage": "retrain", **row} for row in rows]


def _stage_rows(
    tasks: Sequence[StageTask],
    records: Mapping[str, StageRecord],
    store: StageStore,
    job_id: str,
) -> Rows:
    rows: Rows = []
    for task in tasks:
        record = records.get(task.role)
        attempts = record.attempts if record else store.attempts(task.kind, task.key)
        for number, attempt in enumerate(attempts, start=1):
            end = attempt["end"]
            rows.append(
                {
                    "key": task.key,
                    "kind": task.kind,
                    "job_id": job_id,
                    "attempt": number,
                    "seconds": end - attempt["start"] if end else None,
                    "n_micro_batches": attempt.get("n_micro_batches", 1),
                    **(_peaks(record) if record and attempt["outcome"] == "done" else {}),
                    **{
                        name: attempt[name]
                        for name in (
                            "attempt_id",
                            "start",
                            "end",
                            "device",
                            "host",
                            "pid",
                            "outcome",
                        )
                    },
                }
            )
    return rows


def _peaks(record: StageRecord) -> dict[str, float | None]:
    names = ("peak_host_mib", "peak_gpu_mib")
    return {name: record.provenance.get(name) for name in names}


def _key(records: Mapping[str, StageRecord], kind: str) -> str:
    record = records.get(kind)
    return record.key if record else ""


def _n_micro_batches(record: StageRecord) -> int:
    """Parts that a stage's batches were cut into; stages of older versions were not."""
    return int(record.provenance.get("n_micro_batches", 1))


def _seconds(records: Mapping[str, StageRecord], roles: Sequence[str]) -> float | None:
    """From start to end of some stages, each in its last attempt; None if none is there."""
    lasts = [records[role].attempts[-1] for role in roles if role in records]
    return sum(float(last["end"] - last["start"]) for last in lasts) if lasts else None


def _file(store: StageStore, record: StageRecord, name: str) -> bytes:
    content = store.read(record.kind, record.key, name)
    if content is None:
        raise store.damaged(record.kind, record.key, f"{name} is missing")
    return content


def _values(store: StageStore, record: StageRecord, name: str, content: bytes) -> Any:  # noqa: ANN401
    """The plain values of a file; one of an older version has no checksum and may be damaged."""
    try:
        return from_json(content, list if name in _LISTS else dict)
    except DamagedError as error:
        raise store.damaged(record.kind, record.key, f"{name} {error}") from error


@contextmanager
def _of_stage(store: StageStore, record: StageRecord) -> Iterator[None]:
    """Say of what a file does not hold that its stage is damaged."""
    try:
        yield
    except (KeyError, TypeError, ValueError, IndexError, BadZipFile, EOFError) as error:
        raise store.damaged(record.kind, record.key, f"a file does not fit: {error!r}") from error

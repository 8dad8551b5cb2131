"""Columns of every table: name, type, unit and meaning."""

from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from results.errors import SchemaError
from results.metrics import METRICS, SHORT_SUBSETS

SCHEMA_VERSION = 6
CONFIG_PREFIX = "config_"
OUTCOME_PREFIX = "stage_"
"""Of columns of ``jobs`` that a kind of stage adds by itself: what it returned, of any type."""

ColumnType = Literal["string", "int64", "float64", "bool"]
_DTYPES: dict[ColumnType, str] = {
    "string": "string",
    "int64": "Int64",
    "float64": "Float64",
    "bool": "boolean",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        name: Its name.
        type: Its type; every column may be null.
        unit: Unit of its numbers, empty if they have none.
        meaning: What it holds.
        is_wall_clock: Whether it may differ between two runs of the same sweep.
    """

    name: str
    type: ColumnType
    unit: str
    meaning: str
    is_wall_clock: bool = False


_JOB_IDS = (
    Column("job_id", "string", "", "hash of all settings of the job"),
    Column("dataset", "string", "", "dataset's name in the sweep"),
    Column("backbone", "string", "", "backbone's name in the sweep"),
    Column("pruner", "string", "", "value of the pruner axis"),
    Column("seed", "int64", "", "seed of initialisation, order and halves"),
)
_SEARCH_IDS = (*_JOB_IDS, Column("search_key", "string", "", "stage key of the search"))


def _subset_scores(subset: str) -> tuple[Column, ...]:
    mean, short = f"mean over {subset} patients, then classes", SHORT_SUBSETS[subset]
    return (
        *(
            Column(metric.job_column(subset), "float64", metric.unit, f"{metric.label}, {mean}")
            for metric in METRICS.values()
        ),
        Column(f"n_{short}_patients", "int64", "patients", f"{subset} patients scored"),
    )


TABLES: dict[str, tuple[Column, ...]] = {
    "jobs": (
        *_JOB_IDS,
        Column("sweep", "string", "", "name of the sweep"),
        Column("status", "string", "", "done or failed"),
        Column("arm_type", "string", "", "what the value of the pruner axis stands for"),
        *_subset_scores("validation"),
        *_subset_scores("test"),
        Column("n_parameters", "int64", "", "parameters of the whole network"),
        Column("n_cell_parameters", "int64", "", "parameters of cells and gates"),
        Column("n_macs", "int64", "", "multiply-accumulates of one slice"),
        Column(
            "search_s",
            "float64",
            "s",
            "counted epochs of the search, encoding and scoring included",
            True,
        ),
        Column("search_compile_s", "float64", "s", "compilation before them, not counted", True),
        Column("pretrain_s", "float64", "s", "epochs of the pre-training", True),
        Column("retrain_s", "float64", "s", "epochs of the retraining", True),
        Column("evaluate_s", "float64", "s", "evaluation, start to end", True),
        Column("search_epochs", "int64", "epochs", "epochs the search ran"),
        Column("search_epochs_full", "int64", "epochs", "epochs of the full search"),
        Column("search_is_alive", "bool", "", "the search followed evidence: see `liveness`"),
        Column(
            "live_edge_share",
            "float64",
            "",
            "edges that evidence had reached before they were first pruned, of all edges",
        ),
        Column(
            "cell_contribution",
            "float64",
            "",
            "rms of what the cell adds over that of what the decoder receives, smallest level",
        ),
        Column(
            "best_retrain_epoch",
            "int64",
            "epochs",
            "kept epoch of the retraining, from 0; -1 is the state that it started from",
        ),
        Column("start_val_dice", "float64", "", "validation Dice of the retraining's start"),
        Column("retrain_kept_start", "bool", "", "the retraining returned its starting state"),
        Column("search_exclusive", "bool", "", "the search had its device to itself"),
        Column(
            "search_other_load",
            "float64",
            "",
            "share of the machine's CPUs that other processes used during the search",
            True,
        ),
        Column("genotype", "string", "JSON", "the retrained cells, empty without any"),
        Column("split_hash", "string", "", "hash of the patient split"),
        Column("prepare_key", "string", "", "stage key"),
        Column("pretrain_key", "string", "", "stage key"),
        Column("search_key", "string", "", "stage key"),
        Column("retrain_key", "string", "", "stage key"),
        Column("evaluate_key", "string", "", "stage key"),
        Column("device", "string", "", "device model of the search, else of the evaluation"),
        Column("host", "string", "", "host of that stage", True),
        Column("n_threads", "int64", "", "torch threads of that stage"),
        Column(
            "n_micro_batches",
            "int64",
            "",
            "most parts that a stage of the job cut its batches into, for want of GPU memory",
        ),
        Column(
            "search_n_micro_batches", "int64", "", "parts that the search cut its batches into"
        ),
        Column("torch_version", "string", "", "version of torch"),
        Column("versions", "string", "JSON", "versions of all packages that count"),
        Column("commit", "string", "", "commit of this project", True),
        Column("failed_stage", "string", "", "kind of the stage that failed"),
        Column("failed_epoch", "int64", "epochs", "epochs that had ended when it failed"),
        Column("error", "string", "", "exception and message"),
        Column("traceback", "string", "", "traceback", True),
    ),
    "patients": (
        *_JOB_IDS,
        Column("subset", "string", "", "validation or test"),
        Column("patient_id", "string", "", "patient"),
        Column("volume_id", "string", "", "volume"),
        Column("class_name", "string", "", "class"),
        *(
            Column(metric.column, "float64", metric.unit, metric.meaning)
            for metric in METRICS.values()
        ),
        Column("reference_ml", "float64", "ml", "volume of the expert mask"),
        Column("prediction_ml", "float64", "ml", "volume of the predicted mask"),
        Column("state", "string", "", "ok, both_empty, pred_empty or gt_empty"),
    ),
    "trajectories": (
        *_SEARCH_IDS,
        Column("epoch", "int64", "epochs", "epoch of the search, from 0"),
        Column("level", "int64", "", "skip level, 0 if levels share the cell"),
        Column("edge", "int64", "", "edge of the cell"),
        Column("source", "int64", "", "state the edge leaves; 0 and 1 are the inputs"),
        Column("target", "int64", "", "node the edge enters"),
        Column("operation", "string", "", "candidate operation"),
        Column("alpha", "float64", "", "logit of the operation, null once it is gone"),
        Column("beta", "float64", "", "logit of the edge"),
        Column("importance", "float64", "", "softmax of alpha over the active operations"),
        Column("jsd", "float64", "bits", "divergence of the edge, null where not computed"),
        Column("beta_jsd", "float64", "bits", "divergence of the edge weights into the target"),
        Column("active", "bool", "", "operation in the graph during the epoch"),
        Column("n_weight_steps", "int64", "", "weight steps of the epoch"),
        Column("n_architecture_steps", "int64", "", "steps of alpha and beta of the epoch"),
        Column("n_scored_slices", "int64", "", "masks × slices scored after the epoch"),
    ),
    "events": (
        *_SEARCH_IDS,
        Column("epoch", "int64", "epochs", "epoch after which it happened, from 0"),
        Column("level", "int64", "", "skip level, -1 if it concerns the whole search"),
        Column("edge", "int64", "", "edge, -1 if it concerns no single one"),
        Column("operations", "string", "", "operations removed, separated by commas"),
        Column("rule", "string", "", "rule that fired"),
        Column("value", "float64", "", "number that the rule compared"),
        Column("threshold", "float64", "", "what it was compared with"),
        Column("seconds", "float64", "s", "counted seconds of the search until then", True),
    ),
    "liveness": (
        *_SEARCH_IDS,
        Column("look", "int64", "", "number of the look, from 0"),
        Column("alpha_step", "int64", "steps", "steps of alpha since the warm-up until the look"),
        Column("epoch", "int64", "epochs", "epoch of the look, from 0"),
        Column("level", "int64", "", "skip level, 0 if levels share the cell"),
        Column("edge", "int64", "", "edge of the cell"),
        Column(
            "evidence",
            "float64",
            "",
            "|sum of g| / root of the sum of g², g alpha's loss gradient centred over the edge's "
            "active operations; largest of the operations other than none",
        ),
        Column("bound", "float64", "", "what the evidence of a living edge exceeds"),
        Column("is_alive", "bool", "", "the evidence exceeded the bound at this look or before"),
        Column("entropy_bits", "float64", "bits", "entropy of the operation importance"),
    ),
    "curves": (
        *_JOB_IDS,
        Column("stage", "string", "", "kind of the training's stage: retrain"),
        Column(
            "epoch",
            "int64",
            "epochs",
            "epoch of the training, from 0; -1 is the state that it started from",
        ),
        Column("train_loss", "float64", "", "mean loss of the epoch's steps, null at the start"),
        Column(
            "validation_dice",
            "float64",
            "",
            "Dice of the validation patients after the epoch, null where not computed",
        ),
        Column("learning_rate", "float64", "", "of the epoch's last step, first parameter group"),
        Column("seconds", "float64", "s", "the epoch with its validation", True),
    ),
    "stages": (
        Column("key", "string", "", "stage key"),
        Column("kind", "string", "", "kind of stage"),
        Column("job_id", "string", "", "a job that needed it"),
        Column("attempt", "int64", "", "execution of this stage, from 1", True),
        Column("attempt_id", "string", "", "identity of the execution", True),
        Column("start", "float64", "s since 1970", "start", True),
        Column("end", "float64", "s since 1970", "end, null if it was lost", True),
        Column("seconds", "float64", "s", "end - start", True),
        Column("device", "string", "", "kind of device"),
        Column("host", "string", "", "host", True),
        Column("pid", "int64", "", "process", True),
        Column("outcome", "string", "", "done, failed, stopped, preempted or lost", True),
        Column("n_micro_batches", "int64", "", "parts that batches were cut into", True),
        Column("peak_host_mib", "float64", "MiB", "peak of the process's memory", True),
        Column("peak_gpu_mib", "float64", "MiB", "peak of the GPU's memory", True),
    ),
}
"""Table → columns. ``jobs`` has any number of ``config_*`` columns beside these."""


def columns(table: str) -> tuple[Column, ...]:
    """Return the columns of a table.

    Raises:
        SchemaError: If there is no such table.
    """
    try:
        return TABLES[table]
    except KeyError:
        known = ", ".join(TABLES)
        raise SchemaError(f"a table must be one of {known}, got {table!r}") from None


def empty(table: str) -> pd.DataFrame:
    """Return a table without rows."""
    return conform(table, pd.DataFrame())


def wall_clock_columns(table: str) -> list[str]:
    """Return the columns that may differ between two runs of the same sweep."""
    return [column.name for column in columns(table) if column.is_wall_clock]


def conform(table: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame with exactly the table's columns, in order and typed; missing ones are null.

    Args:
        table: Name of the table.
        frame: Rows; ``jobs`` may have ``config_*`` and ``stage_*`` columns beside the others.

    Raises:
        SchemaError: If a column is unknown, or a value does not fit its type.
    """
    known = columns(table)
    names = [column.name for column in known]
    extra = [str(name) for name in frame.columns if name not in names]
    config = sorted(
        name
        for name in extra
        if table == "jobs" and name.startswith((CONFIG_PREFIX, OUTCOME_PREFIX))
    )
    unknown = [name for name in extra if name not in config]
    if unknown:
        raise SchemaError(
            f"a column of {table} must be in results/schema.py, got {', '.join(unknown)}; add it"
        )
    typed = {column.name: _typed(table, column, frame) for column in known}
    typed |= {name: _of_one_type(frame[name]) for name in config}
    return pd.DataFrame(typed, index=frame.index).reset_index(drop=True)


def _of_one_type(values: pd.Series) -> pd.Series:
    """A setting's column as Parquet takes it: one type throughout.

    An unset value (empty text) beside numbers is null; values of several kinds are text.
    """
    if values.dtype != object:
        return values
    given = values[values.notna() & (values.astype(str) != "")]
    kinds = {type(value) for value in given}
    if len(given) == len(values) and len(kinds) <= 1:
        return values
    if len(kinds) == 1 and kinds <= {int, float, bool}:
        unset: pd.Series = values.where(values.index.isin(given.index), None).convert_dtypes()
        return unset
    return values if kinds <= {str} else values.astype(str)


def _typed(table: str, column: Column, frame: pd.DataFrame) -> pd.Series:
    dtype: Any = _DTYPES[column.type]
    if column.name not in frame.columns:
        missing: pd.Series = pd.Series(pd.NA, index=frame.index, dtype=dtype)
        return missing
    values: Any = frame[column.name]
    try:
        if column.type in ("float64", "int64"):
            values = pd.to_numeric(values)
        typed: pd.Series = values.astype(dtype)
    except (TypeError, ValueError) as error:
        raise SchemaError(
            f"{table}.{column.name} must be {column.type}, got {values.iloc[0]!r}: {error}"
        ) from error
    return typed

"""The trajectory of one search as arrays, from the rows of its table."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy import ndarray

from results.errors import SchemaError

_AXES = ["epoch", "level", "edge", "operation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryArrays:
    """What a search recorded after every epoch.

    Attributes:
        alpha: ``(epochs, levels, edges, ops)``, NaN where the operation was gone.
        beta: ``(epochs, levels, edges)``.
        importance: Like alpha, 0 where the operation was gone.
        active: Like alpha, bool.
        operations: Names along the last axis, in the order of the rows.
        edges: ``(source, target)`` of every edge.
        n_weight_steps: ``(epochs,)``.
        n_architecture_steps: ``(epochs,)``.
    """

    alpha: ndarray
    beta: ndarray
    importance: ndarray
    active: ndarray
    operations: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    n_weight_steps: ndarray
    n_architecture_steps: ndarray


def arrays_of(trajectories: pd.DataFrame, job_id: str) -> TrajectoryArrays:
    """Return the arrays of one job's search.

    Args:
        trajectories: Rows of the table of that name.
        job_id: The job.

    Raises:
        SchemaError: If it has no rows there, or they do not fill their axes.
    """
    rows = trajectories[trajectories["job_id"] == job_id]
    if rows.empty:
        raise SchemaError(f"trajectories must have rows of the job, got none for {job_id!r}")
    shape = tuple(rows[name].nunique() for name in _AXES)
    if len(rows) != int(np.prod(shape)) or rows.duplicated(_AXES).any():
        raise SchemaError(
            f"the rows of a search must fill epochs × levels × edges × operations {shape}, got "
            f"{len(rows)} for {job_id!r}"
        )
    operations = tuple(str(name) for name in rows["operation"].iloc[: shape[3]])
    rank = {name: place for place, name in enumerate(operations)}
    rows = rows.assign(operation=rows["operation"].map(rank)).sort_values(_AXES)

    def values(name: str, missing: float = np.nan) -> ndarray:
        found: ndarray = rows[name].to_numpy(dtype=np.float64, na_value=missing)
        return found.reshape(shape)

    per_edge = rows.iloc[: shape[2] * shape[3] : shape[3]]
    return TrajectoryArrays(
        alpha=values("alpha"),
        beta=values("beta")[..., 0],
        importance=values("importance", 0.0),
        active=values("active").astype(bool),
        operations=operations,
        edges=tuple(
            (int(source), int(target))
            for source, target in zip(per_edge["source"], per_edge["target"], strict=True)
        ),
        n_weight_steps=values("n_weight_steps")[:, 0, 0, 0].astype(np.int64),
        n_architecture_steps=values("n_architecture_steps")[:, 0, 0, 0].astype(np.int64),
    )

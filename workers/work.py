"""How much a stage has to do, in units that its seconds are proportional to: for forecasts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Sections = Mapping[str, Any]
"""Settings of a stage as plain values: those that its key is made of, or those of its job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSize:
    """What is known of a data set before its stages run; None is unknown."""

    n_volumes: int | None = None
    n_slices: int | None = None
    n_training_slices: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How much a stage has to do: the product of the three.

    Attributes:
        rounds: Epochs of the settings, however many of them a pruner leaves; 1 for other stages.
        per_round: Slices of an epoch, volumes of a preparation; None until the data are prepared.
        pixels: Pixels of a slice; 1 where they do not count.
    """

    rounds: float = 1.0
    per_round: float | None = None
    pixels: float = 1.0


def pixels_of(size: int) -> float:
    """Return the pixels of a slice of so many rows and columns; 1 if 0, which is unknown."""
    return float(max(size, 1) ** 2)


def work_of_training(
    settings: Mapping[str, Any], size: int, data: DataSize, *, passes: float = 1.0
) -> Work:
    """Return the work of a training in epochs.

    Args:
        settings: ``epochs``, ``steps_per_epoch`` and ``batch_size``.
        size: Rows and columns of a slice, in pixels; 0 if unknown.
        data: Size of the data set.
        passes: Batches that a step passes through the network.
    """
    per_round = None if data.n_training_slices is None else float(data.n_training_slices)
    if settings["steps_per_epoch"] is not None:
        per_round = passes * settings["steps_per_epoch"] * settings["batch_size"]
    return Work(rounds=float(settings["epochs"]), per_round=per_round, pixels=pixels_of(size))

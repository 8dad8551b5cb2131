"""From a sweep to its jobs, in a stable order, each once."""

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iac_core.errors import ConfigError
from orchestrator.file_paths import written_out
from orchestrator.spec import AXES, SHORT_AXES, SweepSpec
from workers.arms import ARMS
from workers.job import JOB_SECTIONS, Job, JobSettings, flat_value, plain

Cell = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """The jobs of a sweep.

    Attributes:
        jobs: In the grid's order (dataset, backbone, pruner, seed, further axes), then included
            cells.
        dropped: Grid cells that an exclude left out, or whose backbone hosts no cells while the
            arm needs one.
    """

    jobs: tuple[Job, ...]
    dropped: tuple[Cell, ...]


def expand(spec: SweepSpec) -> Expansion:
    """Return every job of a sweep.

    Raises:
        ConfigError: If an exclude matches no cell, or nothing is left.
    """
    excludes = _Excludes(spec.exclude)
    kept: list[Cell] = []
    dropped: list[Cell] = []
    for cell in _grid(spec):
        is_left_out = excludes.match(cell) or not _is_possible(spec, cell)
        (dropped if is_left_out else kept).append(cell)
    for pattern in spec.exclude:
        if not excludes.has_matched(pattern):
            raise ConfigError(
                f"{spec.path}: an exclude must match a cell of the grid",
                value=dict(pattern),
                way_out="correct or remove it",
            )
    jobs: dict[str, Job] = {}
    for cell in spec.include:
        if not _is_possible(spec, cell):
            raise ConfigError(
                f"{spec.path}: a backbone without skips must be included with the arms "
                f"{' or '.join(name for name, arm in ARMS.items() if not arm.has_cells)}",
                value=f"{cell['backbone']} with {cell['pruner']}",
                way_out="correct or remove it",
            )
    for cell in [*kept, *spec.include]:
        job = _job(spec, cell)
        jobs.setdefault(job.job_id, job)
    if not jobs:
        raise ConfigError(
            f"{spec.path}: a sweep must have a job",
            value="none",
            way_out="loosen its excludes",
        )
    return Expansion(jobs=tuple(jobs.values()), dropped=tuple(dropped))


def is_on_cell(job: Job, cell: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a job lies on a part of the grid.

    Args:
        job: The job.
        cell: Axis → values of which it has one; every job if empty.
    """
    flat = job.flat_settings()
    named = {"dataset": job.dataset, "backbone": job.backbone, "seed": job.seed}
    for axis, values in cell.items():
        setting = SHORT_AXES.get(axis, axis)
        value = named.get(axis, flat.get(f"config_{setting.replace('.', '_', 1)}"))
        if value not in [flat_value(plain(wanted)) for wanted in values]:
            return False
    return True


def _is_possible(spec: SweepSpec, cell: Cell) -> bool:
    """Whether the backbone hosts cells, or the arm needs none."""
    backbone: Any = spec.backbones[cell["backbone"]]
    return backbone.n_skips > 0 or not ARMS[spec.controls.get(cell["pruner"], "")].has_cells


def _grid(spec: SweepSpec) -> Iterator[Cell]:
    values = {axis.name: axis.values for axis in spec.axes}
    of_axis = {name: group for group in spec.together for name in group}
    # A group stands where its first axis does; alone, an axis is a group of one.
    groups = list(dict.fromkeys(of_axis.get(name, (name,)) for name in values))
    steps = [list(zip(*(values[name] for name in group), strict=True)) for group in groups]
    for chosen in itertools.product(*steps):
        cell = {
            name: value
            for group, step in zip(groups, chosen, strict=True)
            for name, value in zip(group, step, strict=True)
        }
        yield {name: cell[name] for name in values}


class _Excludes:
    """The patterns of a sweep, found by their values: thousands of them cost no more than one.

    Args:
        patterns: Axis → value, partial.
    """

    def __init__(self, patterns: Sequence[Cell]) -> None:
        self._by_axes: dict[tuple[str, ...], dict[Hashable, bool]] = {}
        for pattern in patterns:
            axes = tuple(sorted(pattern))
            self._by_axes.setdefault(axes, {})[_values(pattern, axes)] = False

    def match(self, cell: Cell) -> bool:
        """Return whether a pattern fits a cell; every one that does is noted."""
        is_found = False
        for axes, seen in self._by_axes.items():
            values = _values(cell, axes)
            if values in seen:
                seen[values] = is_found = True
        return is_found

    def has_matched(self, pattern: Cell) -> bool:
        """Return whether a pattern has fitted a cell."""
        axes = tuple(sorted(pattern))
        return self._by_axes[axes][_values(pattern, axes)]


def _values(cell: Cell, axes: Sequence[str]) -> Hashable:
    return tuple(_hashable(cell.get(name)) for name in axes)


def _hashable(value: Any) -> Hashable:  # noqa: ANN401 - plain data of any shape
    """A value that is equal where the value is."""
    if isinstance(value, list | tuple):
        return ("list", *map(_hashable, value))
    if isinstance(value, dict):
        return ("dict", frozenset((name, _hashable(entry)) for name, entry in value.items()))
    found: Hashable = value
    return found


def _job(spec: SweepSpec, cell: Cell) -> Job:
    stages = dict(spec.stages)
    for name, value in cell.items():
        if name not in AXES:
            stages = spec.with_setting(stages, name, value)
    split = stages["split"]
    content = ""
    if split.file:
        content = spec.split_contents[split.file]
        path = str((spec.path.parent / written_out(split.file)).resolve())
        stages["split"] = replace(split, file=path)
    return Job(
        dataset=cell["dataset"],
        backbone=cell["backbone"],
        pruner=cell["pruner"],
        seed=cell["seed"],
        control=spec.controls.get(cell["pruner"], ""),
        settings=JobSettings(
            **{name: stages[name] for name in JOB_SECTIONS},
            others={
                name: settings
                for name, settings in stages.items()
                if name not in JOB_SECTIONS and settings != type(settings)()
            },
            backbone=spec.backbones[cell["backbone"]],
            pruner=spec.pruners[cell["pruner"]],
            split_content=content,
        ),
    )

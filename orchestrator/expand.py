"""From a sweep to its jobs, in a stable order, each once."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iac_core.errors import ConfigError
from orchestrator.spec import AXES, SHORT_AXES, SweepSpec
from workers.job import Job, JobSettings, flat_value, plain

Cell = Mapping[str, Any]
_WITHOUT_CELLS = ("no_cell", "no_cell_longer")


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
    grid = list(_grid(spec))
    kept: list[Cell] = []
    dropped: list[Cell] = []
    for cell in grid:
        excluded = any(_matches(cell, pattern) for pattern in spec.exclude)
        excluded = excluded or not _is_possible(spec, cell)
        (dropped if excluded else kept).append(cell)
    for pattern in spec.exclude:
        if not any(_matches(cell, pattern) for cell in grid):
            raise ConfigError(
                f"{spec.path}: an exclude must match a cell of the grid, got {dict(pattern)}; "
                "correct or remove it"
            )
    jobs: dict[str, Job] = {}
    for cell in spec.include:
        if not _is_possible(spec, cell):
            raise ConfigError(
                f"{spec.path}: a backbone without skips must be included with the arms "
                f"{' or '.join(_WITHOUT_CELLS)}, got {cell['backbone']} with {cell['pruner']}; "
                "correct or remove it"
            )
    for cell in [*kept, *spec.include]:
        job = _job(spec, cell)
        jobs.setdefault(job.job_id, job)
    if not jobs:
        raise ConfigError(f"{spec.path}: a sweep must have a job, got none; loosen its excludes")
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
    return backbone.n_skips > 0 or spec.controls.get(cell["pruner"]) in _WITHOUT_CELLS


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


def _matches(cell: Cell, pattern: Cell) -> bool:
    return all(cell.get(name) == value for name, value in pattern.items())


def _job(spec: SweepSpec, cell: Cell) -> Job:
    stages = dict(spec.stages)
    for name, value in cell.items():
        if name not in AXES:
            stages = spec.with_setting(stages, name, value)
    split = stages["split"]
    content = ""
    if split.file:
        content = spec.split_contents[split.file]
        path = str((spec.path.parent / split.file).resolve())
        stages["split"] = replace(split, file=path)
    return Job(
        dataset=cell["dataset"],
        backbone=cell["backbone"],
        pruner=cell["pruner"],
        seed=cell["seed"],
        control=spec.controls.get(cell["pruner"], ""),
        settings=JobSettings(
            **stages,
            backbone=spec.backbones[cell["backbone"]],
            pruner=spec.pruners[cell["pruner"]],
            split_content=content,
        ),
    )

"""Finished jobs of a sweep as folders for use elsewhere."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from iac_core.errors import ConfigError
from iac_core.exported import ProgramFormat
from iac_core.registry import look_up
from orchestrator.plan import JobState
from orchestrator.session import Session
from workers.export import export_job
from workers.stage_record import DamagedStageError


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenExport:
    """A job that was exported: its name, its folder, and how far its programs are off."""

    label: str
    folder: Path
    differences: dict[ProgramFormat, float]


def export_sweep(
    session: Session, into: Path, job_ids: Sequence[str], programs: Sequence[str]
) -> Iterator[WrittenExport | DamagedStageError]:
    """Export the finished jobs with cells, one after the other; a damaged stage stops no other.

    Args:
        session: An open sweep.
        into: Folder of the exports.
        job_ids: Starts of the ids of jobs; all finished ones with cells if empty.
        programs: Formats in which whole networks are written too.

    Raises:
        ConfigError: If no job fits, an id fits none or several, or a folder exists.
        UnknownNameError: If a format is unknown.
    """
    known: dict[str, Any] = {name: name for name in get_args(ProgramFormat)}
    kinds: list[ProgramFormat] = [look_up(name, known, what="program") for name in programs]
    states = [state for state in session.plan().states if _has_cells(state)]
    if job_ids:
        states = [_the_one(states, start) for start in job_ids]
    if not states:
        raise ConfigError(
            "an export must have a finished job with cells",
            value="none",
            way_out=f"`{session.command('run')}` runs them",
        )
    for state in states:
        folder = into / _name(state)
        try:
            differences = export_job(state.tasks[-1], session.store, folder, tuple(kinds))
        except DamagedStageError as error:
            yield error
            continue
        yield WrittenExport(label=state.job.label, folder=folder, differences=differences)


def _has_cells(state: JobState) -> bool:
    return state.is_done and bool(state.tasks) and bool(state.tasks[-1].genotype)


def _the_one(states: Sequence[JobState], start: str) -> JobState:
    found = [state for state in states if state.job.job_id.startswith(start)]
    if len(found) != 1:
        known = ", ".join(state.job.job_id for state in (found or states)[:5]) or "none"
        raise ConfigError(
            "--job must be the start of one finished job's id",
            value=f"{start!r}, which fits {len(found)}",
            way_out=f"ids: {known}",
        )
    return found[0]


def _name(state: JobState) -> str:
    job = state.job
    return f"{job.dataset}-{job.backbone}-{job.pruner}-seed{job.seed}-{job.job_id[:8]}"

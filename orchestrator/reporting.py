"""From an open sweep to MLflow, tables and report."""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from files.checksums import checksums_of_files, damage_of
from files.reading import read_json, warn_damaged
from files.writing import write_json
from iac_core.data.splits import Split
from orchestrator.expand import is_on_cell
from orchestrator.session import Session
from orchestrator.tracking import FinishedJob, FinishedTrial, Tracker
from orchestrator.tracking_writer import BackgroundTracker
from results.collect import collect
from results.declared import Declaration
from results.report import ReportPaths, write_report
from results.store import read_tables
from results.transfer import StudySplit, TunedArm
from workers.arms import arm_of, is_full_search
from workers.job import Job, content_hash
from workers.stage_store import StageStore
from workers.stages.files import SPLIT

logger = logging.getLogger(__name__)

_DECLARED = "declared.json"
_REPORTED = "reported.json"
"""File of a sweep's folder: which jobs its report is of, and the checksums of its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """Jobs sent, jobs that MLflow had already, and why sending ended early."""

    n_written: int
    n_present: int
    trouble: str


def open_tracking(session: Session, *, patience_s: float = 0.0) -> BackgroundTracker:
    """Return the writer of a sweep's finished jobs, a context manager.

    Args:
        session: The sweep.
        patience_s: How long it waits at its end for another driver that writes.
    """
    session.runs_dir.mkdir(parents=True, exist_ok=True)
    tracker = Tracker(
        session.tracking_uri,
        session.experiment,
        session.spec.name,
        session.store,
    )
    return BackgroundTracker(
        tracker,
        session.writer_place,
        lease_s=session.spec.resources.lease_s,
        patience_s=patience_s,
    )


def sync_sweep(session: Session) -> SyncResult:
    """Send every finished job that MLflow does not have, or whose artifacts are gone.

    Raises:
        TrackingError: If MLflow cannot be used, and waiting would not help.
    """
    done = [state for state in session.plan().states if state.is_done]
    finished: list[FinishedJob | FinishedTrial] = [
        FinishedJob(job=state.job, tasks=state.tasks) for state in done
    ]
    if session.spec.study is not None:
        from orchestrator.confirmed import finished_trials

        with _without_the_study():
            finished += finished_trials(session)
    with open_tracking(session) as tracking:
        tracking.wait_until_open()
        for one in finished:
            tracking.put(one)
        tracking.close("FINISHED")
    n_present = len(finished) - tracking.n_written - len(tracking.unsent)
    return SyncResult(n_written=tracking.n_written, n_present=n_present, trouble=tracking.trouble)


@contextmanager
def _without_the_study() -> Iterator[None]:
    """Say that the study's storage is away, and go on: the grid is there all the same."""
    from orchestrator.study import StorageAwayError, storage_answers

    try:
        with storage_answers():
            yield
    except StorageAwayError as error:
        logger.warning("the study is left out: %s", error)


def report_sweep(
    session: Session, tracking_uri: str | None, *, tables_in: Path | None = None
) -> ReportPaths:
    """Draw the sweep's tables from MLflow and write its report; jobs without a run are missing.

    Args:
        session: The sweep.
        tracking_uri: The server; None is the sweep's own.
        tables_in: Folder of recorded tables that stand in for those of the server.

    Raises:
        SchemaError: If that folder has no tables, or a job twice.
    """
    jobs = session.expansion.jobs
    if tables_in is not None:
        tables = read_tables(tables_in)
    else:
        tables = collect(
            tracking_uri or session.tracking_uri,
            session.experiment,
            session.run_dir / "tables",
            job_ids={job.job_id for job in jobs},
        )
    expected = pd.DataFrame(
        [
            {
                "job_id": job.job_id,
                "dataset": job.dataset,
                "backbone": job.backbone,
                "pruner": job.pruner,
                "seed": job.seed,
                **job.flat_settings(),
            }
            for job in jobs
        ]
    )
    is_older = (
        tables_in is not None and not expected["job_id"].isin(tables["jobs"]["job_id"]).any()
    )
    if is_older:
        logger.warning(
            "%s: no job of these tables is one of the sweep file's as it is today; the report is "
            "of the tables alone",
            tables_in,
        )
    study = None
    if session.spec.study is not None:
        from orchestrator.study_report import study_pages

        with _without_the_study():
            study = study_pages(session)
    return write_report(
        tables,
        session.run_dir / "report",
        sweep=session.spec.name,
        expected_jobs=None if is_older else expected,
        tuned=tuned_arms(session, tables["jobs"]),
        study=study,
        declared=Declaration(
            claims=session.spec.compare,
            n_jobs_done=_jobs_done_at_declaration(session, tables_in),
        ),
    )


def note_declaration(session: Session, n_jobs_done: int) -> None:
    """Keep how many jobs were done when the sweep's claims were first seen as they are now.

    Args:
        session: The sweep.
        n_jobs_done: Jobs that are done now.
    """
    if not session.spec.compare or _jobs_done_at_declaration(session) is not None:
        return
    noted = {"claims": _claims(session), "n_jobs_done": n_jobs_done}
    write_json(_declared(session), noted, is_indented=True)


def _jobs_done_at_declaration(session: Session, folder: Path | None = None) -> int | None:
    path = _declared(session) if folder is None else folder / _DECLARED
    noted = read_json(path, dict) or {}
    n_jobs_done = noted.get("n_jobs_done")
    is_same = isinstance(n_jobs_done, int) and noted.get("claims") == _claims(session)
    return n_jobs_done if is_same else None


def _claims(session: Session) -> list[dict[str, str]]:
    return [asdict(claim) for claim in session.spec.compare]


def _declared(session: Session) -> Path:
    return session.run_dir / _DECLARED


def tuned_arms(session: Session, recorded: pd.DataFrame) -> list[TunedArm]:
    """Return the arms whose settings a study chose, with the jobs on the cells that it saw.

    They are compared with the full search and with every arm that is neither tuned nor a control.

    Args:
        session: The sweep.
        recorded: Its rows of the table ``jobs``: they name the stages whose splits are read.
    """
    spec, jobs = session.spec, session.expansion.jobs
    searches = [job for job in jobs if arm_of(job).searches]
    full = dict.fromkeys(job.pruner for job in searches if is_full_search(job))
    plain = [
        pruner
        for pruner in dict.fromkeys(job.pruner for job in searches)
        if pruner not in spec.tuned and pruner not in full
    ]
    return [
        TunedArm(
            pruner=pruner,
            tuned_on=" · ".join(
                _named(axis, values)
                for axis, values in tuned.judged_on.items()
                if not axis.startswith("split.")
            ),
            seen=frozenset(job.job_id for job in jobs if is_on_cell(job, tuned.judged_on)),
            splits=_study_splits(session, recorded, tuned.judged_on),
            references=(*full, *plain),
        )
        for pruner, tuned in spec.tuned.items()
    ]


def _study_splits(
    session: Session, recorded: pd.DataFrame, judged_on: Mapping[str, Sequence[Any]]
) -> tuple[StudySplit, ...]:
    """The splits of a study's cells, read from jobs that share them, of any backbone and seed."""
    keys = dict(zip(recorded["job_id"], recorded["pretrain_key"], strict=True))
    sharing: dict[tuple[str, str], list[Job]] = {}
    for job in session.expansion.jobs:
        sharing.setdefault((job.dataset, content_hash(job.split_identity())), []).append(job)
    of_splits = {axis: values for axis, values in judged_on.items() if axis.startswith("split.")}
    axes = {"dataset": judged_on.get("dataset", tuple(session.spec.datasets)), **of_splits}
    found = []
    for values in itertools.product(*axes.values()):
        cell = {axis: (value,) for axis, value in zip(axes, values, strict=True)}
        on_cell = [jobs for jobs in sharing.values() if is_on_cell(jobs[0], cell)]
        if not on_cell:  # the sweep has left the study's split
            found.append(StudySplit(dataset=str(values[0]), patients=None))
        for jobs in on_cell:
            patients = _trained_or_validated(session.store, {keys.get(job.job_id) for job in jobs})
            found.append(StudySplit(dataset=jobs[0].dataset, patients=patients))
    return tuple(found)


def _trained_or_validated(store: StageStore, pretrain_keys: set[Any]) -> frozenset[str] | None:
    """Patients of the split that these pre-trainings share; None if none of them is there."""
    for key in sorted(key for key in pretrain_keys if isinstance(key, str) and key):
        raw = store.read("pretrain", key, SPLIT)
        if raw is not None:
            split = Split.from_json(raw, f"{store.root}/pretrain/{key}/{SPLIT}")
            return frozenset([*split.train, *split.validation])
    return None


def _named(axis: str, values: Sequence[object]) -> str:
    words = ", ".join(map(str, values))
    return words if axis in ("dataset", "backbone") else f"{axis} {words}"


def report_if_stale(session: Session, *, is_changed: bool) -> ReportPaths:
    """Write the report unless nothing has changed since it was written for the same jobs.

    Args:
        session: The sweep.
        is_changed: Whether a job was sent to MLflow since the last report.
    """
    folder = session.run_dir / "report"
    paths = ReportPaths(
        markdown=folder / "report.md", latex=folder / "report.tex", html=folder / "report.html"
    )
    wanted = {
        "jobs": sorted(job.job_id for job in session.expansion.jobs),
        "claims": _claims(session),
    }
    if is_changed or not _is_reported(session.run_dir, wanted):
        paths = report_sweep(session, None)
        written = [*folder.rglob("*"), *(session.run_dir / "tables").glob("*.parquet")]
        sums = checksums_of_files(session.run_dir, written)
        write_json(session.run_dir / _REPORTED, {**wanted, "files": sums})
    return paths


def _is_reported(run_dir: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the report and its tables are those of these jobs, and as they were written."""
    noted = read_json(run_dir / _REPORTED, object)
    if not isinstance(noted, dict) or any(noted.get(key) != wanted[key] for key in wanted):
        return False  # or an older version's
    wrong = damage_of(run_dir, noted.get("files", {}))
    if wrong:
        warn_damaged(str(run_dir), wrong, way_out="written again in part")
    return not wrong


def report_from_tracking(tracking_uri: str, experiment: str, into: Path) -> ReportPaths:
    """Write a report from a tracking server alone."""
    tables = collect(tracking_uri, experiment, into / "tables")
    return write_report(tables, into / "report", sweep=experiment)

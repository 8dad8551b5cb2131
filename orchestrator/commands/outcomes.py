"""What is made of finished jobs: report, replay, study, sync, export."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.text import Text

from files.writing import write_text
from iac_core.errors import ConfigError
from iac_core.registry import did_you_mean
from orchestrator.commands.opening import opened
from orchestrator.consoles import err, out
from orchestrator.disk import writing_into
from orchestrator.exit_codes import EXIT_BAD_INPUT, EXIT_FAILED
from orchestrator.printed import Typed
from orchestrator.running import tracking_line
from orchestrator.session import Session
from orchestrator.target import DEFAULT_RUNS
from results.errors import ResultsError, TrackingError, TrackingSettingError
from workers.arms import arm_of, is_full_search
from workers.stage_record import DamagedStageError


def report(
    typed: Typed, *, tracking_uri: str | None, experiment: str | None, tables_in: Path | None
) -> None:
    """Do what `orchestrator report` says of itself."""
    from orchestrator.reporting import report_from_tracking, report_sweep
    from results.escaping import file_name

    code = 0
    if typed.sweep is None:
        if tracking_uri is None or experiment is None:
            raise typer.BadParameter("give a sweep file, or --tracking-uri and --experiment")
        into = (typed.runs or DEFAULT_RUNS) / file_name(experiment)
        with _or_exit("no report was written"):
            paths = report_from_tracking(tracking_uri, experiment, into)
    else:
        is_own = tracking_uri is None and tables_in is None
        session = opened(typed, needs="names", needs_runs=is_own)
        if is_own:
            code = _sync_before(session)
        with _or_exit("no report was written", of=ResultsError if is_own else TrackingError):
            paths = report_sweep(session, tracking_uri, tables_in=tables_in)
    for path in (paths.markdown, paths.latex, paths.html):
        out.print(Text(str(path)), soft_wrap=True)
    if code:
        raise typer.Exit(code)


@contextmanager
def _or_exit(what: str, of: type[ResultsError] = TrackingError) -> Iterator[None]:
    """End in one line and exit code 1 where errors `of` a kind are met; wrong settings pass."""
    try:
        yield
    except TrackingSettingError:
        raise
    except of as error:
        err.print(Text(f"{what}: {error}"), style="red", soft_wrap=True)
        raise typer.Exit(EXIT_FAILED) from None


def _sync_before(session: Session) -> int:
    """Send what MLflow lacks before a report; 1 if that failed."""
    from orchestrator.reporting import sync_sweep

    missing = [name for name, source in session.sources.items() if not source.fingerprint]
    if missing:
        how = " ".join(f"--data {name}=PATH" for name in missing)
        err.print(
            Text(
                f"The folder of {', '.join(missing)} is not at hand: the report is of what MLflow "
                f"has, finished jobs that it lacks are not sent. Give it with {how}."
            ),
            style="yellow",
            soft_wrap=True,
        )
        return 0
    with _or_exit("no report was written"):
        trouble = sync_sweep(session).trouble
    if trouble:
        line = tracking_line(session, trouble)
        err.print(Text(f"{line}: the report may lack jobs"), style="red", soft_wrap=True)
    return EXIT_FAILED if trouble else 0


def replay(typed: Typed, *, pruner: list[str] | None, vary: list[str] | None) -> None:
    """Do what `orchestrator replay` says of itself."""
    from orchestrator.recorded import grid_cells
    from orchestrator.replays import replay_rooms, replay_table, replayable, summary_table, varied

    session = opened(typed, needs="keys", needs_runs=True)
    cells = grid_cells(session)
    if all(cell.full is None for cell in cells):
        raise ConfigError(
            "a replay must have a finished full search",
            value=f"none of {len(cells)}",
            way_out=f"`{session.command('run')}` runs them",
        )
    rooms = replay_rooms(cells)
    wanted = varied(_operation_pruners(session, pruner), vary or [])
    can, cannot = replayable(wanted, rooms)
    for name, reason in cannot.items():
        err.print(Text(f"not replayed: {name}: {reason}"), style="yellow", soft_wrap=True)
    if not can:
        if not cannot:
            raise ConfigError(
                "a replay must have an operation pruner beside the full search",
                value="none in the grid",
                way_out="name one with --pruner",
            )
        raise typer.Exit(EXIT_BAD_INPUT)
    table = replay_table(rooms, can)
    out.print(summary_table(table))
    out.print(
        "Known: the first removal, and all epochs until then. Estimated: what comes after it, as "
        "pruning changes the training that was recorded; and seconds, from the cost of an epoch "
        f"(off by {max(room.cost.relative_error for room in rooms):.0%} in the median).",
        soft_wrap=True,
    )
    missing = len(cells) - len(rooms)
    if missing:
        out.print(f"{missing} of {len(cells)} full searches are not finished and left out.")
    session.run_dir.mkdir(parents=True, exist_ok=True)
    path = session.run_dir / "replay.csv"
    write_text(path, table.to_csv(index=False))
    out.print(Text(f"every cell   {path}"), soft_wrap=True)


def study_show(typed: Typed) -> None:
    """Do what `orchestrator study show` says of itself."""
    from orchestrator.study import storage_answers
    from orchestrator.study_export import load_confirmed
    from orchestrator.tuning import study_lines

    session = opened(typed, needs="keys", needs_runs=True)
    with storage_answers():
        for line in study_lines(session, load_confirmed(session)):
            out.print(Text(line), soft_wrap=True)


def study_export(typed: Typed, *, into: Path | None, trial: int | None) -> None:
    """Do what `orchestrator study export` says of itself."""
    from orchestrator.study import storage_answers
    from orchestrator.study_export import export_study

    session = opened(typed, needs="keys", needs_runs=True)
    with storage_answers():
        written = export_study(session, into, trial)
    out.print(Text(f"{written.path}: trial {written.number}, {written.why}"), soft_wrap=True)


def _operation_pruners(session: Session, names: list[str] | None) -> dict[str, object]:
    """Settings of the sweep's operation pruners: those named, or all but the full search."""
    spec = session.spec
    known = {name: value for name, value in spec.pruners.items() if name not in spec.controls}
    for name in names or []:
        if name not in known:
            hint = did_you_mean(name, list(known))
            raise ConfigError(
                "--pruner must be an operation pruner",
                value=f"{name!r}{hint}",
            )
    used = {
        job.pruner
        for job in session.expansion.jobs
        if arm_of(job).searches and not is_full_search(job)
    }
    return {name: known[name] for name in names or sorted(used)}


def sync(typed: Typed) -> None:
    """Do what `orchestrator sync` says of itself."""
    from orchestrator.reporting import sync_sweep

    session = opened(typed, needs="keys", needs_runs=True)
    with _or_exit("nothing was sent"):
        result = sync_sweep(session)
    out.print(f"{result.n_written} jobs sent, {result.n_present} were there already")
    if result.trouble:
        line = tracking_line(session, result.trouble)
        err.print(Text(line), style="red", soft_wrap=True)
        raise typer.Exit(EXIT_FAILED)


def export(typed: Typed, *, into: Path, job: list[str] | None, program: list[str] | None) -> None:
    """Do what `orchestrator export` says of itself."""
    from orchestrator.export import export_sweep

    session = opened(typed, needs="keys", needs_runs=True)
    code = 0
    with writing_into(into):
        for written in export_sweep(session, into, job or [], program or []):
            if isinstance(written, DamagedStageError):
                err.print(Text(str(written)), style="red", soft_wrap=True)
                code = EXIT_FAILED
                continue
            checks = "".join(
                f", {kind} within {difference:.1e} of the network"
                for kind, difference in written.differences.items()
            )
            out.print(Text(f"{written.label}: {written.folder}{checks}"), soft_wrap=True)
    if code:
        raise typer.Exit(code)

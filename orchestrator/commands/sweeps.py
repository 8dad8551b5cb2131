"""What is done with a sweep while it runs: run, status."""

from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from orchestrator.cluster import this_machine
from orchestrator.commands.opening import opened
from orchestrator.consoles import err, out
from orchestrator.disk import LEAST_FREE_GIB, free_gib, problem_of, writing_into
from orchestrator.exit_codes import EXIT_FAILED, EXIT_STOPPED
from orchestrator.live_view import PROGRESS_HEADINGS, plan_table, progress_cells, stage_label
from orchestrator.plan import failure_groups
from orchestrator.price import begun_seconds, forecast_of, kept_nodes, time_left
from orchestrator.printed import Typed
from orchestrator.remembered import note_data, note_runs
from orchestrator.running import RunOptions, run_session
from orchestrator.session import Session
from workers.places import StoreAwayError


def run(
    typed: Typed,
    *,
    address: str | None,
    inline: bool,
    job: list[str] | None,
    unchecked: bool,
    wait_for_machines: bool,
    again: bool,
) -> None:
    """Do what `orchestrator run` says of itself."""
    session = opened(typed, needs="volumes")
    if free_gib(session.runs_dir) < LEAST_FREE_GIB:
        text = f"less than {LEAST_FREE_GIB:.0f} GiB are free in {session.runs_dir}: it may not do"
        err.print(Text(text), style="yellow", soft_wrap=True)
    how = RunOptions(
        address=address,
        inline=inline,
        reports=not job,
        unchecked=unchecked,
        again=again,
        waits_for_machines=wait_for_machines,
    )
    try:
        with writing_into(session.runs_dir):
            code = _run_and_note(session.only(job or []), how)
    except KeyboardInterrupt:
        code = EXIT_STOPPED
    except StoreAwayError:
        raise
    except OSError as error:
        folders = [session.runs_dir, Path(session.store.root)]
        err.print(Text(str(problem_of(error, folders))), style="red", soft_wrap=True)
        code = EXIT_FAILED
    if code == EXIT_STOPPED:
        out.print("Stopped; the same command goes on from here.")
        out.print(Text(f"    {session.command('run')}"), soft_wrap=True)
    if code:
        raise typer.Exit(code)


def _run_and_note(session: Session, how: RunOptions) -> int:
    """Run a sweep; its exit code."""
    session.stop_file.unlink(missing_ok=True)
    note_data(session.run_dir, session.data_notes())
    assert session.typed.sweep is not None
    if not note_runs(session.typed.sweep, session.runs_dir):
        err.print("Nothing can be noted beside the sweep file: later commands need --runs.")
    try:
        is_whole = run_session(session, how)
        if session.stop_file.exists():
            return EXIT_STOPPED
        return 0 if is_whole else EXIT_FAILED
    finally:
        session.stop_file.unlink(missing_ok=True)


def status(typed: Typed) -> None:
    """Do what `orchestrator status` says of itself."""
    session = opened(typed, needs="keys", needs_runs=True)
    found = session.plan()
    out.print(plan_table(found))
    table = Table(box=None, pad_edge=False)
    for name in ("under way or ended early", "", "outcome", *PROGRESS_HEADINGS):
        table.add_column(name)
    seen = set()
    for task in (task for state in found.states for task in state.ready):
        if task.id in seen:
            continue
        seen.add(task.id)
        attempts = session.store.attempts(task.kind, task.key)
        if attempts:
            outcome = str(attempts[-1]["outcome"]).replace("lost", "running or lost")
            reported = session.store.progress(task.kind, task.key) or {}
            table.add_row(task.kind, stage_label(task), outcome, *progress_cells(reported))
    if table.row_count:
        out.print(table)
    after = session.spec.resources.quarantine_after
    for group in failure_groups(found, session.store, quarantine_after=after):
        kind = f"quarantined, {group.kind}" if group.is_quarantined else group.kind
        out.print(
            Text(f"{kind}  {group.n} × {group.stage}: {group.error}"),
            style="red",
            soft_wrap=True,
        )
        # A lost worker or a kill for its hanging is not for this shell to reproduce.
        options = [] if group.kind in ("lost", "timeout") else ["--inline"]
        options += ["--again"] if group.is_quarantined else []
        options += ["--job", group.job_id]
        command = session.command("run", options=options)
        out.print(Text(f"    again: {command}"), soft_wrap=True)
    n_done = sum(state.is_done for state in found.states)
    left = ""
    if n_done < len(found.states):
        nodes = kept_nodes(session) or this_machine(session.spec.resources.cpus)
        forecast = forecast_of(session, found, nodes)
        tasks = [task for state in found.states for task in state.ready]
        left = time_left(forecast.seconds_left(begun_s=begun_seconds(session.store, tasks)))
    out.print(f"{n_done} of {len(found.states)} jobs done{left}")

"""What is done with a sweep before and while it runs: plan, run, status."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from orchestrator.cli.application import app
from orchestrator.cli.options import (
    EXIT_FAILED,
    EXIT_STOPPED,
    RUNS,
    DataOption,
    RunsOption,
    SweepPath,
    overrides_of,
)
from orchestrator.cluster import Node, this_machine
from orchestrator.consoles import out
from orchestrator.expand import is_on_cell
from orchestrator.forecast import Forecast
from orchestrator.live_view import (
    PROGRESS_HEADINGS,
    plan_table,
    progress_cells,
    stage_label,
)
from orchestrator.plan import (
    KeptFeatureSize,
    KnownRecords,
    Plan,
    failure_groups,
    kept_feature_sizes,
)
from orchestrator.price import (
    begun_seconds,
    device_here,
    forecast_lines,
    forecast_of,
    kept_nodes,
    machines_of,
    time_left,
)
from orchestrator.running import RunOptions, run_session
from orchestrator.session import Session, open_sweep
from orchestrator.study_settings import StudySettings

_MOST_DROPPED = 10


@app.command()
def plan(
    sweep: SweepPath,
    data: DataOption = None,
    runs: RunsOption = RUNS,
    jobs: Annotated[bool, typer.Option("--jobs", help="List every job.")] = False,
    machines: Annotated[int, typer.Option(min=1, help="Machines of the cluster.")] = 1,
    gpus: Annotated[
        int | None, typer.Option(min=0, help="GPUs of each; this machine's if nothing is given.")
    ] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs of each.")] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0.0, help="Of a GPU, or of a CPU where none is used.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--probe", help="First measure what was never observed: a minute.")
    ] = False,
) -> None:
    """Show jobs and stages: what is shared, what is done, what the rest takes. Runs none of it."""
    session = open_sweep(sweep, overrides_of(data), runs, needs_data=False)
    found = session.plan()
    n_done = sum(state.is_done for state in found.states)
    out.print(f"{session.spec.name}: {len(found.states)} jobs, {n_done} done")
    out.print(plan_table(found))
    nodes = machines_of(machines, gpus, cpus or session.spec.resources.cpus)
    _print_forecast(session, found, nodes, price_per_hour, measure=measure)
    if session.spec.study is not None:
        out.print(_study_plan(session, session.spec.study), soft_wrap=True)
    dropped = session.expansion.dropped
    for cell in dropped if jobs else dropped[:_MOST_DROPPED]:
        out.print(Text(f"left out: {json.dumps(cell)}"), soft_wrap=True)
    if len(dropped) > _MOST_DROPPED and not jobs:
        out.print(f"… {len(dropped)} cells are left out in all; --jobs lists them.")
    for size, names in _by_size(kept_feature_sizes(found, KnownRecords(session.store))):
        total = ""
        if size.n_slices is not None:
            total = f", at most {size.mib_per_slice * size.n_slices:,.0f} MiB"
        out.print(
            f"A search on {names} · {size.backbone} keeps {size.mib_per_slice:.2f} MiB of "
            f"encoder features per slice{total} in a temporary file.",
            soft_wrap=True,
        )
    if found.is_provisional:
        missing = [name for name, source in found.sources.items() if not source.fingerprint]
        out.print(
            f"The folder of {', '.join(missing)} is not at hand: keys are provisional, nothing of "
            "it counts as done. Give it with --data NAME=PATH."
        )
    if jobs:
        for state in found.states:
            mark = "done" if state.is_done else f"{len(state.tasks)}/{state.n_stages} keys known"
            out.print(Text(f"{state.job.job_id}  {state.job.label}  {mark}"), soft_wrap=True)


def _study_plan(session: Session, study: StudySettings) -> str:
    """What the study takes beside the grid, in words."""
    full = [job for job in session.expansion.jobs if job.pruner == "none"]
    n_cells = sum(is_on_cell(job, study.judged_on) for job in full)
    return (
        f"Then the study: {study.replayed} trials replayed, {study.confirmed} searched for, "
        f"retrained and scored on {n_cells} of {len(full)} cells each: at most "
        f"{n_cells * study.confirmed} searches that are not counted above."
    )


def _print_forecast(
    session: Session,
    found: Plan,
    nodes: Sequence[Node],
    price_per_hour: float | None,
    *,
    measure: bool,
) -> None:
    """Say what the missing stages of a plan take."""
    forecast = forecast_of(session, found, nodes)
    if not forecast.questions:
        return
    if measure:
        _probe(session, forecast)
    for line in forecast_lines(session, forecast, price_per_hour):
        out.print(line, soft_wrap=True)


def _probe(session: Session, forecast: Forecast) -> None:
    """Measure what the forecast cannot answer, and say what."""
    from orchestrator.probe import probe

    wanted = [(forecast.jobs[place], one) for place, one in forecast.questions.items()]
    resources = session.spec.resources
    done = probe(
        wanted,
        forecast.model,
        session.store,
        device=device_here(),
        n_threads=resources.threads_of(resources.pretrain),
    )
    for line in done.measured:
        out.print(Text(f"measured: {line}"), soft_wrap=True)
    for line in done.left_out:
        out.print(Text(f"not measured: {line}"), soft_wrap=True)


@app.command()
def run(
    sweep: SweepPath,
    data: DataOption = None,
    runs: RunsOption = RUNS,
    address: Annotated[
        str | None, typer.Option(envvar="RAY_ADDRESS", help="A running Ray cluster.")
    ] = None,
    inline: Annotated[
        bool, typer.Option("--inline", help="Run stages in this process, without Ray.")
    ] = False,
    job: Annotated[
        list[str] | None, typer.Option(help="Only jobs whose id starts so (see `plan --jobs`).")
    ] = None,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Run even if the nodes of the cluster differ.")
    ] = False,
    wait_for_machines: Annotated[
        bool,
        typer.Option("--wait-for-machines", help="Larger machines than there are now will join."),
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also try stages that failed too often before.")
    ] = False,
) -> None:
    """Run what is missing of a sweep, then write tables and report. Run it again to resume."""
    session = open_sweep(sweep, overrides_of(data), runs, needs_data=True).only(job or [])
    session.run_dir.mkdir(parents=True, exist_ok=True)
    session.stop_file.unlink(missing_ok=True)
    try:
        how = RunOptions(
            address=address,
            inline=inline,
            reports=not job,
            unchecked=unchecked,
            again=again,
            waits_for_machines=wait_for_machines,
        )
        is_whole = run_session(session, how)
        was_stopped = session.stop_file.exists()
    finally:
        session.stop_file.unlink(missing_ok=True)
    if was_stopped:
        out.print("Stopped; the same command goes on from here.")
        raise typer.Exit(EXIT_STOPPED)
    if not is_whole:
        raise typer.Exit(EXIT_FAILED)


@app.command()
def status(sweep: SweepPath, data: DataOption = None, runs: RunsOption = RUNS) -> None:
    """Show where a sweep stands, from any shell that sees its folders."""
    session = open_sweep(sweep, overrides_of(data), runs, needs_data=False)
    found = session.plan()
    out.print(plan_table(found))
    table = Table(box=None, pad_edge=False)
    for name in ("under way or ended early", "", "outcome", *PROGRESS_HEADINGS):
        table.add_column(name)
    seen = set()
    for state in found.states:
        task = state.next_task
        if task is None or (task.kind, task.key) in seen:
            continue
        seen.add((task.kind, task.key))
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
        words = ["orchestrator run", str(sweep)]
        # A lost worker or a kill for its hanging is not for this shell to reproduce.
        words += [] if group.kind in ("lost", "timeout") else ["--inline"]
        words += ["--again"] if group.is_quarantined else []
        words += ["--job", group.job_id]
        words += [f"--data {entry}" for entry in data or []]
        words += [] if runs == RUNS else [f"--runs {runs}"]
        out.print(Text(f"    again: {' '.join(words)}"), soft_wrap=True)
    n_done = sum(state.is_done for state in found.states)
    left = ""
    if n_done < len(found.states):
        nodes = kept_nodes(session) or this_machine(session.spec.resources.cpus)
        forecast = forecast_of(session, found, nodes)
        tasks = [state.next_task for state in found.states if state.next_task is not None]
        left = time_left(forecast.seconds_left(begun_s=begun_seconds(session.store, tasks)))
    out.print(f"{n_done} of {len(found.states)} jobs done{left}")


def _by_size(sizes: Iterable[KeptFeatureSize]) -> Iterator[tuple[KeptFeatureSize, str]]:
    """Sizes that differ, each with the datasets that it holds for."""
    same: dict[tuple[str, float, int | None], list[KeptFeatureSize]] = {}
    for size in sizes:
        same.setdefault((size.backbone, size.mib_per_slice, size.n_slices), []).append(size)
    for group in same.values():
        yield group[0], ", ".join(size.dataset for size in group)

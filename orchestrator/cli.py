"""The command line: plan, run, submit, status, report, export, sync, doctor, data, phantom."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Table
from rich.text import Text

from files.writing import write_text
from iac_core.config import DatasetOptions
from iac_core.errors import ConfigError, DataError, IacError, Problem
from iac_core.registry import did_you_mean
from iac_core.types import SegmentationDataset
from orchestrator.cluster import Node, this_machine
from orchestrator.consoles import err, out
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
from orchestrator.session import Session, open_sweep, tables
from orchestrator.spec import DatasetSettings, SweepError, load_sweep
from orchestrator.study_settings import StudySettings
from results.errors import ResultsError
from workers.stage_store import StageStore

if TYPE_CHECKING:
    from orchestrator.doctor import Finding
    from orchestrator.submission import Cluster

EXIT_BAD_INPUT = 2
EXIT_FAILED_JOBS = 1
EXIT_STOPPED = 130
_MOST_DROPPED = 10

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sweeps of implantable adaptive cells: plan, run, resume, report.",
)
data_app = typer.Typer(no_args_is_help=True, help="Look at a data folder before a sweep uses it.")
app.add_typer(data_app, name="data")
cluster_app = typer.Typer(no_args_is_help=True, help="Look at sweeps submitted to a cluster.")
app.add_typer(cluster_app, name="cluster")
study_app = typer.Typer(no_args_is_help=True, help="Look at a sweep's study, and use it.")
app.add_typer(study_app, name="study")
SweepPath = Annotated[Path, typer.Argument(help="The sweep file.", metavar="SWEEP")]
DataOption = Annotated[
    list[str] | None, typer.Option("--data", help="Folder of a dataset.", metavar="NAME=PATH")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of runs, MLflow and stages.")]
_RUNS = Path("runs")
AddressOption = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, http://HEAD:8265."
    ),
]
LayoutAtPath = Annotated[
    str, typer.Argument(help="Layout and folder, such as kits23=PATH.", metavar="LAYOUT=PATH")
]
LeaveOut = Annotated[
    list[str] | None, typer.Option(help="A patient not to use; known_faults for all listed ones.")
]
PatientPattern = Annotated[
    str | None, typer.Option(help="Regular expression with one group: the patient in a name.")
]


def main() -> None:
    """Run the command line; bad input ends with exit code 2 and no traceback."""
    try:
        app()
    except (SweepError, DataError) as error:
        _print_problems(error.problems)
        sys.exit(EXIT_BAD_INPUT)
    except (IacError, ResultsError) as error:
        err.print(Text(str(error)), style="red", soft_wrap=True)
        sys.exit(EXIT_BAD_INPUT)


@app.command()
def plan(
    sweep: SweepPath,
    data: DataOption = None,
    runs: RunsOption = _RUNS,
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
    session = open_sweep(sweep, _overrides(data), runs, needs_data=False)
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
    runs: RunsOption = _RUNS,
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
    session = open_sweep(sweep, _overrides(data), runs, needs_data=True).only(job or [])
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
        raise typer.Exit(EXIT_FAILED_JOBS)


@app.command()
def status(sweep: SweepPath, data: DataOption = None, runs: RunsOption = _RUNS) -> None:
    """Show where a sweep stands, from any shell that sees its folders."""
    session = open_sweep(sweep, _overrides(data), runs, needs_data=False)
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
        words += [] if runs == _RUNS else [f"--runs {runs}"]
        out.print(Text(f"    again: {' '.join(words)}"), soft_wrap=True)
    n_done = sum(state.is_done for state in found.states)
    left = ""
    if n_done < len(found.states):
        nodes = kept_nodes(session) or this_machine(session.spec.resources.cpus)
        forecast = forecast_of(session, found, nodes)
        tasks = [state.next_task for state in found.states if state.next_task is not None]
        left = time_left(forecast.seconds_left(begun_s=begun_seconds(session.store, tasks)))
    out.print(f"{n_done} of {len(found.states)} jobs done{left}")


@app.command()
def report(
    sweep: Annotated[
        Path | None, typer.Argument(help="The sweep file.", metavar="[SWEEP]")
    ] = None,
    data: DataOption = None,
    runs: RunsOption = _RUNS,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow server; no stage folder is needed then.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="Experiment on that server, without a sweep file.")
    ] = None,
    tables_in: Annotated[
        Path | None,
        typer.Option("--tables", help="Folder of recorded tables, or of parts; no MLflow then."),
    ] = None,
) -> None:
    """Draw tables from MLflow and write the report: Markdown, LaTeX, HTML."""
    from orchestrator.reporting import report_from_tracking, report_sweep, sync_sweep

    if sweep is None:
        if tracking_uri is None or experiment is None:
            raise typer.BadParameter("give a sweep file, or --tracking-uri and --experiment")
        paths = report_from_tracking(tracking_uri, experiment, runs / experiment)
    else:
        session = open_sweep(sweep, _overrides(data), runs, needs_data=False)
        if tracking_uri is None and tables_in is None:
            trouble = sync_sweep(session).trouble
            if trouble:
                err.print(Text(f"MLflow is away, the report may lack jobs: {trouble}"))
        paths = report_sweep(session, tracking_uri, tables_in=tables_in)
    for path in (paths.markdown, paths.latex, paths.html):
        out.print(Text(str(path)), soft_wrap=True)


@app.command()
def replay(
    sweep: SweepPath,
    data: DataOption = None,
    runs: RunsOption = _RUNS,
    pruner: Annotated[
        list[str] | None, typer.Option(help="Of the sweep; all of its grid if none is given.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(help="Values of a setting, all combined.", metavar="FIELD=VALUE,VALUE,…"),
    ] = None,
) -> None:
    """Try pruners on the recorded full searches of a sweep: no training, seconds of work."""
    from orchestrator.recorded import grid_cells
    from orchestrator.replays import replay_rooms, replay_table, replayable, summary_table, varied

    session = open_sweep(sweep, _overrides(data), runs, needs_data=False)
    cells = grid_cells(session)
    rooms = replay_rooms(cells)
    wanted = varied(_operation_pruners(session, pruner), vary or [])
    can, cannot = replayable(wanted, rooms)
    for name, reason in cannot.items():
        err.print(Text(f"not replayed: {name}: {reason}"), style="yellow", soft_wrap=True)
    if not can:
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


@study_app.command("show")
def study_show(sweep: SweepPath, data: DataOption = None, runs: RunsOption = _RUNS) -> None:
    """Show the confirmed trials that no other one beats, and how far replays were off."""
    from orchestrator.study import storage_answers
    from orchestrator.study_export import load_confirmed
    from orchestrator.tuning import study_lines

    session = open_sweep(sweep, _overrides(data), runs, needs_data=False)
    with storage_answers():
        for line in study_lines(session, load_confirmed(session)):
            out.print(Text(line), soft_wrap=True)


@study_app.command("export")
def study_export(
    sweep: SweepPath,
    into: Annotated[
        Path | None, typer.Option(help="The new sweep file, beside the sweep's.")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="Number of a confirmed trial.")] = None,
    data: DataOption = None,
    runs: RunsOption = _RUNS,
) -> None:
    """Write a sweep file with the tuned settings as a pruner, for every cell of the grid."""
    from orchestrator.study import storage_answers
    from orchestrator.study_export import export_study

    session = open_sweep(sweep, _overrides(data), runs, needs_data=False)
    with storage_answers():
        written = export_study(session, into, trial)
    out.print(Text(f"{written.path}: trial {written.number}, {written.why}"), soft_wrap=True)


def _operation_pruners(session: Session, names: list[str] | None) -> dict[str, object]:
    """Settings of the sweep's operation pruners: those named, or all of the grid but ``none``."""
    spec = session.spec
    known = {name: value for name, value in spec.pruners.items() if name not in spec.controls}
    for name in names or []:
        if name not in known:
            hint = did_you_mean(name, list(known))
            raise ConfigError(f"--pruner must be an operation pruner, got {name!r}{hint}")
    used = {job.pruner for job in session.expansion.jobs if not job.control} - {"none"}
    return {name: known[name] for name in names or sorted(used)}


@app.command()
def sync(sweep: SweepPath, data: DataOption = None, runs: RunsOption = _RUNS) -> None:
    """Send finished jobs that MLflow does not have yet."""
    from orchestrator.reporting import sync_sweep

    session = open_sweep(sweep, _overrides(data), runs, needs_data=False)
    result = sync_sweep(session)
    out.print(f"{result.n_written} jobs sent, {result.n_present} were there already")
    if result.trouble:
        err.print(Text(f"MLflow is away: {result.trouble}"), style="red", soft_wrap=True)
        raise typer.Exit(EXIT_FAILED_JOBS)


@app.command()
def export(
    sweep: SweepPath,
    into: Annotated[Path, typer.Option(help="Folder to write; one folder per job in it.")],
    data: DataOption = None,
    runs: RunsOption = _RUNS,
    job: Annotated[
        list[str] | None, typer.Option(help="Start of a job's id (see `plan --jobs`); or all.")
    ] = None,
    program: Annotated[
        list[str] | None,
        typer.Option(help="Also write the whole network: onnx or torch_export."),
    ] = None,
) -> None:
    """Write found cells and networks of finished jobs for use outside this project."""
    from orchestrator.export import export_sweep

    session = open_sweep(sweep, _overrides(data), runs, needs_data=False)
    for written in export_sweep(session, into, job or [], program or []):
        checks = "".join(
            f", {kind} within {difference:.1e} of the network"
            for kind, difference in written.differences.items()
        )
        out.print(Text(f"{written.label}: {written.folder}{checks}"), soft_wrap=True)


@app.command()
def doctor(
    sweep: Annotated[
        Path | None, typer.Argument(help="The sweep file.", metavar="[SWEEP]")
    ] = None,
    data: DataOption = None,
    runs: RunsOption = _RUNS,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Also ask every node of a running Ray cluster.")
    ] = False,
    address: Annotated[
        str, typer.Option(envvar="RAY_ADDRESS", help="That cluster; the one of this machine.")
    ] = "auto",
    store: Annotated[
        bool, typer.Option("--store", help="Also compare every stored file with its checksum.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Set damaged stages aside: the next run makes them.")
    ] = False,
) -> None:
    """Look at versions, devices, disk, tracking and data folders: ok, or the way out."""
    from orchestrator.doctor import examine

    if cluster and sweep is None:
        raise typer.BadParameter("--cluster takes a sweep file: it names data, store and tracking")

    folders: dict[str, DatasetSettings] = {}
    uri = f"sqlite:///{(runs / 'mlflow.db').resolve()}"
    if sweep is not None:
        session = open_sweep(sweep, _overrides(data), runs, needs_data=False)
        uri = session.tracking_uri
        folders = {name: session.spec.datasets[name] for name in session.sources}
    is_fine = _show(examine(runs, uri, folders))
    if store or repair:
        from orchestrator.store_care import examine_store

        stages = StageStore(runs / "store") if sweep is None else session.store
        is_fine &= _show(examine_store(stages, repairs=repair))
    if cluster:
        from orchestrator.nodes import examine_nodes
        from orchestrator.ray_executor import RayExecutor

        with RayExecutor(address=address):
            out.print("\nEvery node against this machine:")
            is_fine &= _show(examine_nodes(session))
    if not is_fine:
        raise typer.Exit(EXIT_FAILED_JOBS)


def _show(findings: "Iterable[Finding]") -> bool:
    """Print findings as they come; whether all are fine."""
    is_fine = True
    for finding in findings:
        line = Text(f"{finding.what:<14}")
        line.append("ok  " if finding.is_ok else "NO  ", style="green" if finding.is_ok else "red")
        line.append(finding.text)
        out.print(line, soft_wrap=True)
        is_fine &= finding.is_ok
    return is_fine


@app.command()
def submit(
    sweep: SweepPath,
    address: AddressOption,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="Folder of a dataset, as the cluster sees it."),
    ] = None,
    runs: Annotated[
        str, typer.Option(help="Folder of runs, as the cluster's machines see it.")
    ] = "~/iac/runs",
    python: Annotated[str, typer.Option(help="The interpreter on the cluster.")] = "python",
    detach: Annotated[
        bool, typer.Option("--detach/--follow", help="Return at once, or follow to the end.")
    ] = False,
) -> None:
    """Run a sweep on a running Ray cluster; its exit code becomes this command's."""
    from orchestrator.submission import Cluster

    spec = load_sweep(sweep, tables=tables())
    cluster = Cluster(address)
    pairs = dict(entry.split("=", 1) for entry in data or [] if "=" in entry)
    if len(pairs) != len(data or []):
        raise typer.BadParameter(f"--data must be NAME=PATH, got {data}")
    identity = cluster.submit(spec, runs=runs, data=pairs, python=python)
    out.print(Text(f"submitted {identity}"), soft_wrap=True)
    if detach:
        for word in ("status", "logs --follow", "cancel"):
            out.print(
                Text(f"orchestrator cluster {word} {identity} --address {address}"),
                soft_wrap=True,
            )
        return
    _follow(cluster, identity)


@cluster_app.command("status")
def cluster_status(
    address: AddressOption,
    identity: Annotated[str | None, typer.Argument(help="A submission; or all.")] = None,
) -> None:
    """Show how submitted sweeps stand."""
    from orchestrator.submission import Cluster

    cluster = Cluster(address)
    found = cluster.submissions() if identity is None else [cluster.submission(identity)]
    table = Table(box=None, pad_edge=False)
    for name in ("submission", "sweep", "status", "exit code"):
        table.add_column(name)
    for one in found:
        code = "" if one.exit_code is None else str(one.exit_code)
        table.add_row(one.identity, one.sweep, one.status, code)
    out.print(table)


@cluster_app.command("logs")
def cluster_logs(
    identity: Annotated[str, typer.Argument(help="A submission.")],
    address: AddressOption,
    follow: Annotated[bool, typer.Option("--follow", help="Until it ends.")] = False,
) -> None:
    """Print what a submitted sweep has printed."""
    from orchestrator.submission import Cluster

    cluster = Cluster(address)
    if follow:
        _follow(cluster, identity)
    cluster.submission(identity)
    out.print(Text(cluster.log(identity)), soft_wrap=True, end="")


@cluster_app.command("cancel")
def cluster_cancel(
    identity: Annotated[str, typer.Argument(help="A submission.")], address: AddressOption
) -> None:
    """Stop a submitted sweep: its stages checkpoint, and the same submission goes on later."""
    from orchestrator.submission import Cluster

    Cluster(address).cancel(identity)
    out.print(f"asked {identity} to stop")


def _follow(cluster: "Cluster", identity: str) -> NoReturn:
    """Print what a submission prints; end with its exit code."""

    def show(text: str) -> None:
        out.print(Text(text), soft_wrap=True, end="")

    ended = cluster.follow(identity, show)
    if ended.exit_code and ended.message:
        err.print(Text(f"{ended.status}: {ended.message}"), soft_wrap=True)
    raise typer.Exit(ended.exit_code or 0)


@data_app.command("check")
def data_check(
    folder: LayoutAtPath,
    leave_out: LeaveOut = None,
    patient_pattern: PatientPattern = None,
) -> None:
    """Read every volume of a data folder and say what it holds and what is wrong with it."""
    from rich.progress import Progress

    from iac_core.data.check import check_dataset
    from orchestrator.data_page import summary_lines

    dataset = _dataset(folder, leave_out, patient_pattern)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("reading volumes", total=None)
        summary = check_dataset(
            dataset, lambda done, of: bar.update(task, completed=done, total=of)
        )
    if summary.problems:
        raise DataError(summary.problems)
    for line in summary_lines(summary):
        out.print(Text(line), soft_wrap=True)


@data_app.command("show")
def data_show(
    folder: LayoutAtPath,
    page: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("data.html"),
    volumes: Annotated[int, typer.Option(help="Volumes to show, spread evenly.")] = 12,
    leave_out: LeaveOut = None,
    patient_pattern: PatientPattern = None,
) -> None:
    """Write a page of slices with the contours of their labels, as trainings would cut them."""
    from orchestrator.data_page import write_data_page

    shown = write_data_page(_dataset(folder, leave_out, patient_pattern), page, n_volumes=volumes)
    out.print(Text(f"{shown} volumes in {page}"), soft_wrap=True)


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="The folder to write.")],
    patients: Annotated[int, typer.Option(help="Number of patients.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
) -> None:
    """Generate beating hearts in the ACDC layout; a folder that has them already is left alone."""
    from iac_core.data.phantom import PhantomSettings, write_phantom

    written = write_phantom(folder, PhantomSettings(n_patients=patients, seed=seed))
    verb = "wrote" if written else "already there:"
    out.print(Text(f"{verb} {patients} phantom patients in {folder}"), soft_wrap=True)


def _by_size(sizes: Iterable[KeptFeatureSize]) -> Iterator[tuple[KeptFeatureSize, str]]:
    """Sizes that differ, each with the datasets that it holds for."""
    same: dict[tuple[str, float, int | None], list[KeptFeatureSize]] = {}
    for size in sizes:
        same.setdefault((size.backbone, size.mib_per_slice, size.n_slices), []).append(size)
    for group in same.values():
        yield group[0], ", ".join(size.dataset for size in group)


def _dataset(
    folder: str, leave_out: list[str] | None, patient_pattern: str | None
) -> SegmentationDataset:
    from iac_core.data import open_dataset

    layout, equals, path = folder.partition("=")
    if not equals or not path:
        raise typer.BadParameter(f"a data folder must be LAYOUT=PATH, got {folder!r}")
    options = DatasetOptions(leave_out=tuple(leave_out or ()), patient_pattern=patient_pattern)
    return open_dataset(layout, Path(path).expanduser(), options)


def _overrides(data: list[str] | None) -> dict[str, str]:
    overrides = {}
    for entry in data or []:
        name, equals, folder = entry.partition("=")
        if not equals or not folder:
            raise typer.BadParameter(f"--data must be NAME=PATH, got {entry!r}")
        overrides[name] = str(Path(folder).expanduser().resolve())
    return overrides


def _print_problems(problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        err.print(Text(str(problem)), style="red", soft_wrap=True)
    plural = "problem" if len(problems) == 1 else "problems"
    err.print(f"{len(problems)} {plural}; nothing was started.")

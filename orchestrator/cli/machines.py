"""Machines that sweeps run on: doctor, submit, cluster."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Table
from rich.text import Text

from addresses.sqlite import sqlite_url
from orchestrator.cli.application import app, cluster_app
from orchestrator.cli.options import (
    EXIT_FAILED,
    AddressOption,
    DataOption,
    RunsOption,
    SweepPath,
    opened,
)
from orchestrator.consoles import err, out
from orchestrator.printed import printed
from orchestrator.session import tables
from orchestrator.spec import DatasetSettings, load_sweep
from orchestrator.target import DEFAULT_RUNS
from workers.stage_store import StageStore

if TYPE_CHECKING:
    from orchestrator.doctor import Finding
    from orchestrator.submission import Cluster


@app.command()
def doctor(
    sweep: Annotated[
        Path | None, typer.Argument(help="The sweep file.", metavar="[SWEEP]")
    ] = None,
    data: DataOption = None,
    runs: RunsOption = None,
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
    from orchestrator.sweep_findings import examine_sweep

    if cluster and sweep is None:
        raise typer.BadParameter("--cluster takes a sweep file: it names data, store and tracking")

    folders: dict[str, DatasetSettings] = {}
    runs_dir = (runs or DEFAULT_RUNS).expanduser().absolute()
    uri, experiment = sqlite_url(runs_dir / "mlflow.db"), None
    if sweep is not None:
        session = opened(sweep, data, runs, needs="names")
        runs_dir, uri = session.runs_dir, session.tracking_uri
        experiment = session.experiment
        folders = {name: session.spec.datasets[name] for name in session.sources}
    is_fine = _show(examine(runs_dir, uri, folders, experiment=experiment))
    if sweep is not None:
        is_fine &= _show(examine_sweep(session))
    if store or repair:
        from orchestrator.store_care import examine_store

        stages = StageStore(runs_dir / "store") if sweep is None else session.store
        is_fine &= _show(examine_store(stages, repairs=repair))
    if cluster:
        from orchestrator.nodes import examine_nodes
        from orchestrator.ray_executor import RayExecutor

        with RayExecutor(address=address):
            out.print("\nEvery node against this machine:")
            is_fine &= _show(examine_nodes(session))
    if not is_fine:
        raise typer.Exit(EXIT_FAILED)


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
        for words in (("status",), ("logs", "--follow"), ("cancel",)):
            command = printed("cluster", *words, identity, "--address", address)
            out.print(Text(command), soft_wrap=True)
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

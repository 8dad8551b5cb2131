"""Machines that sweeps run on: doctor, submit, cluster."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.table import Table
from rich.text import Text

from addresses.sqlite import sqlite_url
from orchestrator.commands.opening import opened
from orchestrator.consoles import err, out
from orchestrator.exit_codes import EXIT_FAILED
from orchestrator.printed import Typed, printed
from orchestrator.session import tables
from orchestrator.spec import DatasetSettings, load_sweep
from orchestrator.target import DEFAULT_RUNS
from workers.stage_store import StageStore

if TYPE_CHECKING:
    from orchestrator.doctor import Finding
    from orchestrator.submission import Cluster


def doctor(typed: Typed, *, cluster: bool, address: str, store: bool, repair: bool) -> None:
    """Do what `orchestrator doctor` says of itself."""
    from orchestrator.doctor import examine
    from orchestrator.sweep_findings import examine_sweep

    if cluster and typed.sweep is None:
        raise typer.BadParameter("--cluster takes a sweep file: it names data, store and tracking")

    folders: dict[str, DatasetSettings] = {}
    runs_dir = (typed.runs or DEFAULT_RUNS).expanduser().absolute()
    uri, experiment = sqlite_url(runs_dir / "mlflow.db"), None
    if typed.sweep is not None:
        session = opened(typed, needs="names")
        runs_dir, uri = session.runs_dir, session.tracking_uri
        experiment = session.experiment
        folders = {name: session.spec.datasets[name] for name in session.sources}
    is_fine = _show(examine(runs_dir, uri, folders, experiment=experiment))
    if typed.sweep is not None:
        is_fine &= _show(examine_sweep(session))
    if store or repair:
        from orchestrator.store_care import examine_store

        stages = StageStore(runs_dir / "store") if typed.sweep is None else session.store
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


def submit(
    sweep: Path, address: str, *, data: list[str] | None, runs: str, python: str, detach: bool
) -> None:
    """Do what `orchestrator submit` says of itself."""
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


def cluster_status(address: str, identity: str | None) -> None:
    """Do what `orchestrator cluster status` says of itself."""
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


def cluster_logs(identity: str, address: str, *, follow: bool) -> None:
    """Do what `orchestrator cluster logs` says of itself."""
    from orchestrator.submission import Cluster

    cluster = Cluster(address)
    if follow:
        _follow(cluster, identity)
    cluster.submission(identity)
    out.print(Text(cluster.log(identity)), soft_wrap=True, end="")


def cluster_cancel(identity: str, address: str) -> None:
    """Do what `orchestrator cluster cancel` says of itself."""
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

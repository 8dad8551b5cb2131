"""Machines that sweeps run on: doctor, submit, cluster."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.application import app, cluster_app
from orchestrator.cli.options import AddressOption, DataOption, RunsOption, SweepPath, typed
from orchestrator.stopping import leaving_at_once


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
    with leaving_at_once():
        from orchestrator.commands import machines

    machines.doctor(
        typed(sweep, data, runs), cluster=cluster, address=address, store=store, repair=repair
    )


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
    with leaving_at_once():
        from orchestrator.commands import machines

    machines.submit(sweep, address, data=data, runs=runs, python=python, detach=detach)


@cluster_app.command("status")
def cluster_status(
    address: AddressOption,
    identity: Annotated[str | None, typer.Argument(help="A submission; or all.")] = None,
) -> None:
    """Show how submitted sweeps stand."""
    with leaving_at_once():
        from orchestrator.commands import machines

    machines.cluster_status(address, identity)


@cluster_app.command("logs")
def cluster_logs(
    identity: Annotated[str, typer.Argument(help="A submission.")],
    address: AddressOption,
    follow: Annotated[bool, typer.Option("--follow", help="Until it ends.")] = False,
) -> None:
    """Print what a submitted sweep has printed."""
    with leaving_at_once():
        from orchestrator.commands import machines

    machines.cluster_logs(identity, address, follow=follow)


@cluster_app.command("cancel")
def cluster_cancel(
    identity: Annotated[str, typer.Argument(help="A submission.")], address: AddressOption
) -> None:
    """Stop a submitted sweep: its stages checkpoint, and the same submission goes on later."""
    with leaving_at_once():
        from orchestrator.commands import machines

    machines.cluster_cancel(identity, address)

"""What is done with a sweep while it runs: run, status."""

from typing import Annotated

import typer

from orchestrator.cli.application import app
from orchestrator.cli.options import DataOption, RunsOption, SweepPath, typed
from orchestrator.stopping import leaving_at_once


@app.command()
def run(
    context: typer.Context,
    sweep: SweepPath,
    data: DataOption = None,
    runs: RunsOption = None,
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
    """Run what is missing of a sweep, then write tables and report. Run it again to resume.

    Later commands on the sweep find its runs folder and its data folders without being told.
    """
    with leaving_at_once():
        from orchestrator.commands import sweeps

    sweeps.run(
        typed(sweep, data, runs, context),
        address=address,
        inline=inline,
        job=job,
        unchecked=unchecked,
        wait_for_machines=wait_for_machines,
        again=again,
    )


@app.command()
def status(sweep: SweepPath, data: DataOption = None, runs: RunsOption = None) -> None:
    """Show where a sweep stands, from any shell that sees its folders."""
    with leaving_at_once():
        from orchestrator.commands import sweeps

    sweeps.status(typed(sweep, data, runs))

"""What a sweep will take: plan."""

from typing import Annotated

import typer

from orchestrator.cli.application import app
from orchestrator.cli.options import DataOption, RunsOption, SweepPath, typed
from orchestrator.stopping import leaving_at_once


@app.command()
def plan(
    context: typer.Context,
    sweep: SweepPath,
    data: DataOption = None,
    runs: RunsOption = None,
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
    with leaving_at_once():
        from orchestrator.commands import plans

    plans.plan(
        typed(sweep, data, runs, context),
        jobs=jobs,
        machines=machines,
        gpus=gpus,
        cpus=cpus,
        price_per_hour=price_per_hour,
        measure=measure,
    )

"""What is made of finished jobs: report, replay, study, sync, export."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.application import app, study_app
from orchestrator.cli.options import DataOption, RunsOption, SweepPath, typed
from orchestrator.stopping import leaving_at_once


@app.command()
def report(
    sweep: Annotated[
        Path | None, typer.Argument(help="The sweep file.", metavar="[SWEEP]")
    ] = None,
    data: DataOption = None,
    runs: RunsOption = None,
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
    with leaving_at_once():
        from orchestrator.commands import outcomes

    outcomes.report(
        typed(sweep, data, runs),
        tracking_uri=tracking_uri,
        experiment=experiment,
        tables_in=tables_in,
    )


@app.command()
def replay(
    sweep: SweepPath,
    data: DataOption = None,
    runs: RunsOption = None,
    pruner: Annotated[
        list[str] | None, typer.Option(help="Of the sweep; all of its grid if none is given.")
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(help="Values of a setting, all combined.", metavar="FIELD=VALUE,VALUE,…"),
    ] = None,
) -> None:
    """Try pruners on the recorded full searches of a sweep: no training, seconds of work."""
    with leaving_at_once():
        from orchestrator.commands import outcomes

    outcomes.replay(typed(sweep, data, runs), pruner=pruner, vary=vary)


@study_app.command("show")
def study_show(sweep: SweepPath, data: DataOption = None, runs: RunsOption = None) -> None:
    """Show the confirmed trials that no other one beats, and how far replays were off."""
    with leaving_at_once():
        from orchestrator.commands import outcomes

    outcomes.study_show(typed(sweep, data, runs))


@study_app.command("export")
def study_export(
    sweep: SweepPath,
    into: Annotated[
        Path | None, typer.Option(help="The new sweep file, beside the sweep's.")
    ] = None,
    trial: Annotated[int | None, typer.Option(help="Number of a confirmed trial.")] = None,
    data: DataOption = None,
    runs: RunsOption = None,
) -> None:
    """Write a sweep file with the tuned settings as a pruner, for every cell of the grid."""
    with leaving_at_once():
        from orchestrator.commands import outcomes

    outcomes.study_export(typed(sweep, data, runs), into=into, trial=trial)


@app.command()
def sync(sweep: SweepPath, data: DataOption = None, runs: RunsOption = None) -> None:
    """Send finished jobs that MLflow does not have yet."""
    with leaving_at_once():
        from orchestrator.commands import outcomes

    outcomes.sync(typed(sweep, data, runs))


@app.command()
def export(
    sweep: SweepPath,
    into: Annotated[Path, typer.Option(help="Folder to write; one folder per job in it.")],
    data: DataOption = None,
    runs: RunsOption = None,
    job: Annotated[
        list[str] | None, typer.Option(help="Start of a job's id (see `plan --jobs`); or all.")
    ] = None,
    program: Annotated[
        list[str] | None,
        typer.Option(help="Also write the whole network: onnx or torch_export."),
    ] = None,
) -> None:
    """Write found cells and networks of finished jobs for use outside this project."""
    with leaving_at_once():
        from orchestrator.commands import outcomes

    outcomes.export(typed(sweep, data, runs), into=into, job=job, program=program)

"""Data folders: check, show, and phantoms."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.application import app, data_app
from orchestrator.cli.options import LayoutAtPath, LeaveOut, MaxVolumeGib, PatientPattern
from orchestrator.stopping import leaving_at_once


@data_app.command("check")
def data_check(
    folder: LayoutAtPath,
    leave_out: LeaveOut = None,
    patient_pattern: PatientPattern = None,
    max_volume_gib: MaxVolumeGib = None,
) -> None:
    """Read every volume of a data folder and say what it holds and what is wrong with it."""
    with leaving_at_once():
        from orchestrator.commands import folders

    folders.data_check(
        folder, leave_out=leave_out, patient_pattern=patient_pattern, max_volume_gib=max_volume_gib
    )


@data_app.command("show")
def data_show(
    folder: LayoutAtPath,
    page: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("data.html"),
    volumes: Annotated[int, typer.Option(help="Volumes to show, spread evenly.")] = 12,
    leave_out: LeaveOut = None,
    patient_pattern: PatientPattern = None,
    max_volume_gib: MaxVolumeGib = None,
) -> None:
    """Write a page of slices with the contours of their labels, as trainings would cut them."""
    with leaving_at_once():
        from orchestrator.commands import folders

    folders.data_show(
        folder,
        page=page,
        volumes=volumes,
        leave_out=leave_out,
        patient_pattern=patient_pattern,
        max_volume_gib=max_volume_gib,
    )


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="The folder to write.")],
    patients: Annotated[int, typer.Option(help="Number of patients.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of everything drawn.")] = 0,
) -> None:
    """Generate beating hearts in the ACDC layout; a folder that has them already is left alone."""
    with leaving_at_once():
        from orchestrator.commands import folders

    folders.phantom(folder, patients=patients, seed=seed)

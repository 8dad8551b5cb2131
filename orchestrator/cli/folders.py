"""Data folders: check, show, and phantoms."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from iac_core.config import SplitSettings
from iac_core.data.splits import make_split
from iac_core.errors import ConfigError, DataError
from iac_core.types import SegmentationDataset
from orchestrator.cli.application import app, data_app
from orchestrator.cli.options import LayoutAtPath, LeaveOut, MaxVolumeGib, PatientPattern
from orchestrator.consoles import err, out
from orchestrator.spec import DatasetSettings, VolumeSettings


@data_app.command("check")
def data_check(
    folder: LayoutAtPath,
    leave_out: LeaveOut = None,
    patient_pattern: PatientPattern = None,
    max_volume_gib: MaxVolumeGib = VolumeSettings().max_volume_gib,
) -> None:
    """Read every volume of a data folder and say what it holds and what is wrong with it."""
    from rich.progress import Progress

    from iac_core.data.check import check_dataset, warning_lines
    from orchestrator.data_page import summary_lines

    dataset = _dataset(folder, leave_out, patient_pattern, max_volume_gib)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("reading volumes", total=None)
        summary = check_dataset(
            dataset, lambda done, of: bar.update(task, completed=done, total=of)
        )
    for line in warning_lines(summary.warnings):
        err.print(Text(f"warning: {line}"), style="yellow", soft_wrap=True)
    if summary.problems:
        raise DataError(summary.problems)
    for line in summary_lines(summary):
        out.print(Text(line), soft_wrap=True)
    refs = dataset.volumes()
    patients = sorted({ref.patient_id for ref in refs})
    try:
        make_split(patients, SplitSettings(), {r.patient_id for r in refs if r.is_official_test})
    except ConfigError as error:
        text = f"a sweep must set stages.split for this folder: {error}"
        err.print(Text(text), style="yellow", soft_wrap=True)


@data_app.command("show")
def data_show(
    folder: LayoutAtPath,
    page: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("data.html"),
    volumes: Annotated[int, typer.Option(help="Volumes to show, spread evenly.")] = 12,
    leave_out: LeaveOut = None,
    patient_pattern: PatientPattern = None,
    max_volume_gib: MaxVolumeGib = VolumeSettings().max_volume_gib,
) -> None:
    """Write a page of slices with the contours of their labels, as trainings would cut them."""
    from orchestrator.data_page import write_data_page

    dataset = _dataset(folder, leave_out, patient_pattern, max_volume_gib)
    shown = write_data_page(dataset, page, n_volumes=volumes)
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


def _dataset(
    folder: str, leave_out: list[str] | None, patient_pattern: str | None, max_volume_gib: float
) -> SegmentationDataset:
    layout, equals, path = folder.partition("=")
    if not equals or not path:
        raise typer.BadParameter(f"a data folder must be LAYOUT=PATH, got {folder!r}")
    settings = DatasetSettings(
        layout=layout,
        path=str(Path(path).expanduser()),
        leave_out=tuple(leave_out or ()),
        patient_pattern=patient_pattern,
        max_volume_gib=max_volume_gib,
    )
    return settings.open()

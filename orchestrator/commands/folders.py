"""Data folders: check, show, and phantoms."""

from pathlib import Path

import typer
from rich.text import Text

from iac_core.config import SplitSettings
from iac_core.data.splits import make_split
from iac_core.errors import ConfigError, DataError
from iac_core.types import SegmentationDataset
from orchestrator.consoles import err, out
from orchestrator.spec import DatasetSettings, VolumeSettings


def data_check(
    folder: str,
    *,
    leave_out: list[str] | None,
    patient_pattern: str | None,
    max_volume_gib: float | None,
) -> None:
    """Do what `orchestrator data check` says of itself."""
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


def data_show(
    folder: str,
    *,
    page: Path,
    volumes: int,
    leave_out: list[str] | None,
    patient_pattern: str | None,
    max_volume_gib: float | None,
) -> None:
    """Do what `orchestrator data show` says of itself."""
    from orchestrator.data_page import write_data_page

    dataset = _dataset(folder, leave_out, patient_pattern, max_volume_gib)
    shown = write_data_page(dataset, page, n_volumes=volumes)
    out.print(Text(f"{shown} volumes in {page}"), soft_wrap=True)


def phantom(folder: Path, *, patients: int, seed: int) -> None:
    """Do what `orchestrator phantom` says of itself."""
    from iac_core.data.phantom import PhantomSettings, write_phantom

    written = write_phantom(folder, PhantomSettings(n_patients=patients, seed=seed))
    verb = "wrote" if written else "already there:"
    out.print(Text(f"{verb} {patients} phantom patients in {folder}"), soft_wrap=True)


def _dataset(
    folder: str,
    leave_out: list[str] | None,
    patient_pattern: str | None,
    max_volume_gib: float | None,
) -> SegmentationDataset:
    layout, equals, path = folder.partition("=")
    if not equals or not path:
        raise typer.BadParameter(f"a data folder must be LAYOUT=PATH, got {folder!r}")
    settings = DatasetSettings(
        layout=layout,
        path=str(Path(path).expanduser()),
        leave_out=tuple(leave_out or ()),
        patient_pattern=patient_pattern,
        max_volume_gib=(
            VolumeSettings().max_volume_gib if max_volume_gib is None else max_volume_gib
        ),
    )
    return settings.open()

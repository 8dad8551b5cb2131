"""Whether this machine can run sweeps: one line per thing, ok or the way out."""

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from iac_core.data.check import check_dataset
from iac_core.errors import ConfigError
from orchestrator.disk import LEAST_FREE_GIB, existing_part, free_gib, write_trouble
from orchestrator.spec import DatasetSettings
from results.errors import TrackingError

_PACKAGES = {"torch": "2.13", "ray": "2.60", "mlflow": "3.17", "optuna": "5.0", "monai": "1.6"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line: what was looked at, whether it is fine, and what was seen or what to do."""

    what: str
    is_ok: bool
    text: str


def examine(
    runs_dir: Path,
    tracking_uri: str,
    data: Mapping[str, DatasetSettings],
    *,
    experiment: str | None = None,
) -> Iterator[Finding]:
    """Look at versions, devices, disk, tracking and data folders.

    Args:
        runs_dir: Where runs will lie.
        tracking_uri: MLflow's tracking URI.
        data: Dataset → its folder.
        experiment: Of the sweep, written and read if it exists.
    """
    version = platform.python_version()
    yield Finding(
        what="python",
        is_ok=sys.version_info >= (3, 11),
        text=version
        if sys.version_info >= (3, 11)
        else f"{version}: install Python 3.11 or newer",
    )
    for name, wanted in _PACKAGES.items():
        yield _package(name, wanted)
    yield _devices()
    yield _disk(runs_dir)
    yield _tracking(tracking_uri, experiment)
    for name, settings in data.items():
        yield _data(name, settings)


def _package(name: str, wanted: str) -> Finding:
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(what=name, is_ok=False, text="not installed: run `make install`")
    fits = found.startswith(wanted)
    advice = "" if fits else f": this project was tested with {wanted}, run `make install`"
    return Finding(what=name, is_ok=fits, text=found + advice)


def _devices() -> Finding:
    cpus = f"{os.cpu_count()} CPUs"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        return Finding(what="devices", is_ok=True, text=f"{cpus}, {', '.join(names)}")
    if shutil.which("nvidia-smi"):
        text = f"{cpus}; a GPU that torch cannot use: install the CUDA build of torch"
        return Finding(what="devices", is_ok=False, text=text)
    return Finding(what="devices", is_ok=True, text=f"{cpus}, no GPU")


def _disk(runs_dir: Path) -> Finding:
    trouble = write_trouble(runs_dir)
    if trouble:
        return Finding(what="disk", is_ok=False, text=f"{trouble} (--runs)")
    free = free_gib(runs_dir)
    text = f"{free:.0f} GiB free in {existing_part(runs_dir)}"
    if free < LEAST_FREE_GIB:
        text += f": free {LEAST_FREE_GIB:.0f} GiB, or choose another folder with --runs"
    return Finding(what="disk", is_ok=free >= LEAST_FREE_GIB, text=text)


def _tracking(uri: str, experiment: str | None) -> Finding:
    from results.tracking.trial import try_tracking

    try:
        text = try_tracking(uri, experiment)
    except TrackingError as error:
        return Finding(what="tracking", is_ok=False, text=str(error))
    return Finding(what="tracking", is_ok=True, text=text)


def _data(name: str, settings: DatasetSettings) -> Finding:
    what, folder = f"data {name}", settings.path
    if folder is None or not Path(folder).is_dir():
        text = f"no folder {folder or ''}: give it with --data {name}=PATH"
        return Finding(what=what, is_ok=False, text=text)
    try:
        summary = check_dataset(settings.open())
    except ConfigError as error:
        return Finding(what=what, is_ok=False, text=str(error))
    if summary.problems:
        text = f"{len(summary.problems)} problems, the first: {summary.problems[0]}"
        return Finding(what=what, is_ok=False, text=text)
    text = f"{summary.n_patients} patients, {summary.n_volumes} volumes in {folder}"
    if summary.warnings:
        text += f"; {len(summary.warnings)} warnings, the first: {summary.warnings[0]}"
    return Finding(what=what, is_ok=True, text=text)

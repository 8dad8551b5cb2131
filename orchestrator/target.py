"""What a command works on: the one place that decides on runs folder, data folders and store.

The runs folder is, in this order: ``--runs``; that of the last `run` of this sweep file in this
working directory; ``runs`` in the working directory if it holds this sweep; that of the last `run`
anywhere; ``runs`` in the working directory. A data folder is ``--data``; that of the last `run` in
this runs folder, unless the sweep file has named another since; what the sweep file names. A
folder that is remembered but gone or changed is named. Relative paths in a sweep file (data,
store, SQLite) start at the sweep file.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from addresses.sqlite import in_url
from iac_core.errors import Problem
from orchestrator.printed import Typed, printed
from orchestrator.remembered import DataNote, noted_data, noted_runs
from orchestrator.spec import DatasetSettings, SweepSpec

DEFAULT_RUNS = Path("runs")
_RELATIVE_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!/)([^?]+)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a command works on.

    Attributes:
        spec: The sweep, with the data folders that are taken.
        runs_dir: Folder of all sweeps, absolute.
        store: Folder of the stages, absolute, or a URL.
        declared: Dataset → the folder that the sweep file names, or None.
        known: Dataset → what the last run took, where it still says what this command asks.
        gone: Runs folder that was remembered and is not there any more.
        notices: What the user may not expect, a line each.
    """

    spec: SweepSpec
    runs_dir: Path
    store: Path | str
    declared: Mapping[str, str | None]
    known: Mapping[str, DataNote] = field(default_factory=dict)
    gone: Path | None = None
    notices: tuple[str, ...] = ()

    @property
    def run_dir(self) -> Path:
        """Folder of the sweep below the runs folder."""
        return self.runs_dir / self.spec.name

    def missing_runs(self) -> Problem | None:
        """Return what is wrong if the runs folder is not there."""
        if self.gone is None and self.runs_dir.is_dir():
            return None
        wanted = self.gone or self.runs_dir
        came_from = ", where this sweep ran last," if self.gone else ""
        value = "a file" if wanted.exists() else "no folder"
        return Problem(
            file=str(wanted),
            rule=f"the runs folder{came_from} must exist",
            value=value,
            way_out="name it with --runs PATH, or run the sweep first",
        )


def resolve(
    typed: Typed, spec: SweepSpec, given: Collection[str], declared: Mapping[str, str | None]
) -> Target:
    """Return what a command works on.

    Args:
        typed: What the user typed.
        spec: The sweep as its file and ``--data`` give it.
        given: Datasets of ``--data``.
        declared: Dataset → the folder that the sweep file names, or None.
    """
    runs_dir, gone, notices = _runs_folder(typed, spec)
    run_dir = runs_dir / spec.name
    datasets, known = dict(spec.datasets), {}
    for name, settings in spec.datasets.items():
        note = None
        if name not in given:
            note = _note_for(run_dir, name, settings)
        if note is None:
            note = _note_of(run_dir, name, settings)
        elif note.path != settings.path:
            datasets[name] = replace(settings, path=note.path)
            if settings.path is not None:
                notices.append(
                    f"{name}: {note.path}, as in the last run; the sweep file names "
                    f"{settings.path} (--data {name}=PATH chooses)"
                )
        if note is not None and note.is_of(settings.layout, settings.options):
            known[name] = note
    return Target(
        spec=replace(spec, datasets=datasets),
        runs_dir=runs_dir,
        store=_store(spec, runs_dir),
        declared=declared,
        known=known,
        gone=gone,
        notices=tuple(notices),
    )


def missing_folder(name: str, settings: DatasetSettings, note: DataNote | None) -> Problem:
    """Return what is wrong with a dataset whose folder is not at hand.

    Args:
        name: The dataset.
        settings: What is asked for.
        note: What the last run took, if that is known.
    """
    value = "no path"
    if settings.path is not None:
        value = f"no folder {settings.path}"
        if note is not None and note.path == settings.path:
            value += ", which the last run took"
    return Problem(
        file=f"dataset {name}",
        rule="its folder must be at hand",
        value=value,
        way_out=f"give it with --data {name}=PATH, or make the phantom with "
        f"`{printed('phantom', 'PATH')}`",
    )


def located_uri(uri: str, folder: Path) -> str:
    """Return the URI of a database; a relative SQLite file starts at a folder.

    Examples:
        >>> located_uri("sqlite:///mlflow.db", Path("/sweeps"))
        'sqlite:////sweeps/mlflow.db'
        >>> located_uri("sqlite:///mlflow.db", Path("/what?"))
        'sqlite:////what%3F/mlflow.db'
        >>> located_uri("http://host:5000", Path("/sweeps"))
        'http://host:5000'
    """
    found = _RELATIVE_SQLITE.fullmatch(uri)
    if found is None or found[2] == ":memory:":
        return uri
    return f"{found[1]}{in_url(folder.absolute())}/{found[2]}{found[3]}"


def _runs_folder(typed: Typed, spec: SweepSpec) -> tuple[Path, Path | None, list[str]]:
    """The runs folder, the remembered one that is gone if it was wanted, and what to say."""
    if typed.runs is not None:
        return typed.runs.expanduser().absolute(), None, []
    here = DEFAULT_RUNS.absolute()
    own, others = noted_runs(spec.path)
    for folder in own:
        if folder.is_dir():
            said = [] if folder == here else [_as_in_the_last_run(folder)]
            return folder, None, said
    if (here / spec.name).is_dir():
        return here, None, []
    for folder in others:
        if folder.is_dir():
            return folder, None, [_as_in_the_last_run(folder)]
    gone = next(iter([*own, *others]), None)
    if gone is None or gone == here:
        return here, None, []
    return here, gone, [f"the runs folder of the last run is gone: {gone}; now {here}"]


def _as_in_the_last_run(folder: Path) -> str:
    return f"runs folder: {folder}, as in the last run (--runs PATH chooses)"


def _note_for(run_dir: Path, name: str, settings: DatasetSettings) -> DataNote | None:
    """The folder that the last run took and that still stands for the dataset."""
    notes = [note for note in noted_data(run_dir, name) if note.layout == settings.layout]
    # The file has named another folder since: it is asked for.
    valid = [note for note in notes if settings.path in (None, note.declared, note.path)]
    at_hand = (note for note in valid if Path(note.path).is_dir())
    return next(at_hand, next(iter(valid), None))


def _note_of(run_dir: Path, name: str, settings: DatasetSettings) -> DataNote | None:
    """What a run noted of the very folder that is asked for."""
    notes: Sequence[DataNote] = list(noted_data(run_dir, name))
    return next((note for note in notes if note.path == settings.path), None)


def _store(spec: SweepSpec, runs_dir: Path) -> Path | str:
    if spec.store is None:
        return runs_dir / "store"
    if "://" in spec.store:
        return spec.store
    return spec.path.parent.absolute() / Path(spec.store).expanduser()

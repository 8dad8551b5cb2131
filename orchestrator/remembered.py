"""What `run` leaves for later commands: where its runs folder is, and which data it took.

Two kinds of notes, each a small file that one host writes for itself, so that several commands and
machines never write the same one:

* beside the sweep file, ``.orchestrator/*.json``: the runs folder, one note per working directory
  (in ``$XDG_STATE_HOME/iac``, by default ``~/.local/state/iac``, where the sweep file's folder
  cannot be written);
* in the sweep's runs folder, ``folders/*.json``: the data folders with their fingerprints.

A note that is missing or damaged only means that a later command must be told.
"""

import hashlib
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from files.reading import read_json
from files.writing import write_json, write_text
from iac_core.config import DatasetOptions
from workers.job import plain

_BESIDE = ".orchestrator"
_FOLDERS = "folders"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataNote:
    """The data folder that a run took.

    Attributes:
        layout: Its layout.
        options: What of it was used, as plain values.
        path: The folder, absolute.
        declared: What the sweep file named, absolute; None if it named none.
        fingerprint: Of its content.
    """

    layout: str
    options: Mapping[str, Any]
    path: str
    declared: str | None
    fingerprint: str

    def is_of(self, layout: str, options: DatasetOptions) -> bool:
        """Return whether a sweep reads the folder in the same way."""
        return self.layout == layout and dict(self.options) == plain(options)


def note_runs(sweep: Path, runs_dir: Path) -> bool:
    """Leave the runs folder of a sweep file where later commands find it.

    Args:
        sweep: The sweep file.
        runs_dir: The runs folder, absolute.

    Returns:
        Whether it could be written anywhere.
    """
    here = str(Path.cwd())
    note = {
        "sweep": str(sweep.absolute()),
        "host": _host(),
        "folder": here,
        "runs": str(runs_dir),
        "time": time.time(),
    }
    for folder, mark in _places(sweep):
        path = folder / f"{mark}-{_hash(_host(), here)}.json"
        try:
            if not folder.is_dir():
                # Notes are of one machine: no version control should pick them up.
                write_text(folder / ".gitignore", "*\n", is_durable=False)
            write_json(path, note)
        except OSError:
            continue
        return True
    return False


def noted_runs(sweep: Path) -> tuple[list[Path], list[Path]]:
    """Return the runs folders that a sweep file was run with.

    Returns:
        That of the last run in this working directory, if any; and those of all others, this
        host's before others', the newest first.
    """
    own: list[Path] = []
    others: list[Path] = []
    for folder, mark in _places(sweep):
        for note in _notes(folder, f"{mark}-"):
            if isinstance(note.get("runs"), str):
                is_own = (note.get("host"), note.get("folder")) == (_host(), str(Path.cwd()))
                (own if is_own else others).append(Path(note["runs"]))
    return own[:1], others


def note_data(run_dir: Path, found: Mapping[str, DataNote]) -> None:
    """Leave the data folders of a run; those of datasets that it does not use are kept.

    Args:
        run_dir: The sweep's folder below the runs folder.
        found: Dataset → its folder.

    Raises:
        OSError: If it cannot be written.
    """
    path = run_dir / _FOLDERS / f"{_hash(_host())}.json"
    before = read_json(path, dict) or {}
    kept = before.get("datasets")
    datasets = {
        **(kept if isinstance(kept, dict) else {}),
        **{name: asdict(note) for name, note in found.items()},
    }
    write_json(path, {"host": _host(), "time": time.time(), "datasets": datasets})


def noted_data(run_dir: Path, name: str) -> Iterator[DataNote]:
    """Yield the folders that runs took for a dataset, this host's first, the newest first."""
    for note in _notes(run_dir / _FOLDERS, ""):
        datasets = note.get("datasets")
        entry = datasets.get(name) if isinstance(datasets, dict) else None
        found = _data_note(entry)
        if found is not None:
            yield found


def _data_note(entry: Any) -> DataNote | None:  # noqa: ANN401 - what a file holds
    """The note that an entry of a file is, or None."""
    if not isinstance(entry, dict) or not isinstance(entry.get("options"), dict):
        return None
    texts: dict[str, Any] = {name: entry.get(name) for name in ("layout", "path", "fingerprint")}
    declared = entry.get("declared")
    if not all(isinstance(text, str) for text in (*texts.values(), declared or "")):
        return None
    return DataNote(options=entry["options"], declared=declared, **texts)


def _places(sweep: Path) -> Iterator[tuple[Path, str]]:
    """Folders of notes on a sweep file, and how the names of its notes begin there."""
    whole = sweep.absolute()
    yield whole.parent / _BESIDE, _hash(whole.name)
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        yield Path(state).expanduser() / "iac", _hash(str(whole))
    except RuntimeError:  # no home
        return


def _notes(folder: Path, start: str) -> list[dict[str, Any]]:
    """The notes in a folder, this host's first, the newest first."""
    found = []
    try:
        paths = [path for path in folder.iterdir() if path.name.startswith(start)]
    except OSError:
        return []
    for path in paths:
        if path.suffix != ".json":
            continue
        try:
            note = read_json(path, dict)
        except OSError:
            continue
        if note is not None:
            found.append(note)
    return sorted(found, key=lambda note: (note.get("host") != _host(), -_time(note)))


def _time(note: Mapping[str, Any]) -> float:
    value = note.get("time")
    return float(value) if isinstance(value, int | float) else 0.0


def _host() -> str:
    return platform.node()


def _hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode(errors="surrogateescape")).hexdigest()[:12]

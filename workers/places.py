"""Where the store of stages lies: one interface, a folder of a file system or an object store.

`LocalPlace` is a folder that every host sees; `workers.object_place.ObjectPlace` is a prefix of an
S3 bucket. Names are relative to the place, with ``/`` between their parts. Small files (leases,
notes, manifests) go through `Place.read`, `Place.write` and `Place.create`; the large ones of an
attempt through its workbench, a folder on this host.
"""

import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from files.encoding import DamagedError, from_json
from files.leftovers import is_left_alone, remove_leftovers
from files.names import is_temporary
from files.reading import names_in, read_bytes, warn_damaged
from files.writing import copy_file, create_bytes, sync_folder, write_bytes
from iac_core.data.prepare import PARTS
from iac_core.errors import ConfigError, IacError

CHECKPOINT = "checkpoint.pt"
MANIFEST = "manifest.json"
ATTEMPT = "attempt.json"
OUTCOME = "outcome.json"
PROGRESS = "progress.json"
OF_ATTEMPTS = (CHECKPOINT, PROGRESS, ATTEMPT, OUTCOME)
"""Files, beside the folder `PARTS`, that only attempts need: no part of what a stage leaves."""
DAMAGED = "damaged"
"""Folder of what was found damaged and was computed again; it may be deleted."""
_WRITTEN_TO = ("attempts", "checks", "costs", "leases", "peaks")
"""Folders of a store where small files are written beside the outcomes."""
_S3_URL = re.compile(r"s3://[^/\s]+(/[^/\s]+)*/?")


class StoreAwayError(IacError, OSError):
    """The object store did not answer as it should; what was under way can be tried again."""

    is_of_input = False


class Place(Protocol):
    """A folder of small files that several hosts share, and the workbenches of attempts.

    Every method may raise OSError; an object store raises `StoreAwayError` alone, unless the disk
    of this host is the trouble.
    """

    @property
    def root(self) -> Path | str:
        """Where it is: a folder, or a URL."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether hosts share nothing but this place: no other file is seen by all."""
        ...

    @property
    def seconds_between_looks(self) -> float:
        """How long whoever waits for a change should wait before looking again, at least."""
        ...

    def check(self, *, writes: bool) -> None:
        """Look whether it can be read, and written to.

        Raises:
            ConfigError: If a bucket does not answer, refuses, or is no help.
        """
        ...

    def at(self, name: str) -> "Place":
        """Return a folder of this place as a place."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if there is none (any more)."""
        ...

    def read_all(self, names: Iterable[str]) -> Mapping[str, bytes]:
        """Return the contents of those of many files that exist."""
        ...

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """Put a file into an existing folder, over an older one; it is whole or absent."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Put a file where there is none, with its folders; of several callers one wins.

        Args:
            name: The file.
            content: No other caller's may be the same: what is found is compared with it.

        Returns:
            False if there is another's already.
        """
        ...

    def names(self, name: str = "") -> frozenset[str]:
        """Return the names of files and folders directly in a folder; none if it is missing."""
        ...

    def remove(self, name: str) -> None:
        """Remove a folder and everything in it, as far as it can be removed."""
        ...

    def workbench(self, attempt: str) -> Path:
        """Return the folder on this host that an attempt writes into, new and empty."""
        ...

    def take_over(
        self, earlier: Sequence[str], attempt: str, is_whole: Callable[[Path], bool]
    ) -> None:
        """Put the newest whole checkpoint and all finished parts on a workbench.

        Args:
            earlier: Earlier attempts.
            attempt: The new one.
            is_whole: Tells a damaged checkpoint; an older one is taken in its place.
        """
        ...

    def keep(self, attempt: str) -> None:
        """Let other hosts see a changed checkpoint and finished parts of a workbench."""
        ...

    def send(self, attempt: str) -> None:
        """Let other hosts see what an attempt leaves behind; its manifest is not yet written."""
        ...

    def publish(self, attempt: str, stage: str) -> None:
        """Make an attempt with a manifest the outcome of its stage, unless another one is."""
        ...

    def tidy(self, stage: str) -> None:
        """Remove all that the attempts of a published stage left, but its outcome."""
        ...

    def outcome(self, stage: str) -> str | None:
        """Return the name of the folder with the outcome of a stage, or None if it has none."""
        ...

    def set_aside(self, stage: str) -> str | None:
        """Make a stage one that never happened, for the holder of its lease.

        Returns:
            Where what lay there is now; None if nothing did, or nothing is kept.
        """
        ...

    def drop_copy(self, stage: str) -> None:
        """Forget the copy of an outcome that this host keeps, if it keeps any."""
        ...

    def clean(self) -> frozenset[str]:
        """Remove temporary files of writers that are gone, where this host can tell.

        Returns:
            Names of the folders of attempts that nobody has touched for a day.
        """
        ...

    def fetch(self, stage: str) -> Path:
        """Return a folder on this host with the outcome of a published stage, to be read only.

        Raises:
            DataError: If an object store has no such stage.
        """
        ...


class LocalPlace:
    """A folder of this host, or one on a network that all hosts see under the same path.

    Attempts work in it; an outcome is renamed into its place.

    Args:
        root: The folder.
    """

    is_remote = False
    seconds_between_looks = 0.0

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self, *, writes: bool) -> None:
        """Do nothing: a folder is created as it is needed."""

    def at(self, name: str) -> "LocalPlace":
        """Return a folder below."""
        return LocalPlace(self.root / name)

    def read(self, name: str) -> bytes | None:
        """Read a file."""
        return read_bytes(self.root / name)

    def read_all(self, names: Iterable[str]) -> Mapping[str, bytes]:
        """Read one file after the other."""
        contents = {name: self.read(name) for name in names}
        return {name: content for name, content in contents.items() if content is not None}

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """Write beside and move into place."""
        write_bytes(self.root / name, content, is_durable=durable, makes_folder=False)

    def create(self, name: str, content: bytes) -> bool:
        """Write beside and link: a link is never made over a file."""
        return create_bytes(self.root / name, content)

    def names(self, name: str = "") -> frozenset[str]:
        """List a folder."""
        return names_in(self.root / name)

    def remove(self, name: str) -> None:
        """Remove a folder."""
        shutil.rmtree(self.root / name, ignore_errors=True)

    def workbench(self, attempt: str) -> Path:
        """Return the attempt's own folder: everybody sees it."""
        folder = self.root / attempt
        folder.mkdir(parents=True)
        return folder

    def take_over(
        self, earlier: Sequence[str], attempt: str, is_whole: Callable[[Path], bool]
    ) -> None:
        """Copy the newest whole checkpoint and link the finished parts."""
        folder = self.root / attempt
        checkpoints = [self.root / name / CHECKPOINT for name in earlier]
        found = {path: path.stat().st_mtime_ns for path in checkpoints if path.exists()}
        for path in sorted(found, key=lambda path: found[path], reverse=True):
            if is_whole(path):
                copy_file(path, folder / CHECKPOINT)
                break
            warn_of_checkpoint(str(path))
        for name in earlier:
            remove_leftovers(self.root / name)
            _link_parts(self.root / name / PARTS, folder / PARTS)

    def keep(self, attempt: str) -> None:
        """Do nothing: everybody sees the workbench."""

    def send(self, attempt: str) -> None:
        """Do nothing: everybody sees the workbench."""

    def publish(self, attempt: str, stage: str) -> None:
        """Rename a whole attempt into place and drop what only attempts need; never overwrites."""
        folder, target = self.root / attempt, self.root / stage
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(target)
        except OSError:
            if _has_manifest(target):
                shutil.rmtree(folder, ignore_errors=True)
                return
            if not target.exists() or not folder.exists():
                raise
            self.set_aside(stage)
            folder.rename(target)
        sync_folder(target.parent)
        for name in OF_ATTEMPTS:
            (target / name).unlink(missing_ok=True)
        shutil.rmtree(target / PARTS, ignore_errors=True)

    def tidy(self, stage: str) -> None:
        """Remove the folder of the attempts: the outcome was renamed."""
        self.remove(attempts_of(stage))

    def outcome(self, stage: str) -> str | None:
        """Return the stage's own folder, where its outcome lies or will lie."""
        return stage

    def set_aside(self, stage: str) -> str | None:
        """Move what lies in the place of a stage into the folder `DAMAGED`."""
        folder = self.root / stage
        if not os.path.lexists(folder):
            return None
        aside = f"{DAMAGED}/{stage.replace('/', '-')}-{uuid.uuid4().hex[:8]}"
        (self.root / DAMAGED).mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(self.root / aside)
        except (FileNotFoundError, NotADirectoryError):
            return None
        sync_folder(folder.parent)
        return aside

    def drop_copy(self, stage: str) -> None:
        """Do nothing: the outcome itself is read."""

    def clean(self) -> frozenset[str]:
        """Look everywhere but among the outcomes, where nothing is written."""
        remove_leftovers(self.root, is_recursive=False)
        for name in _WRITTEN_TO:
            remove_leftovers(self.root / name)
        attempts = self.root / "attempts"
        return frozenset(name for name in names_in(attempts) if is_left_alone(attempts / name))

    def fetch(self, stage: str) -> Path:
        """Return the folder itself."""
        return self.root / stage


def attempts_of(stage: str) -> str:
    """Return the name of the folder of a stage's attempts and leases.

    Examples:
        >>> attempts_of("search/0123")
        'attempts/search-0123'
    """
    return f"attempts/{stage.replace('/', '-')}"


def open_place(root: Path | str) -> Place:
    """Return the place at a path or URL.

    Raises:
        ConfigError: If it is no folder and no prefix of an S3 bucket, or s3fs is missing.
    """
    if not is_root(root):
        raise ConfigError(
            "store must be a folder or s3://BUCKET/PREFIX",
            value=repr(root),
            way_out="give one of these",
        )
    if isinstance(root, Path) or "://" not in root:
        return LocalPlace(Path(root))
    from workers.object_place import ObjectPlace

    return ObjectPlace(root)


def is_root(root: Path | str) -> bool:
    """Return whether a path or URL can be that of a store.

    Examples:
        >>> is_root("s3://bucket/hearts"), is_root("../stages"), is_root("gs://bucket")
        (True, True, False)
    """
    return isinstance(root, Path) or "://" not in root or _S3_URL.fullmatch(root) is not None


def cache_folder() -> Path:
    """Return where this host keeps copies of a bucket's stages: ``IAC_CACHE``, or in the home."""
    return Path(os.environ.get("IAC_CACHE") or "~/.cache/iac").expanduser().absolute()


def is_outcome(name: str) -> bool:
    """Return whether a file of an attempt is part of what the stage leaves, its manifest apart.

    Examples:
        >>> is_outcome("weights.pt"), is_outcome("checkpoint.pt"), is_outcome("a.json.7.tmp")
        (True, False, False)
    """
    is_of_attempt = name in OF_ATTEMPTS or name.startswith(f"{PARTS}/")
    return not is_of_attempt and name != MANIFEST and not is_temporary(name)


def is_finished_part(name: str) -> bool:
    """Return whether a file among the parts of an attempt will not change any more."""
    return not is_temporary(name)


def warn_of_checkpoint(name: str) -> None:
    """Say that a checkpoint is damaged and what becomes of it."""
    way_out = "left alone; an older one is taken, or the stage starts from its beginning"
    warn_damaged(name, "must be a whole archive", way_out=way_out)


def _has_manifest(folder: Path) -> bool:
    content = read_bytes(folder / MANIFEST)
    if content is None:
        return False
    try:
        from_json(content, dict)
    except DamagedError:
        return False
    return True


def _link_parts(parts: Path, into: Path) -> None:
    """Link the finished parts of an earlier attempt; it may still write others beside them."""
    if not parts.is_dir():
        return
    into.mkdir(exist_ok=True)
    for path in parts.iterdir():
        target = into / path.name
        if is_finished_part(path.name) and path.is_file() and not target.exists():
            with suppress(FileNotFoundError):
                copy_file(path, target, links=True)

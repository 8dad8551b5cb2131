"""Stage folders: where the outcome of every stage lies, whole or absent.

::

    <root>/<kind>/<key>/                         the outcome; manifest.json says that it is whole
    <root>/attempts/<kind>-<key>/lease.*         who computes it now (`workers.lease`)
    <root>/attempts/<kind>-<key>/<attempt id>/   one execution under way or given up
        attempt.json     who, where, since when
        progress.json    last epoch reported
        checkpoint.pt    where the next attempt goes on
        checkpoint.parts/  finished parts of a stage, files that never change once they are there
        outcome.json     why it ended without a result (failed, stopped, preempted, lost)

An attempt holds the stage's lease and writes into its own folder only. It ends by writing the
manifest there and renaming the folder into place; an attempt whose lease was taken over does not
publish, and a rename never overwrites. A folder without a manifest never happened.
"""

import contextlib
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from iac_core.data.prepare import PARTS
from workers.lease import TIME_TO_LIVE_S, Holder, Lease, LeaseLostError, holder

CHECKPOINT = "checkpoint.pt"
_MANIFEST = "manifest.json"
_ATTEMPT = "attempt.json"
_OUTCOME = "outcome.json"
_PROGRESS = "progress.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """What the manifest of a finished stage says.

    Attributes:
        kind: Kind of stage.
        key: Its key.
        settings: Everything the key is made of.
        outcome: Small facts for the tables: numbers, strings, lists of them.
        provenance: Host, device, versions, commit.
        attempts: Every execution, oldest first: ``attempt_id``, ``start``, ``end``, ``host``,
            ``pid``, ``device``, ``n_micro_batches``, ``epoch`` (last reported), ``outcome``
            (``lost``, ``stopped``, ``preempted``, ``failed`` or ``done``).
    """

    kind: str
    key: str
    settings: Mapping[str, Any]
    outcome: Mapping[str, Any]
    provenance: Mapping[str, Any]
    attempts: tuple[Mapping[str, Any], ...] = field(default=())


class StageStore:
    """The folder of all stages.

    Args:
        root: A folder that every worker and the driver see under this path.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, kind: str, key: str) -> Path:
        """Return where the outcome of a stage lies once it is whole."""
        return self.root / kind / key

    def keys(self, kind: str) -> frozenset[str]:
        """Return the keys of the stages of a kind that may be whole (`record` says it)."""
        try:
            return frozenset(os.listdir(self.root / kind))
        except FileNotFoundError:
            return frozenset()

    def record(self, kind: str, key: str) -> StageRecord | None:
        """Return the manifest of a stage, or None if it never happened."""
        raw = _read_json(self.folder(kind, key) / _MANIFEST)
        if raw is None:
            return None
        raw["attempts"] = tuple(raw["attempts"])
        return StageRecord(**raw)

    def begin(
        self,
        kind: str,
        key: str,
        *,
        device: str,
        time_to_live_s: float = TIME_TO_LIVE_S,
        dead_number: int = 0,
        submission: str = "",
        n_micro_batches: int = 1,
    ) -> "Attempt | Holder":
        """Open a new attempt, with the newest checkpoint of earlier attempts in its folder.

        Args:
            kind: Kind of stage.
            key: Its key.
            device: Kind of device it computes on.
            time_to_live_s: Of the lease.
            dead_number: As for `workers.lease.Lease.take`.
            submission: Name of the order that the attempt fulfils.
            n_micro_batches: Parts that its batches are to be cut into; at least as many as in
                earlier attempts, whose checkpoint it goes on from.

        Returns:
            The attempt, or who else computes the stage now.
        """
        lease = Lease.take(
            self.lease_folder(kind, key),
            time_to_live_s=time_to_live_s,
            dead_number=dead_number,
        )
        if isinstance(lease, Holder):
            return lease
        before = [row.get("n_micro_batches", 1) for row in self.attempts(kind, key)]
        earlier = self._attempt_folders(kind, key)
        identity = f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}"
        folder = self._attempts(kind, key) / identity
        folder.mkdir(parents=True)
        description = {
            "attempt_id": identity,
            "start": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": device,
            "submission": submission,
            "n_micro_batches": max([n_micro_batches, *before]),
        }
        write_json(folder / _ATTEMPT, description)
        checkpoints = [path / CHECKPOINT for path in earlier if (path / CHECKPOINT).exists()]
        if checkpoints:
            newest = max(checkpoints, key=lambda path: path.stat().st_mtime_ns)
            shutil.copyfile(newest, folder / CHECKPOINT)
        for path in earlier:
            _take_over(path / PARTS, folder / PARTS)
        return Attempt(
            store=self, kind=kind, key=key, folder=folder, description=description, lease=lease
        )

    def publish_finished(self, kind: str, key: str) -> StageRecord | None:
        """Put an attempt into place that ended between its manifest and its rename, if any.

        For the holder of the lease.
        """
        for folder in self._attempt_folders(kind, key):
            if (folder / _MANIFEST).exists():
                _publish(folder, self.folder(kind, key))
                break
        return self.record(kind, key)

    def lease_folder(self, kind: str, key: str) -> Path:
        """Return where the leases of a stage lie."""
        return self._attempts(kind, key)

    def attempts(self, kind: str, key: str) -> list[dict[str, Any]]:
        """Return the attempts of a stage that is not whole, oldest first.

        An attempt without an outcome counts as ``lost``: it died, or it is still running.
        """
        found = []
        for folder in self._attempt_folders(kind, key):
            description = _read_json(folder / _ATTEMPT)
            if description is not None:
                ended = _read_json(folder / _OUTCOME) or {"outcome": "lost", "end": None}
                epoch = (_read_json(folder / _PROGRESS) or {}).get("epoch", 0)
                found.append({**description, "epoch": epoch, **ended})
        return found

    def ended_attempts(self, kind: str, key: str) -> list[dict[str, Any]]:
        """Return the attempts without the last one if that may still be running."""
        found = self.attempts(kind, key)
        is_open = bool(found) and found[-1]["outcome"] == "lost" and "kind" not in found[-1]
        if is_open and not holder(self.lease_folder(kind, key)).is_known_dead:
            found.pop()
        return found

    def attempt_of(self, kind: str, key: str, submission: str) -> dict[str, Any] | None:
        """Return the attempt that fulfils an order, or None if none was begun."""
        rows = self.attempts(kind, key)
        return next((row for row in rows if row.get("submission") == submission), None)

    def note_death(self, kind: str, key: str, attempt_id: str, *, cause: str, error: str) -> None:
        """Say how an attempt ended whose process cannot say it any more.

        Args:
            kind: Kind of stage.
            key: Its key.
            attempt_id: The attempt; one that has an outcome keeps it.
            cause: Kind of failure.
            error: What is known of it.
        """
        path = self._attempts(kind, key) / attempt_id / _OUTCOME
        if path.parent.is_dir() and not path.exists():
            with contextlib.suppress(OSError):  # a full disk, or another has just finished it
                write_json(path, {"outcome": "lost", "end": None, "kind": cause, "error": error})

    def progress(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return what the newest attempt of a stage last reported."""
        folders = self._attempt_folders(kind, key)
        return _read_json(folders[-1] / _PROGRESS) if folders else None

    def begun(self) -> frozenset[tuple[str, str]]:
        """Return ``(kind, key)`` of the stages that are not whole and that somebody has begun."""
        try:
            names = os.listdir(self.root / "attempts")
        except FileNotFoundError:
            return frozenset()
        found = (name.partition("-") for name in names)
        return frozenset((kind, key) for kind, _, key in found)

    def is_under_way(self, kind: str, key: str) -> bool:
        """Return whether an attempt has no outcome yet: it is running, or it died."""
        return any(not (folder / _OUTCOME).exists() for folder in self._attempt_folders(kind, key))

    def _attempts(self, kind: str, key: str) -> Path:
        return self.root / "attempts" / f"{kind}-{key}"

    def _attempt_folders(self, kind: str, key: str) -> list[Path]:
        folder = self._attempts(kind, key)
        try:
            return sorted(path for path in folder.iterdir() if path.is_dir())
        except FileNotFoundError:
            return []


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of a stage; see the module docstring."""

    store: StageStore
    kind: str
    key: str
    folder: Path
    description: Mapping[str, Any]
    lease: Lease

    def finish(
        self,
        *,
        settings: Mapping[str, Any],
        outcome: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> StageRecord:
        """Make the outcome whole.

        Returns:
            The record that holds for this stage from now on.

        Raises:
            LeaseLostError: If another attempt has taken over; nothing was published.
        """
        self.lease.check()
        identity = self.description["attempt_id"]
        others = self.store.attempts(self.kind, self.key)
        earlier = [row for row in others if row["attempt_id"] < identity]
        epoch = (_read_json(self.folder / _PROGRESS) or {}).get("epoch", 0)
        own = {**self.description, "epoch": epoch, "outcome": "done", "end": time.time()}
        record = StageRecord(
            kind=self.kind,
            key=self.key,
            settings=settings,
            outcome=outcome,
            provenance=provenance,
            attempts=tuple(
                {"attempt": number, **row} for number, row in enumerate([*earlier, own], start=1)
            ),
        )
        write_json(self.folder / _MANIFEST, asdict(record))
        self.lease.check()
        _publish(self.folder, self.store.folder(self.kind, self.key))
        self.clear()
        published = self.store.record(self.kind, self.key)
        assert published is not None
        return published

    def clear(self) -> None:
        """Remove what attempts left of a stage that is whole."""
        self.lease.stop()
        shutil.rmtree(self.folder.parent, ignore_errors=True)

    @property
    def n_micro_batches(self) -> int:
        """Parts that batches are cut into."""
        return int(self.description["n_micro_batches"])

    def give_up(self, outcome: str, **details: object) -> None:
        """Note why this attempt ends without a result: ``failed`` …; end its lease.

        An attempt that was superseded leaves no note: its folder is another's to clear.
        """
        try:
            self.lease.check()
            write_json(self.folder / _OUTCOME, {"outcome": outcome, "end": time.time(), **details})
        except (LeaseLostError, OSError):
            self.lease.stop()
            return
        self.lease.give_back()

    def report(self, values: Mapping[str, Any]) -> None:
        """Leave the latest progress for whoever looks."""
        write_json(self.folder / _PROGRESS, dict(values), durable=False)


def _publish(folder: Path, target: Path) -> None:
    """Rename a whole attempt into place and drop what only attempts need; never overwrites."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError:
        if not (target / _MANIFEST).exists():
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return
    for name in (CHECKPOINT, _PROGRESS, _ATTEMPT, _OUTCOME):
        (target / name).unlink(missing_ok=True)
    shutil.rmtree(target / PARTS, ignore_errors=True)


def _take_over(parts: Path, into: Path) -> None:
    """Link the finished parts of an earlier attempt; it may still write others beside them."""
    if not parts.is_dir():
        return
    into.mkdir(exist_ok=True)
    for path in parts.iterdir():
        target = into / path.name
        if ".tmp" in path.suffixes or target.exists():
            continue
        try:
            os.link(path, target)
        except FileNotFoundError:
            continue
        except OSError:  # a file system without links
            shutil.copyfile(path, target.with_suffix(".tmp"))
            target.with_suffix(".tmp").replace(target)


def write_json(path: Path, value: object, *, durable: bool = True) -> None:
    """Write JSON beside a path and move it into place; NaN is written as ``NaN``."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    temporary.replace(path)


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the content, or None if there is no such file (any more)."""
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return value

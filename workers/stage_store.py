"""The store of stages: where the outcome of every stage lies, whole or absent.

In a folder (`workers.places.LocalPlace`)::

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

In a bucket (`workers.object_place.ObjectPlace`) the same names, but nothing can be renamed::

    <root>/<kind>/<key>/manifest.json            created once; its last attempt is the winner
    <root>/attempts/<kind>-<key>/<attempt id>/   as above; the winner's files stay here

An attempt works in a folder of its host. Its checkpoint and parts are uploaded when it reports
progress, so that another host can go on from them; at its end its files, then its manifest beside
them, then the manifest of the stage, which only one can create. Who builds on the stage copies the
files into a folder of the host once.
"""

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workers.lease import TIME_TO_LIVE_S, Holder, Lease, LeaseLostError, holder
from workers.places import (
    ATTEMPT,
    CHECKPOINT,
    MANIFEST,
    OUTCOME,
    PROGRESS,
    Place,
    attempts_of,
    open_place,
    write_file,
)
from workers.tasks import StageTask

__all__ = ["CHECKPOINT", "Attempt", "StageRecord", "StageStore", "write_json"]


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
    """All stages.

    Args:
        root: A folder that every worker and the driver see under this path, or ``s3://…``.

    Raises:
        ConfigError: If the root is neither, or s3fs is missing.
    """

    def __init__(self, root: Path | str) -> None:
        self.place = open_place(root)
        self.root = self.place.root

    def folder(self, kind: str, key: str) -> Path:
        """Return a folder of this host with the files of a stage that is whole; only read it.

        Raises:
            DataError: If an object store has no such stage.
        """
        return self.place.fetch(f"{kind}/{key}")

    def read(self, kind: str, key: str, name: str) -> bytes | None:
        """Return one file of a finished stage, or None if there is none."""
        folder = self.place.outcome(f"{kind}/{key}")
        return None if folder is None else self.place.read(f"{folder}/{name}")

    def keys(self, kind: str) -> frozenset[str]:
        """Return the keys of the stages of a kind that may be whole (`record` says it)."""
        return self.place.names(kind)

    def record(self, kind: str, key: str) -> StageRecord | None:
        """Return the manifest of a stage, or None if it never happened."""
        raw = self.place.read(f"{kind}/{key}/{MANIFEST}")
        return None if raw is None else _parsed(raw)

    def records(self, kind: str, keys: Iterable[str]) -> list[StageRecord]:
        """Return the manifests of many stages, without those that never happened."""
        found = self.place.read_all(f"{kind}/{key}/{MANIFEST}" for key in keys)
        return [_parsed(raw) for raw in found.values()]

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
            self.lease_place(kind, key),
            time_to_live_s=time_to_live_s,
            dead_number=dead_number,
        )
        if isinstance(lease, Holder):
            return lease
        before = [row.get("n_micro_batches", 1) for row in self.attempts(kind, key)]
        earlier = self._attempts(kind, key)
        identity = f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}"
        name = f"{attempts_of(f'{kind}/{key}')}/{identity}"
        description = {
            "attempt_id": identity,
            "start": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": device,
            "submission": submission,
            "n_micro_batches": max([n_micro_batches, *before]),
        }
        try:
            folder = self.place.workbench(name)
            self._write(f"{name}/{ATTEMPT}", description)
            self.place.take_over(earlier, name)
        except BaseException:
            lease.give_back()
            raise
        return Attempt(
            store=self,
            kind=kind,
            key=key,
            name=name,
            folder=folder,
            description=description,
            lease=lease,
        )

    def publish_finished(self, kind: str, key: str) -> StageRecord | None:
        """Put an attempt into place that ended between its manifest and that of the stage, if any.

        For the holder of the lease.
        """
        for name in self._attempts(kind, key):
            if self.place.read(f"{name}/{MANIFEST}") is not None:
                self.place.publish(name, f"{kind}/{key}")
                break
        return self.record(kind, key)

    def lease_place(self, kind: str, key: str) -> Place:
        """Return where the leases of a stage lie."""
        return self.place.at(attempts_of(f"{kind}/{key}"))

    def begun(self, tasks: Iterable[StageTask]) -> list[StageTask]:
        """Return those stages that were begun at some time; of whole ones some or none."""
        names = self.place.names("attempts")
        return [task for task in tasks if f"{task.kind}-{task.key}" in names]

    def request_stop(self, stop_file: Path) -> None:
        """Let the workers of a driver see its stop file where they do not share its disk."""
        if self.place.is_remote:
            self.place.create(_stop_note(stop_file), b"stop")

    def withdraw_stop(self, stop_file: Path) -> None:
        """Undo `request_stop`."""
        if self.place.is_remote:
            self.place.remove(_stop_note(stop_file).rpartition("/")[0])

    def is_stop_requested(self, stop_file: Path) -> bool:
        """Return whether `request_stop` was called with the same stop file."""
        return self.place.is_remote and self.place.read(_stop_note(stop_file)) is not None

    def attempts(self, kind: str, key: str) -> list[dict[str, Any]]:
        """Return the attempts of a stage that is not whole, oldest first.

        An attempt without an outcome counts as ``lost``: it died, or it is still running.
        """
        found = []
        for name in self._attempts(kind, key):
            description = self._read(f"{name}/{ATTEMPT}")
            if description is not None:
                ended = self._read(f"{name}/{OUTCOME}") or {"outcome": "lost", "end": None}
                epoch = (self._read(f"{name}/{PROGRESS}") or {}).get("epoch", 0)
                found.append({**description, "epoch": epoch, **ended})
        return found

    def ended_attempts(self, kind: str, key: str) -> list[dict[str, Any]]:
        """Return the attempts without the last one if that may still be running."""
        found = self.attempts(kind, key)
        is_open = bool(found) and found[-1]["outcome"] == "lost" and "kind" not in found[-1]
        if is_open and not holder(self.lease_place(kind, key)).is_known_dead:
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
        name = f"{attempts_of(f'{kind}/{key}')}/{attempt_id}"
        note = {"outcome": "lost", "end": None, "kind": cause, "error": error}
        with contextlib.suppress(OSError):  # a full disk, or another has just finished it
            names = self.place.names(name)
            if ATTEMPT in names and OUTCOME not in names:
                self._write(f"{name}/{OUTCOME}", note)

    def progress(self, kind: str, key: str) -> dict[str, Any] | None:
        """Return what the newest attempt of a stage last reported."""
        names = self._attempts(kind, key)
        return self._read(f"{names[-1]}/{PROGRESS}") if names else None

    def is_under_way(self, kind: str, key: str) -> bool:
        """Return whether an attempt has no outcome yet: it is running, or it died."""
        attempts = (self.place.names(name) for name in self._attempts(kind, key))
        return any(ATTEMPT in names and OUTCOME not in names for names in attempts)

    def _attempts(self, kind: str, key: str) -> list[str]:
        """Names of the attempts of a stage, oldest first."""
        folder = attempts_of(f"{kind}/{key}")
        names = sorted(self.place.names(folder))
        return [f"{folder}/{name}" for name in names if not name.startswith("lease.")]

    def _read(self, name: str) -> dict[str, Any] | None:
        raw = self.place.read(name)
        return None if raw is None else dict(json.loads(raw))

    def _write(self, name: str, value: object, *, durable: bool = True) -> None:
        self.place.write(name, _json(value), durable=durable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of a stage; see the module docstring.

    Attributes:
        store: Where it lies.
        kind: Kind of stage.
        key: Its key.
        name: Its name in the store.
        folder: The folder on this host that it writes into.
        description: Who, where, since when.
        lease: That of the stage.
    """

    store: StageStore
    kind: str
    key: str
    name: str
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
        epoch = (self.store._read(f"{self.name}/{PROGRESS}") or {}).get("epoch", 0)
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
        place = self.store.place
        place.send(self.name)
        place.write(f"{self.name}/{MANIFEST}", _json(asdict(record)))
        self.lease.check()
        place.publish(self.name, f"{self.kind}/{self.key}")
        self.clear()
        published = self.store.record(self.kind, self.key)
        assert published is not None
        return published

    def clear(self) -> None:
        """Remove what attempts left of a stage that is whole."""
        self.lease.stop()
        self.store.place.tidy(f"{self.kind}/{self.key}")

    @property
    def n_micro_batches(self) -> int:
        """Parts that batches are cut into."""
        return int(self.description["n_micro_batches"])

    def abandon(self) -> None:
        """End an attempt that was superseded; what it left goes once the stage is whole."""
        self.lease.stop()
        with suppress(OSError):
            if self.store.record(self.kind, self.key) is not None:
                self.clear()

    def give_up(self, outcome: str, **details: object) -> None:
        """Note why this attempt ends without a result: ``failed`` …; end its lease.

        An attempt that was superseded leaves no note: its folder is another's to clear.
        """
        place = self.store.place
        note = {"outcome": outcome, "end": time.time(), **details}
        try:
            self.lease.check()
            place.keep(self.name)
            place.write(f"{self.name}/{OUTCOME}", _json(note))
        except LeaseLostError:
            self.abandon()
        except OSError:
            self.lease.stop()
        else:
            self.lease.give_back()

    def report(self, values: Mapping[str, Any]) -> None:
        """Leave the latest progress for whoever looks, and the checkpoint for who comes next."""
        place = self.store.place
        place.keep(self.name)
        place.write(f"{self.name}/{PROGRESS}", _json(dict(values)), durable=False)


def write_json(path: Path, value: object) -> None:
    """Write JSON beside a path and move it into place; NaN is written as ``NaN``."""
    write_file(path, _json(value))


def _stop_note(stop_file: Path) -> str:
    return f"stops/{stop_file.parent.name}/{stop_file.name}/note"


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1).encode()


def _parsed(raw: bytes) -> StageRecord:
    content = json.loads(raw)
    content["attempts"] = tuple(content["attempts"])
    return StageRecord(**content)

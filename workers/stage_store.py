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
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files.checksums import checksum_of, checksums_of, damage_of, difference
from files.encoding import to_json
from files.reading import value_or_none, warn_damaged
from files.writing import sync_file
from workers.lease import TIME_TO_LIVE_S, Holder, Lease, LeaseLostError, holder
from workers.places import (
    ATTEMPT,
    CHECKPOINT,
    MANIFEST,
    OUTCOME,
    PROGRESS,
    Place,
    attempts_of,
    is_outcome,
    open_place,
)
from workers.stage_record import DamagedStageError, StageRecord
from workers.store_version import check_version
from workers.task import StageTask

__all__ = ["CHECKPOINT", "Attempt", "DamagedStageError", "StageRecord", "StageStore"]

logger = logging.getLogger(__name__)

_OF_A_DESCRIPTION = ("attempt_id", "start", "host", "pid", "device")

_MOST_KNOWN_FILES = 1000
_checked: set[tuple[str, str, str]] = set()
"""Root, stage and attempt of the outcomes that this process has found whole."""


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
        self._known_files: dict[tuple[str, str], Mapping[str, tuple[int, str]] | None] = {}

    def check(self, *, writes: bool) -> None:
        """Look whether the store can be used, and is of no later version than this project.

        Args:
            writes: Whether it is to be written to.

        Raises:
            ConfigError: If it cannot, or is.
        """
        self.place.check(writes=writes)
        check_version(self.place, writes=writes)

    def folder(self, kind: str, key: str) -> Path:
        """Return a folder of this host with the files of a stage that is whole; only read it.

        The first call of a process compares every file with its checksum.

        Raises:
            DamagedStageError: If a file is not as it was written.
            DataError: If an object store has no such stage.
        """
        stage = f"{kind}/{key}"
        folder = self.place.fetch(stage)
        record = self.record(kind, key)
        if record is None or record.files is None:
            return folder
        mark = (str(self.root), stage, record.attempt_id)
        if mark in _checked:
            return folder
        wrong = damage_of(folder, record.files)
        if wrong and self.place.is_remote:
            warn_damaged(str(folder), wrong, way_out="downloaded again")
            self.place.drop_copy(stage)
            folder = self.place.fetch(stage)
            wrong = damage_of(folder, record.files)
        if wrong:
            raise self.damaged(kind, key, wrong)
        _checked.add(mark)
        return folder

    def read(self, kind: str, key: str, name: str) -> bytes | None:
        """Return one file of a finished stage, or None if there is none.

        Raises:
            DamagedStageError: If it is not as it was written.
        """
        folder = self.place.outcome(f"{kind}/{key}")
        if folder is None:
            return None
        content = self.place.read(f"{folder}/{name}")
        wrong = self._difference(kind, key, name, content)
        if wrong:
            # Another process may just have computed the stage again.
            self._known_files.pop((kind, key), None)
            content = self.place.read(f"{folder}/{name}")
            wrong = self._difference(kind, key, name, content)
        if wrong:
            raise self.damaged(kind, key, f"{name} {wrong}")
        return content

    def _difference(self, kind: str, key: str, name: str, content: bytes | None) -> str:
        """In what a file differs from what its manifest says; empty if it does not."""
        place = (kind, key)
        if place not in self._known_files:
            self.record(kind, key)
        expected = (self._known_files.get(place) or {}).get(name)
        if expected is None:
            return ""
        return "is missing" if content is None else difference(checksum_of(content), expected)

    def damaged(self, kind: str, key: str, reason: str) -> DamagedStageError:
        """Return the error of a stage with a damaged file.

        Args:
            kind: Kind of stage.
            key: Its key.
            reason: Which file, and what is wrong with it.
        """
        record = self.record(kind, key)
        attempt_id = "" if record is None else record.attempt_id
        return DamagedStageError(kind, key, f"{self.root}/{kind}/{key}", reason, attempt_id)

    def damage(self, kind: str, key: str) -> str | None:
        """Return what is wrong with the files of a stage that has its manifest; None if nothing.

        Nothing that was found before counts.
        """
        record = self.record(kind, key)
        if record is None:
            return "manifest.json is damaged or missing"
        _checked.discard((str(self.root), f"{kind}/{key}", record.attempt_id))
        self.place.drop_copy(f"{kind}/{key}")
        try:
            self.folder(kind, key)
        except DamagedStageError as error:
            return error.reason
        return None

    def set_aside(self, error: DamagedStageError) -> bool:
        """Make a damaged stage one that never happened, unless another process works on it.

        Returns:
            Whether the stage is gone, or another outcome has taken its place by now.
        """
        kind, key = error.kind, error.key
        lease = Lease.take(self.lease_place(kind, key), time_to_live_s=TIME_TO_LIVE_S)
        if isinstance(lease, Holder):
            return False
        with lease:
            record = self.record(kind, key)
            is_another = record is not None and record.attempt_id != error.attempt_id
            if is_another or (record is not None and record.files and not self.damage(kind, key)):
                return True
            self._make_way(kind, key, error.reason)
        return True

    def _make_way(self, kind: str, key: str, reason: str) -> None:
        """Move what lies in the place of a stage out of the way, for the holder of its lease."""
        where = self.place.set_aside(f"{kind}/{key}")
        self._known_files.pop((kind, key), None)
        if where is not None:
            way_out = f"moved to {self.root}/{where}; the stage is computed again"
            warn_damaged(f"{self.root}/{kind}/{key}", f"holds a damaged stage: {reason}",
                         way_out=way_out)  # fmt: skip

    def keys(self, kind: str) -> frozenset[str]:
        """Return the keys of the stages of a kind that may be whole (`record` says it)."""
        return self.place.names(kind)

    def record(self, kind: str, key: str) -> StageRecord | None:
        """Return the manifest of a stage, or None if it never happened or is damaged."""
        raw = self.place.read(f"{kind}/{key}/{MANIFEST}")
        return None if raw is None else self._parsed(kind, key, raw)

    def records(self, kind: str, keys: Iterable[str]) -> list[StageRecord]:
        """Return the manifests of many stages, without those that never happened."""
        found = self.place.read_all(f"{kind}/{key}/{MANIFEST}" for key in keys)
        records = (self._parsed(kind, name.split("/")[1], raw) for name, raw in found.items())
        return [record for record in records if record is not None]

    def _parsed(self, kind: str, key: str, raw: bytes) -> StageRecord | None:
        name = f"{self.root}/{kind}/{key}/{MANIFEST}"
        record = StageRecord.from_bytes(raw, kind=kind, key=key, name=name)
        if record is not None:
            if len(self._known_files) >= _MOST_KNOWN_FILES:
                self._known_files.clear()
            self._known_files[(kind, key)] = record.files
        return record

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
        is_whole: Callable[[Path], bool] = Path.is_file,
    ) -> "Attempt | Holder":
        """Open a new attempt, with the newest checkpoint of earlier attempts in its folder.

        What lies in the place of a stage that never happened is moved out of the way.

        Args:
            kind: Kind of stage.
            key: Its key.
            device: Kind of device it computes on.
            time_to_live_s: Of the lease.
            dead_number: As for `workers.lease.Lease.take`.
            submission: Name of the order that the attempt fulfils.
            n_micro_batches: Parts that its batches are to be cut into; at least as many as in
                earlier attempts, whose checkpoint it goes on from.
            is_whole: Tells a damaged checkpoint: the newest that is whole is taken over.

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
        try:
            return self._begun(
                lease,
                kind,
                key,
                {"device": device, "submission": submission, "n_micro_batches": n_micro_batches},
                is_whole,
            )
        except BaseException:
            lease.give_back()
            raise

    def _begun(
        self,
        lease: Lease,
        kind: str,
        key: str,
        facts: Mapping[str, Any],
        is_whole: Callable[[Path], bool],
    ) -> "Attempt":
        if self.record(kind, key) is None:
            self._make_way(kind, key, "it has no whole manifest")
        before = [row.get("n_micro_batches", 1) for row in self.attempts(kind, key)]
        earlier = self._attempts(kind, key)
        identity = f"{time.time_ns():x}-{uuid.uuid4().hex[:8]}"
        name = f"{attempts_of(f'{kind}/{key}')}/{identity}"
        description = {
            "attempt_id": identity,
            "start": time.time(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            **facts,
            "n_micro_batches": max([facts["n_micro_batches"], *before]),
        }
        folder = self.place.workbench(name)
        self._write(f"{name}/{ATTEMPT}", description)
        self.place.take_over(earlier, name, is_whole)
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
            raw = self.place.read(f"{name}/{MANIFEST}")
            shown = f"{self.root}/{name}/{MANIFEST}"
            if raw is not None and StageRecord.from_bytes(raw, kind=kind, key=key, name=shown):
                self.place.publish(name, f"{kind}/{key}")
                break
        return self.record(kind, key)

    def clean(self) -> int:
        """Remove what killed processes left: temporary files, and attempts of whole stages.

        Only what certainly nobody uses; a bucket is not looked at.

        Returns:
            How many stages had such attempts.
        """
        left, n_stages = self.place.clean(), 0
        for name in () if self.place.is_remote else self.place.names("attempts"):
            kind, _, key = name.partition("-")
            if not key or self.record(kind, key) is None:
                continue
            leases = self.lease_place(kind, key)
            dead_number = holder(leases).number if name in left else 0
            lease = Lease.take(leases, time_to_live_s=TIME_TO_LIVE_S, dead_number=dead_number)
            if isinstance(lease, Lease):
                lease.stop()
                self.place.tidy(f"{kind}/{key}")
                n_stages += 1
        return n_stages

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
            description = self._read(f"{name}/{ATTEMPT}", _OF_A_DESCRIPTION)
            if description is not None:
                ended = self._read(f"{name}/{OUTCOME}", ("outcome", "end"))
                ended = ended or {"outcome": "lost", "end": None}
                epoch = (self._read(f"{name}/{PROGRESS}", ("epoch",)) or {}).get("epoch", 0)
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
        return self._read(f"{names[-1]}/{PROGRESS}", ("epoch",)) if names else None

    def is_under_way(self, kind: str, key: str) -> bool:
        """Return whether an attempt has no outcome yet: it is running, or it died."""
        attempts = (self.place.names(name) for name in self._attempts(kind, key))
        return any(ATTEMPT in names and OUTCOME not in names for names in attempts)

    def _attempts(self, kind: str, key: str) -> list[str]:
        """Names of the attempts of a stage, oldest first."""
        folder = attempts_of(f"{kind}/{key}")
        names = sorted(self.place.names(folder))
        return [f"{folder}/{name}" for name in names if not name.startswith(("lease.", "."))]

    def _read(self, name: str, members: Iterable[str]) -> dict[str, Any] | None:
        """A note of an attempt; None if it is absent, or damaged: then a member may be missing."""
        raw = self.place.read(name)
        found = None if raw is None else value_or_none(raw, dict, name=f"{self.root}/{name}")
        if found is not None and not found.keys() >= set(members):
            warn_damaged(f"{self.root}/{name}", f"must have {', '.join(members)}")
            return None
        return found

    def _write(self, name: str, value: object, *, durable: bool = True) -> None:
        self.place.write(name, to_json(value, takes_nan=True, is_indented=True), durable=durable)


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
        progress = self.store._read(f"{self.name}/{PROGRESS}", ("epoch",)) or {}
        epoch = progress.get("epoch", 0)
        sums = checksums_of(self.folder, is_outcome)
        for name in sums:
            sync_file(self.folder / name)
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
            files=sums,
        )
        place = self.store.place
        place.send(self.name)
        place.write(f"{self.name}/{MANIFEST}", record.to_bytes())
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
        note = {"outcome": outcome, "end": time.time(), **details}
        try:
            self.lease.check()
            self.store.place.keep(self.name)
            self.store._write(f"{self.name}/{OUTCOME}", note)
        except LeaseLostError:
            self.abandon()
            return
        except OSError as error:  # a full disk: the attempt counts as lost, and ends all the same
            logger.warning("%s: no note of its end could be left: %s", self.name, error)
        self.lease.give_back()

    def report(self, values: Mapping[str, Any]) -> None:
        """Leave the latest progress for whoever looks, and the checkpoint for who comes next."""
        self.store.place.keep(self.name)
        self.store._write(f"{self.name}/{PROGRESS}", dict(values), durable=False)


def _stop_note(stop_file: Path) -> str:
    return f"stops/{stop_file.parent.name}/{stop_file.name}/note"

"""Who works on something: a lease that its holder renews, that runs out, and that fences.

::

    lease.000001.json    taken by creating it: only one process can; who holds it
    lease.000001.beat    a number that the holder raises while it lives
    lease.000001.over    the holder gave it back
    lease.000002.json    the next one, taken after the first was over or had run out

The lease with the highest number counts. Whoever takes over creates the next number, so of two
that try one wins, and the holder before it finds out that it was superseded whenever it looks: it
must then leave the result alone. Nobody compares clocks of two machines: a holder counts as dead
once its number has stood still for the time to live, by the clock of whoever watches. A process of
this machine is looked up instead.
"""

import json
import os
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from iac_core.errors import IacError

TIME_TO_LIVE_S = 120.0
"""Longer than a network file system may show an old state (a minute by default)."""
_BEATS_IN_A_LIFE = 6
_NAME = re.compile(r"lease\.(\d{6})\.json")


class LeaseLostError(IacError):
    """Another process has taken over; this one must leave the result alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """What is known of the newest lease.

    Attributes:
        number: Its number; 0 if there never was one.
        identity: Host, process and start of its holder.
        beat: Last number it wrote.
        is_over: Whether it was given back.
    """

    number: int = 0
    identity: dict[str, Any] | None = None
    beat: int = 0
    is_over: bool = True

    @property
    def is_known_dead(self) -> bool:
        """Whether it was given back, or its process ran on this machine and is gone."""
        return self.is_over or (self.identity is not None and _is_gone(self.identity))


class Lease:
    """A lease that this process holds; a thread renews it until it is given back or lost.

    Args:
        folder: Where it lies.
        number: Its number.
        time_to_live_s: After so long without a beat others count it as dead.
    """

    def __init__(self, folder: Path, number: int, time_to_live_s: float) -> None:
        self.number = number
        self._folder, self._time_to_live_s = folder, time_to_live_s
        self._ended, self._lost = threading.Event(), threading.Event()
        self._beat = 0
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls, folder: Path, *, time_to_live_s: float, dead_number: int = 0
    ) -> "Lease | Holder":
        """Take the lease of a folder, or return who holds it.

        Args:
            folder: Created if it is missing.
            time_to_live_s: Of the lease.
            dead_number: A lease of this number or lower has run out, as the caller has watched
                (`LeaseWatch`).
        """
        folder.mkdir(parents=True, exist_ok=True)
        found = holder(folder)
        if not found.is_known_dead and found.number > dead_number:
            return found
        number = found.number + 1
        if not _create(_path(folder, number, "json"), json.dumps(_own_identity())):
            return holder(folder)
        return cls(folder, number, time_to_live_s)

    @property
    def is_lost(self) -> bool:
        """Whether the last beat found the lease superseded, or beats have failed for too long."""
        return self._lost.is_set()

    def check(self) -> None:
        """Look now whether the lease still counts.

        Raises:
            LeaseLostError: If it does not.
        """
        if self._lost.is_set() or self._is_superseded():
            self._lost.set()
            raise LeaseLostError("another process has taken this over, got a lease that ran out")

    def stop(self) -> None:
        """Beat no more."""
        self._ended.set()
        self._thread.join()

    def give_back(self) -> None:
        """End it, so that the next one need not wait; a lost one is left alone."""
        self.stop()
        try:
            _path(self._folder, self.number, "over").touch()
        except OSError:
            return  # the folder is gone, or full: it runs out by itself

    def __enter__(self) -> "Lease":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.give_back()

    def _renew(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(self._time_to_live_s / _BEATS_IN_A_LIFE):
            try:
                if self._is_superseded():
                    break
                self._write_beat()
                last = time.monotonic()
            except OSError:
                if time.monotonic() - last > self._time_to_live_s:
                    break
        else:
            return
        self._lost.set()

    def _write_beat(self) -> None:
        path = _path(self._folder, self.number, "beat")
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(str(self._beat + 1), encoding="utf-8")
        temporary.replace(path)
        self._beat += 1

    def _is_superseded(self) -> bool:
        return _newest(self._folder) != self.number


class LeaseWatch:
    """Watches the lease of a folder until it is free or has run out, by this machine's clock.

    Args:
        folder: Where it lies.
        time_to_live_s: Of the lease.
        clock: Seconds that only rise.
    """

    def __init__(
        self,
        folder: Path,
        time_to_live_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._time_to_live_s, self._clock = folder, time_to_live_s, clock
        self._seen, self._since = (-1, -1), clock()

    def dead_number(self) -> int | None:
        """Return the number of the newest lease if it is dead or over, else None."""
        found = holder(self._folder)
        return found.number if found.is_known_dead else self._silent_number(found)

    def silent_number(self) -> int | None:
        """Return the number of the newest lease if it has run out and nobody knows why."""
        found = holder(self._folder)
        return None if found.is_known_dead else self._silent_number(found)

    def _silent_number(self, found: Holder) -> int | None:
        now, state = self._clock(), (found.number, found.beat)
        if state != self._seen:
            self._seen, self._since = state, now
            return None
        return found.number if now - self._since > self._time_to_live_s else None


def holder(folder: Path) -> Holder:
    """Return what is known of the newest lease of a folder."""
    number = _newest(folder)
    if number == 0:
        return Holder()
    try:
        raw = _path(folder, number, "json").read_text(encoding="utf-8")
        identity: dict[str, Any] | None = json.loads(raw)
    except FileNotFoundError:
        return Holder()
    except ValueError:
        identity = None  # created this moment, on a file system without links
    try:
        beat = int(_path(folder, number, "beat").read_text(encoding="utf-8") or 0)
    except (FileNotFoundError, ValueError):
        beat = 0
    return Holder(
        number=number,
        identity=identity,
        beat=beat,
        is_over=_path(folder, number, "over").exists(),
    )


def _newest(folder: Path) -> int:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return 0
    return max((int(found[1]) for name in names if (found := _NAME.fullmatch(name))), default=0)


def _path(folder: Path, number: int, suffix: str) -> Path:
    return folder / f"lease.{number:06d}.{suffix}"


def _create(path: Path, text: str) -> bool:
    """Create a file with its content; False if it is there already."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.write_text(text, encoding="utf-8")
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _machine() -> str:
    """What two processes share only if each sees the other: boot and process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""  # another system than Linux: nobody is looked up


def _own_identity() -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": os.uname().nodename,
        "machine": _machine(),
        "pid": process.pid,
        "started": process.create_time(),
    }


def _is_gone(identity: dict[str, Any]) -> bool:
    """Whether a process of this machine has ended; False for one of another machine."""
    machine = _machine()
    if not machine or identity["machine"] != machine:
        return False
    try:
        process = psutil.Process(identity["pid"])
        is_same = abs(process.create_time() - identity["started"]) < 1.0
        return not is_same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True

"""Who works on something: a lease that its holder renews, that runs out, and that fences.

::

    lease.000001.json    taken by creating it: only one process can; who holds it
    lease.000001.beat    a number that the holder raises while it lives
    lease.000001.over    the holder gave it back (the first renamed, if the disk takes no file)
    lease.000002.json    the next one, taken after the first was over or had run out

They lie in a folder or, under the same names, in an object store.

The lease with the highest number counts. Whoever takes over creates the next number, so of two
that try one wins, and the holder before it finds out that it was superseded whenever it looks: it
must then leave the result alone. Nobody compares clocks of two machines: a holder counts as dead
once its number has stood still for the time to live, by the clock of whoever watches. A process of
this machine is looked up instead (`files.processes`), which no change of the wall clock disturbs.
"""

import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from files.encoding import DamagedError, from_json, to_json
from files.processes import ProcessIdentity, own_identity
from files.reading import warn_damaged
from iac_core.errors import IacError
from workers.places import LocalPlace, Place

TIME_TO_LIVE_S = 120.0
"""Longer than a network file system may show an old state (a minute by default)."""
_BEATS_IN_A_LIFE = 6
_NAME = re.compile(r"lease\.(\d{6})\.(?:json|over)")


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
        if self.is_over or self.identity is None:
            return self.is_over
        process = ProcessIdentity.from_json(self.identity)
        return process is not None and process.is_gone


class Lease:
    """A lease that this process holds; a thread renews it until it is given back or lost.

    Args:
        place: Where it lies.
        number: Its number.
        time_to_live_s: After so long without a beat others count it as dead.
    """

    def __init__(self, place: Place, number: int, time_to_live_s: float) -> None:
        self.number = number
        self._place, self._time_to_live_s = place, time_to_live_s
        self._ended, self._lost = threading.Event(), threading.Event()
        self._beat = 0
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(
        cls, place: Place | Path, *, time_to_live_s: float, dead_number: int = 0
    ) -> "Lease | Holder":
        """Take the lease of a folder, or return who holds it.

        Args:
            place: The folder, created if it is missing.
            time_to_live_s: Of the lease.
            dead_number: A lease of this number or lower has run out, as the caller has watched
                (`LeaseWatch`).
        """
        place = _as_place(place)
        found = holder(place)
        if not found.is_known_dead and found.number > dead_number:
            return found
        number = found.number + 1
        if not place.create(_name(number, "json"), to_json(_own_identity())):
            return holder(place)
        return cls(place, number, time_to_live_s)

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
        over = _name(self.number, "over")
        try:
            self._place.write(over, b"", durable=False)
        except OSError:
            if isinstance(self._place, LocalPlace):
                with suppress(OSError):  # the folder is gone: there is nothing to wait for
                    # A full disk takes no file, but another name for one.
                    (self._place.root / _name(self.number, "json")).rename(self._place.root / over)

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
        content = str(self._beat + 1).encode()
        self._place.write(_name(self.number, "beat"), content, durable=False)
        self._beat += 1

    def _is_superseded(self) -> bool:
        return _newest(self._place.names()) != self.number


class LeaseWatch:
    """Watches the lease of a folder until it is free or has run out, by this machine's clock.

    Args:
        place: Where it lies.
        time_to_live_s: Of the lease.
        clock: Seconds that only rise.
    """

    def __init__(
        self,
        place: Place | Path,
        time_to_live_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place, self._time_to_live_s, self._clock = _as_place(place), time_to_live_s, clock
        self._seen, self._since = (-1, -1), clock()

    def dead_number(self) -> int | None:
        """Return the number of the newest lease if it is dead or over, else None."""
        found = holder(self._place)
        return found.number if found.is_known_dead else self._silent_number(found)

    def silent_number(self) -> int | None:
        """Return the number of the newest lease if it has run out and nobody knows why."""
        found = holder(self._place)
        return None if found.is_known_dead else self._silent_number(found)

    def _silent_number(self, found: Holder) -> int | None:
        now, state = self._clock(), (found.number, found.beat)
        if state != self._seen:
            self._seen, self._since = state, now
            return None
        return found.number if now - self._since > self._time_to_live_s else None


def holder(place: Place | Path) -> Holder:
    """Return what is known of the newest lease of a folder."""
    place = _as_place(place)
    names = place.names()
    number = _newest(names)
    if not number:
        return Holder()
    raw = place.read(_name(number, "json"))
    if raw is None and _newest(place.names()) != number:
        return Holder()  # gone this moment, with the attempts of a stage that is whole
    try:
        identity = None if raw is None else from_json(raw, dict)
    except DamagedError as error:
        identity = None
        if raw:  # an empty one is created this moment, on a file system without links
            way_out = "left to run out"
            warn_damaged(f"{place.root}/{_name(number, 'json')}", str(error), way_out=way_out)
    is_over = _name(number, "over") in names
    beat = b"" if is_over else place.read(_name(number, "beat")) or b""
    return Holder(
        number=number,
        identity=identity,
        beat=int(beat) if beat.isdigit() else 0,
        is_over=is_over,
    )


def _newest(names: Iterable[str]) -> int:
    return max((int(found[1]) for name in names if (found := _NAME.fullmatch(name))), default=0)


def _name(number: int, suffix: str) -> str:
    return f"lease.{number:06d}.{suffix}"


def _as_place(place: Place | Path) -> Place:
    return LocalPlace(place) if isinstance(place, Path) else place


def _own_identity() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        **asdict(own_identity()),
        "token": uuid.uuid4().hex,
    }

"""The thread that writes finished jobs into MLflow beside a running sweep."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from orchestrator.tracking import FinishedJob, FinishedTrial, Tracker
from results.errors import TrackingAwayError, TrackingError
from results.tracking.server import PATIENCE_S
from workers.lease import TIME_TO_LIVE_S, Lease, LeaseLostError, LeaseWatch
from workers.places import Place, StoreAwayError

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_LOOKS = 0.5
_PAUSE_S = 30.0
_LONGEST_SILENCE_S = 60.0


class _NotTheWriterError(Exception):
    """Another process writes now, or none can: what is unsent is kept."""


class BackgroundTracker:
    """Writes finished jobs from a thread of its own, so that no stage waits for MLflow.

    The thread begins with connecting; `wait_until_open` says how that went, in bounded time. While
    the server is away jobs are kept, and tried again after a pause. Of several drivers one writes
    at a time: the one that holds a lease. A context manager: the lease is kept until its end, so
    that a report can be drawn meanwhile.

    Args:
        tracker: The writer; used by the thread alone.
        lease_place: Where the lease lies.
        lease_s: Its time to live.
        patience_s: How long `close` waits for another writer to end.
        pause_s: Before the server is asked again.
    """

    def __init__(
        self,
        tracker: Tracker,
        lease_place: Place | Path,
        *,
        lease_s: float = TIME_TO_LIVE_S,
        patience_s: float = 0.0,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self._tracker = tracker
        self._lease_place, self._lease_s, self._patience_s = lease_place, lease_s, patience_s
        self._pause_s = pause_s
        self._lease: Lease | None = None
        self._is_closing = threading.Event()
        self._queue: queue.Queue[FinishedJob | FinishedTrial | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self.n_written = 0
        self.unsent: deque[FinishedJob | FinishedTrial] = deque()
        self.trouble = ""
        self._error: Exception | None = None
        self._is_settled = threading.Event()
        self._is_abandoned = False
        self._waits = False
        self._thread.start()

    def __enter__(self) -> "BackgroundTracker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lease is not None:
            self._lease.give_back()

    def wait_until_open(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until MLflow was written and read, or is known to be away; then `trouble` is set.

        Args:
            patience_s: How long at most.

        Raises:
            TrackingError: If it cannot be used, and waiting would not help.
        """
        self._is_settled.wait(patience_s)
        if self._tracker.has_answered:  # slow, as when a database is made, but not away
            self._is_settled.wait(_LONGEST_SILENCE_S)
        if self._error is not None:
            self._thread.join()
            raise self._error
        if not self._is_settled.is_set() and not self.trouble:
            self.trouble = f"it did not answer within {patience_s:.0f} s"
        if self.trouble:
            logger.warning("MLflow could not be written: %s", self.trouble)

    def put(self, finished: FinishedJob | FinishedTrial) -> None:
        """Take a job on, or a trial without jobs."""
        self._queue.put(finished)

    def close(self, status: str) -> None:
        """Wait until everything is written or known to be unsent, then end the parent run."""
        if not self.trouble and not self._is_settled.is_set():
            self.wait_until_open()
        self._is_closing.set()
        self._queue.put(None)
        self._join()
        if self._error is not None:
            raise self._error
        if not self.trouble:
            try:
                self._tracker.close(status)
            except TrackingError as error:
                self.trouble = str(error)

    def _join(self) -> None:
        """Wait for the thread as long as it gets on."""
        silence_s = PATIENCE_S if self.trouble else _LONGEST_SILENCE_S
        if not self._is_settled.is_set():
            silence_s = _SECONDS_BETWEEN_LOOKS  # it hangs since the beginning
        n_before = -1
        while self._thread.is_alive() and (self._waits or self.n_written > n_before):
            n_before = self.n_written
            self._thread.join(silence_s)
        if self._thread.is_alive():
            self._is_abandoned = True
            with suppress(queue.Empty):
                while True:
                    self.unsent += filter(None, (self._queue.get_nowait(),))
            self.trouble = self.trouble or f"it did not answer for {silence_s:.0f} s"

    def _open_first(self) -> float:
        """Connect, patiently; returns when to try again, 0 if all is well.

        Raises:
            TrackingError: If MLflow cannot be used, and waiting would not help.
        """
        deadline = time.monotonic() + PATIENCE_S - _SECONDS_BETWEEN_LOOKS
        while True:
            try:
                self._tracker.connect()
                if self._take_lease() is not None:
                    self._tracker.open()
            except (TrackingAwayError, StoreAwayError, OSError) as error:
                self.trouble = str(error)
                if time.monotonic() >= deadline or self._is_closing.is_set():
                    return time.monotonic() + self._pause_s
                self._is_closing.wait(_SECONDS_BETWEEN_LOOKS)
            else:
                self.trouble = ""
                return 0.0

    def _take_lease(self) -> Lease | None:
        """The lease, if no other process holds it."""
        found = Lease.take(self._lease_place, time_to_live_s=self._lease_s)
        self._lease = found if isinstance(found, Lease) else None
        return self._lease

    def _become_the_writer(self) -> Lease:
        """The lease, once no other process holds it.

        Raises:
            _NotTheWriterError: If another one still does when patience ends, or the lease cannot
                be written.
        """
        if self._lease is not None:
            self._lease.check()
            return self._lease
        self._waits = True
        try:
            self._lease = self._wait_for_lease()
        finally:
            self._waits = False
        return self._lease

    def _wait_for_lease(self) -> Lease:
        watch = LeaseWatch(self._lease_place, self._lease_s)
        last = 0.0
        while True:
            try:
                found = Lease.take(
                    self._lease_place,
                    time_to_live_s=self._lease_s,
                    dead_number=watch.dead_number() or 0,
                )
            except OSError as error:
                reason = f"the lease of its writer cannot be taken: {error}"
                raise _NotTheWriterError(reason) from error
            if isinstance(found, Lease):
                return found
            if self._is_closing.wait(_SECONDS_BETWEEN_LOOKS):
                last = last or time.monotonic() + self._patience_s
                if time.monotonic() >= last:
                    who = found.identity or {}
                    raise _NotTheWriterError(
                        f"process {who.get('pid')} on {who.get('host')} writes to it now"
                    )
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _work(self) -> None:
        try:
            again = self._open_first()
            self._is_settled.set()
            while (finished := self._next(again)) is not None:
                self.unsent += finished
                if time.monotonic() >= again:
                    again = 0.0 if self._send() else time.monotonic() + self._pause_s
            if self.unsent:
                self._send()
        except Exception as error:  # noqa: BLE001 - raised again by `close`, in the main thread
            self._error = error
        finally:
            self._is_settled.set()

    def _next(self, again: float) -> Sequence[FinishedJob | FinishedTrial] | None:
        """The next job, none when what is unsent is due again, or None at the end."""
        try:
            timeout = max(0.0, again - time.monotonic()) if again else None
            finished = self._queue.get(timeout=timeout)
        except queue.Empty:
            return ()
        return None if finished is None else (finished,)

    def _send(self) -> bool:
        """Write what is unsent; False if the server went away."""
        while self.unsent and not self._is_abandoned:
            try:
                self._become_the_writer()
                self.n_written += self._tracker.write(self.unsent[0])
            except LeaseLostError:
                self._lease = None
                self.trouble = "another process took over writing to it"
            except StoreAwayError as error:
                self.trouble = f"the store of stages cannot be read: {error}"
            except (TrackingError, _NotTheWriterError) as error:
                if not self.trouble:
                    logger.warning("MLflow could not be written: %s", error)
                self.trouble = str(error)
            else:
                self.unsent.popleft()
                continue
            self._tracker.disconnect()
            return False
        self.trouble = ""
        return True

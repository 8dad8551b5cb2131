"""How a running stage is heard and stopped from outside: two files, no connection."""

import logging
import time
from pathlib import Path
from typing import Literal

from iac_core.types import Reported
from workers.places import StoreAwayError
from workers.preemption import Preemption
from workers.stage_store import Attempt

logger = logging.getLogger(__name__)
StopCause = Literal["stopped", "preempted", "timeout"]


class FileReporter:
    """Writes progress into the attempt's folder; says when to stop, and remembers why.

    With a store in a bucket the driver's file may be on another host: a note in the bucket counts
    too, looked for every few seconds.

    Args:
        attempt: The attempt under way.
        stop_file: The driver creates it when the user asks to stop.
        preemption: Warned when this host is going away.
        timeout_s: The attempt may take so long; None is for ever.

    Attributes:
        last_epoch: Last epoch reported.
        cause: Why the stage was asked to stop; None if it was not.
    """

    def __init__(
        self,
        attempt: Attempt,
        stop_file: Path,
        preemption: Preemption,
        timeout_s: float | None = None,
    ) -> None:
        self._attempt, self._stop_file, self._preemption = attempt, stop_file, preemption
        self._due = None if timeout_s is None else time.monotonic() + timeout_s
        self._looked = time.monotonic()
        self.last_epoch = 0
        self.cause: StopCause | None = None

    def progress(self, *, epoch: int, n_epochs: int, **values: Reported) -> None:
        """Leave the latest epoch and numbers where the driver finds them.

        If the store is away they come with a later epoch; the lease says when it was for too long.
        """
        self.last_epoch = epoch
        note = {"epoch": epoch, "n_epochs": n_epochs, "reported_at": time.time(), **values}
        try:
            self._attempt.report(note)
        except StoreAwayError as error:
            logger.warning("epoch %d was not reported: %s", epoch, error)

    def should_stop(self) -> bool:
        """Return whether the user asked to stop, the host is going away, or time is up.

        Raises:
            LeaseLostError: If another process has taken the stage over.
        """
        if self._attempt.lease.is_lost:
            self._attempt.lease.check()
        if self._stop_file.exists() or self._is_stopped_from_afar():
            self.cause = "stopped"
        elif self._preemption.is_announced():
            self.cause = "preempted"
        elif self._due is not None and time.monotonic() > self._due:
            self.cause = "timeout"
        return self.cause is not None

    def _is_stopped_from_afar(self) -> bool:
        store, now = self._attempt.store, time.monotonic()
        if not store.place.is_remote or now - self._looked < store.place.seconds_between_looks:
            return False
        self._looked = now
        try:
            return store.is_stop_requested(self._stop_file)
        except StoreAwayError:
            return False

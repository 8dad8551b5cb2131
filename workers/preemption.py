"""The warning that a host is going away, so that a stage checkpoints before it does.

Two sources, whichever comes first. SIGTERM to the process that computes the stage: what is sent by
``ray stop`` on its node, by a container's end, by an administrator. And a file: where a machine's
end is announced in another way (Slurm's signal to the batch script, a hook of Kubernetes, the
metadata of a cloud) the site's hook creates the file that the environment variable
``IAC_PREEMPTION_FILE`` of the workers names: on each host that goes, or in a shared folder for all
of them.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

PREEMPTION_FILE = "IAC_PREEMPTION_FILE"


class Preemption:
    """Whether this process was warned."""

    def __init__(self) -> None:
        self._signalled = threading.Event()

    def is_announced(self) -> bool:
        """Return whether a signal came or the file is there."""
        path = os.environ.get(PREEMPTION_FILE)
        return self._signalled.is_set() or (bool(path) and Path(str(path)).exists())

    @contextmanager
    def heeding_sigterm(self) -> Iterator[None]:
        """Take the first SIGTERM as the warning; a second one does what it did before.

        Ray's workers would end at once. Outside the main thread nothing changes: Python allows
        handlers there alone, and Ray computes a task in it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def warn(number: int, frame: FrameType | None) -> None:
            self._signalled.set()
            signal.signal(signal.SIGTERM, before)

        before = signal.signal(signal.SIGTERM, warn)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

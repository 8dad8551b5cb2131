"""The warning that a host is going away, so that a stage checkpoints before it does.

Three sources, whichever comes first:

* SIGTERM to the process that computes the stage: a container's end, an administrator.
* A node that Ray drains, which is also what Ray does to a node whose ``ray start --block`` gets
  SIGTERM (a pod that is evicted). No process of a stage is told, so the driver asks Ray and leaves
  a note for the stages of that node.
* A file, where a machine's end is announced in another way (Slurm's signal to the batch script,
  the metadata of a cloud): the site's hook creates what the environment variable
  ``IAC_PREEMPTION_FILE`` of the workers names, on each host that goes or in a shared folder for
  all of them. While it is there no stage begins on these hosts.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

PREEMPTION_FILE = "IAC_PREEMPTION_FILE"


def note_of_node(stop_file: Path, node: str) -> Path:
    """Return the file by which a driver tells its stages on a node of Ray that the node goes.

    Args:
        stop_file: That of the driver.
        node: Ray's name of the node.
    """
    return stop_file.with_name(f"{stop_file.name}.{node}")


class Preemption:
    """Whether this process was warned.

    Args:
        note: The driver's note about this node, if it leaves any.
    """

    def __init__(self, note: Path | None = None) -> None:
        path = os.environ.get(PREEMPTION_FILE)
        self._files = [file for file in (note, Path(path) if path else None) if file is not None]
        self._signalled = threading.Event()

    def is_announced(self) -> bool:
        """Return whether a signal came or a file is there."""
        return self._signalled.is_set() or any(file.exists() for file in self._files)

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

"""Ctrl-C and SIGTERM outside of running stages: no traceback, exit code 130."""

import atexit
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from orchestrator.exit_codes import EXIT_STOPPED

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def leaving_at_once() -> Iterator[None]:
    """Leave without unwinding: while modules are imported nothing has begun, and an interrupt
    inside an import can be taken for a missing library.
    """  # noqa: D205 - one sentence

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        os.write(2, b"Stopped before anything began.\n")
        os._exit(EXIT_STOPPED)

    before = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Let a signal end a command as Ctrl-C does."""
    raise KeyboardInterrupt


def was_interrupted(error: BaseException | None) -> bool:
    """Return whether an exception comes from Ctrl-C or SIGTERM, whatever it was turned into."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def leave_stopped() -> NoReturn:
    """End this process with exit code 130, after what was registered for its end.

    An interrupt inside of `exec` makes Python end as if by the signal, whoever caught it.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(EXIT_STOPPED)

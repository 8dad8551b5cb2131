"""``python -m orchestrator``, and the command ``orchestrator``."""

import os
import signal
import sys
from types import FrameType

EXIT_STOPPED = 130


def main() -> None:
    """Run the command line; Ctrl-C ends it in one line, during its imports too."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        # Half-way through an import nothing has begun, and libraries turn the exception into others.
        signal.signal(signal.SIGINT, _leave)
    from addresses.redaction import redact_logs_and_tracebacks
    from orchestrator.environment import replace_home

    replace_home()
    from orchestrator import cli

    signal.signal(signal.SIGINT, before)
    redact_logs_and_tracebacks()
    try:
        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        sys.exit(EXIT_STOPPED)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.stderr.write("Stopped; nothing was started.\n")
    sys.stderr.flush()
    os._exit(EXIT_STOPPED)


if __name__ == "__main__":
    main()

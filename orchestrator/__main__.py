"""``python -m orchestrator``, and the command ``orchestrator``."""

import atexit
import os
import signal
import sys
from types import FrameType

EXIT_STOPPED = 130


def main() -> None:
    """Run the command line; Ctrl-C ends it in one line, during its imports too."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        # In an import nothing has begun yet, and libraries turn the exception into others.
        signal.signal(signal.SIGINT, _leave)
    from addresses.redaction import redact_logs_and_tracebacks
    from orchestrator.environment import replace_home

    replace_home()
    from orchestrator import cli

    redact_logs_and_tracebacks()
    try:
        signal.signal(signal.SIGINT, before)
        cli.main()
    except (KeyboardInterrupt, SystemExit) as ended:
        if not _was_interrupted(ended):
            raise
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.write("Stopped.\n")
        atexit._run_exitfuncs()
        sys.stdout.flush()
        # An interrupt inside of `exec` makes Python end as if by the signal, whoever caught it.
        os._exit(EXIT_STOPPED)


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether an exception comes from Ctrl-C."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _leave(number: int, frame: FrameType | None) -> None:
    sys.stderr.write("Stopped; nothing was started.\n")
    sys.stderr.flush()
    os._exit(EXIT_STOPPED)


if __name__ == "__main__":
    main()

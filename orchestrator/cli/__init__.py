"""The command line: plan, run, submit, status, report, export, sync, doctor, data, phantom.

What a command needs (`orchestrator.commands`) is imported when it was typed: that takes seconds,
in which Ctrl-C must work too.
"""

import sys
from typing import TYPE_CHECKING, Any

from orchestrator.exit_codes import EXIT_STOPPED
from orchestrator.stopping import leave_stopped, leaving_at_once

if TYPE_CHECKING:
    from orchestrator.cli.commands import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; no error of a user or of a disk ends with a traceback."""
    with leaving_at_once():
        from addresses.redaction import redact_logs_and_tracebacks
        from orchestrator.environment import replace_home

        replace_home()
        from orchestrator.cli.commands import run_commands
    redact_logs_and_tracebacks()
    code = run_commands()
    if code == EXIT_STOPPED:
        leave_stopped()
    sys.exit(code)


def __getattr__(name: str) -> Any:  # noqa: ANN401 - of a module
    if name == "app":
        from orchestrator.cli.commands import app

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

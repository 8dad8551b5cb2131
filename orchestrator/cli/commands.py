"""All commands, and what becomes of errors that they raise: a line each, and an exit code."""

import contextlib
import os
import signal
import sys

from rich.text import Text

from iac_core.errors import IacError, Problem
from orchestrator.cli.application import app

# In the order of `--help`.
from orchestrator.cli import plans  # isort: skip
from orchestrator.cli import sweeps  # isort: skip
from orchestrator.cli import outcomes  # isort: skip
from orchestrator.cli import machines  # isort: skip
from orchestrator.cli import folders  # isort: skip
from orchestrator.consoles import err
from orchestrator.disk import is_full, problem_of
from orchestrator.exit_codes import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_STOPPED
from orchestrator.stopping import interrupt, was_interrupted
from results.errors import ResultsError

__all__ = ["app", "folders", "machines", "outcomes", "plans", "run_commands", "sweeps"]


def run_commands() -> int:
    """Run what the command line says and return its exit code.

    Returns:
        0 if all that was asked is done and reported, 1 if something failed or no report was
        written, 2 for bad input, 130 if it was stopped.
    """
    with contextlib.suppress(ValueError):  # not the main thread
        signal.signal(signal.SIGTERM, interrupt)
    code = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        # The interpreter would flush once more and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _say(str(problem_of(error)))
        return code or EXIT_FAILED
    return code


def _run() -> int:
    try:
        app()
    except SystemExit as end:
        if was_interrupted(end):
            err.print("Stopped.")
            return EXIT_STOPPED
        return end.code if isinstance(end.code, int) else EXIT_FAILED * bool(end.code)
    except KeyboardInterrupt:
        err.print("Stopped.")
        return EXIT_STOPPED
    except IacError as error:
        if error.problems:
            _print_problems(error.problems)
        else:
            _say(str(error))
        return EXIT_BAD_INPUT if error.is_of_input else EXIT_FAILED
    except ResultsError as error:
        _say(str(error))
        return EXIT_BAD_INPUT
    except OSError as error:
        _say(str(problem_of(error)))
        return EXIT_FAILED if is_full(error) else EXIT_BAD_INPUT
    return 0


def _say(text: str) -> None:
    err.print(Text(text), style="red", soft_wrap=True)


def _print_problems(problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        _say(str(problem))
    plural = "problem" if len(problems) == 1 else "problems"
    err.print(f"{len(problems)} {plural}; nothing was started.")

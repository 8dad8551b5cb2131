"""The command line: plan, run, submit, status, report, export, sync, doctor, data, phantom."""

import sys

from rich.text import Text

from iac_core.errors import DataError, IacError, Problem
from orchestrator.cli import folders, machines, outcomes, sweeps  # noqa: F401 - add commands
from orchestrator.cli.application import app
from orchestrator.cli.options import EXIT_BAD_INPUT
from orchestrator.consoles import err
from orchestrator.spec import SweepError
from results.errors import ResultsError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; bad input ends with exit code 2 and no traceback."""
    try:
        app()
    except (SweepError, DataError) as error:
        _print_problems(error.problems)
        sys.exit(EXIT_BAD_INPUT)
    except (IacError, ResultsError) as error:
        err.print(Text(str(error)), style="red", soft_wrap=True)
        sys.exit(EXIT_BAD_INPUT)


def _print_problems(problems: tuple[Problem, ...]) -> None:
    for problem in problems:
        err.print(Text(str(problem)), style="red", soft_wrap=True)
    plural = "problem" if len(problems) == 1 else "problems"
    err.print(f"{len(problems)} {plural}; nothing was started.")

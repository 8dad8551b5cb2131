"""Options that several commands take, the codes that they end with, and what they work on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from orchestrator.consoles import err
from orchestrator.printed import Typed
from orchestrator.session import Needs, Session, open_typed
from orchestrator.stopping import EXIT_STOPPED

__all__ = ["EXIT_BAD_INPUT", "EXIT_FAILED", "EXIT_STOPPED", "opened", "overrides_of"]

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2

SweepPath = Annotated[Path, typer.Argument(help="The sweep file.", metavar="SWEEP")]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="Folder of a dataset; otherwise that of the last run, or the sweep file's.",
        metavar="NAME=PATH",
    ),
]
RunsOption = Annotated[
    Path | None,
    typer.Option(
        "--runs",
        help="Folder of runs, MLflow and stages; otherwise that of the last run of this sweep "
        "file, or ./runs.",
    ),
]
AddressOption = Annotated[
    str,
    typer.Option(
        envvar="RAY_API_SERVER_ADDRESS", help="The cluster's dashboard, http://HEAD:8265."
    ),
]
LayoutAtPath = Annotated[
    str, typer.Argument(help="Layout and folder, such as kits23=PATH.", metavar="LAYOUT=PATH")
]
LeaveOut = Annotated[
    list[str] | None, typer.Option(help="A patient not to use; known_faults for all listed ones.")
]
PatientPattern = Annotated[
    str | None, typer.Option(help="Regular expression with one group: the patient in a name.")
]

MaxVolumeGib = Annotated[
    float, typer.Option(help="Largest volume file that is read, GiB in memory by its header.")
]
_ELSEWHERE = ("sweep", "data", "runs")


def opened(
    sweep: Path,
    data: list[str] | None,
    runs: Path | None,
    *,
    needs: Needs,
    needs_runs: bool = False,
    checks_rules: bool = False,
    context: typer.Context | None = None,
) -> Session:
    """Open the sweep of a command, and say what the user may not expect of its folders.

    Args:
        sweep: As typed.
        data: ``--data`` as typed.
        runs: ``--runs`` as typed.
        needs: As for `orchestrator.session.open_typed`.
        needs_runs: Likewise.
        checks_rules: Likewise.
        context: Of the command, if it prints itself.
    """
    name = "" if context is None else context.info_name or ""
    given = () if context is None else tuple(_given(context))
    typed = Typed(sweep=sweep, data=tuple(data or ()), runs=runs, name=name, given=given)
    session = open_typed(
        typed,
        overrides_of(data),
        needs=needs,
        needs_runs=needs_runs,
        checks_rules=checks_rules,
    )
    for notice in session.notices:
        err.print(Text(notice), style="yellow", soft_wrap=True)
    return session


def overrides_of(data: list[str] | None) -> dict[str, str]:
    """Return dataset → folder, from ``--data``."""
    overrides = {}
    for entry in data or []:
        name, equals, folder = entry.partition("=")
        if not equals or not name or not folder:
            raise typer.BadParameter(f"--data must be NAME=PATH, got {entry!r}")
        try:
            overrides[name] = str(Path(folder).expanduser().resolve())
        except (RuntimeError, OSError, ValueError) as error:
            raise typer.BadParameter(f"--data must be NAME=PATH, got {entry!r}: {error}") from None
    return overrides


def _given(context: typer.Context) -> Iterator[str]:
    """The words of a command's own options, as they were given."""
    for option in context.command.params:
        name = option.name or ""
        source = context.get_parameter_source(name)
        if name in _ELSEWHERE or source is None or source.name != "COMMANDLINE":
            continue
        value = context.params.get(name)
        if isinstance(value, bool):
            yield (option.opts if value else option.secondary_opts)[0]
            continue
        for one in value if isinstance(value, list | tuple) else [value]:
            yield from (option.opts[0], str(one))

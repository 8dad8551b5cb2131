"""Options that several commands take, and what was typed to say what they work on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.printed import Typed

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
    float | None,
    typer.Option(
        help="Largest volume file that is read, GiB in memory by its header.", show_default="4.0"
    ),
]
_ELSEWHERE = ("sweep", "data", "runs")


def typed(
    sweep: Path | None,
    data: list[str] | None,
    runs: Path | None,
    context: typer.Context | None = None,
) -> Typed:
    """Return what was typed to say what a command works on.

    Args:
        sweep: As typed.
        data: ``--data`` as typed.
        runs: ``--runs`` as typed.
        context: Of the command, if it prints itself.
    """
    name = "" if context is None else context.info_name or ""
    given = () if context is None else tuple(_given(context))
    return Typed(sweep=sweep, data=tuple(data or ()), runs=runs, name=name, given=given)


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

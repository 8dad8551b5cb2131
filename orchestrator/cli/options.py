"""Options that several commands take, and the codes that they end with."""

from pathlib import Path
from typing import Annotated

import typer

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_STOPPED = 130

SweepPath = Annotated[Path, typer.Argument(help="The sweep file.", metavar="SWEEP")]
DataOption = Annotated[
    list[str] | None, typer.Option("--data", help="Folder of a dataset.", metavar="NAME=PATH")
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of runs, MLflow and stages.")]
RUNS = Path("runs")
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


def overrides_of(data: list[str] | None) -> dict[str, str]:
    """Return dataset → folder, from ``--data``."""
    overrides = {}
    for entry in data or []:
        name, equals, folder = entry.partition("=")
        if not equals or not folder:
            raise typer.BadParameter(f"--data must be NAME=PATH, got {entry!r}")
        overrides[name] = str(Path(folder).expanduser().resolve())
    return overrides

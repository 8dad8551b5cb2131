"""Opening the sweep of a command."""

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.text import Text

from orchestrator.consoles import err
from orchestrator.printed import Typed
from orchestrator.session import Needs, Session, open_typed


def opened(
    typed: Typed, *, needs: Needs, needs_runs: bool = False, checks_rules: bool = False
) -> Session:
    """Open the sweep of a command, and say what the user may not expect of its folders.

    Args:
        typed: What was typed.
        needs: As for `orchestrator.session.open_typed`.
        needs_runs: Likewise.
        checks_rules: Likewise.
    """
    session = open_typed(
        typed,
        overrides_of(typed.data),
        needs=needs,
        needs_runs=needs_runs,
        checks_rules=checks_rules,
    )
    for notice in session.notices:
        err.print(Text(notice), style="yellow", soft_wrap=True)
    return session


def overrides_of(data: Sequence[str]) -> dict[str, str]:
    """Return dataset → folder, from ``--data``."""
    overrides = {}
    for entry in data:
        name, equals, folder = entry.partition("=")
        if not equals or not name or not folder:
            raise typer.BadParameter(f"--data must be NAME=PATH, got {entry!r}")
        try:
            overrides[name] = str(Path(folder).expanduser().resolve())
        except (RuntimeError, OSError, ValueError) as error:
            raise typer.BadParameter(f"--data must be NAME=PATH, got {entry!r}: {error}") from None
    return overrides

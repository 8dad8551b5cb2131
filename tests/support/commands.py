"""The command line in this process, as a shell sees it."""

import sys
from dataclasses import dataclass

from orchestrator.__main__ import main


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def command(capsys, monkeypatch, *words) -> Ended:
    """Run ``orchestrator WORDS``; an exception that a user would see as a traceback is raised."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["orchestrator", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code or 0
    captured = capsys.readouterr()
    return Ended(code, captured.out, captured.err)

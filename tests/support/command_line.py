"""The command line in this process: what it prints, and how it ends."""

import sys
from dataclasses import dataclass

import pytest

from orchestrator.cli.commands import run_commands


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs commands from a working directory of the caller's choice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self._patch, self._capsys = monkeypatch, capsys

    def __call__(self, *words, cwd) -> Ended:
        self._capsys.readouterr()
        self._patch.chdir(cwd)
        self._patch.setattr(sys, "argv", ["orchestrator", *map(str, words)])
        code = run_commands()
        printed = self._capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return Ended(code, printed.out, printed.err)

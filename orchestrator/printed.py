"""The commands that are printed: whole, with every option that was given, quoted for a shell."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "orchestrator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """What a user typed to say what a command works on; commands printed after it say it too.

    Attributes:
        sweep: The sweep file; None for a command without one.
        data: Entries of ``--data``, ``NAME=PATH``.
        runs: ``--runs``; None if it was not given.
        name: The command that was typed.
        given: Words of its own options.
    """

    sweep: Path | None = None
    data: tuple[str, ...] = ()
    runs: Path | None = None
    name: str = ""
    given: tuple[str, ...] = ()

    def command(self, *words: str, options: Sequence[str] = ()) -> str:
        """Return a command on the same sweep, data folders and runs folder.

        The command that was typed keeps its options.

        Args:
            words: Command and subcommand.
            options: Further options, each word by itself.

        Examples:
            >>> Typed(sweep=Path("my sweep.yaml"), runs=Path("r")).command("plan")
            "orchestrator plan 'my sweep.yaml' --runs r"
        """
        all_words = list(words)
        if self.sweep is not None:
            all_words.append(as_argument(self.sweep))
        own = self.given if words == (self.name,) else ()
        all_words += [*own, *(word for word in options if word not in own)]
        for entry in self.data:
            all_words += ["--data", entry]
        if self.runs is not None:
            all_words += ["--runs", str(self.runs)]
        return printed(*all_words)


def printed(*words: str) -> str:
    """Return a command of this project for a POSIX shell.

    Examples:
        >>> printed("phantom", "/data/my hearts")
        "orchestrator phantom '/data/my hearts'"
    """
    return shlex.join([PROGRAM, *words])


def as_argument(path: Path) -> str:
    """Return a path as a word that no command takes for an option.

    Examples:
        >>> as_argument(Path("-x.yaml")), as_argument(Path("x.yaml"))
        ('./-x.yaml', 'x.yaml')
    """
    text = str(path)
    return f"./{text}" if text.startswith("-") else text

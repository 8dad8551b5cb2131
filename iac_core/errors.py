"""Every error this project raises on purpose.

::

    IacError
    ├── ConfigError      a setting is wrong (also a ValueError)
    │   └── UnknownNameError   a name is not in its table
    ├── DataError        a data folder or file is wrong; carries every Problem found
    │   └── IncompleteFolderError   some of its volumes can be used; carries these
    ├── ShapeError       arrays do not fit each other (also a ValueError)
    ├── NnunetError      a command of nnU-Net failed; carries its last lines
    ├── SearchError      a search or training cannot go on
    │   └── NotFiniteError     a loss is NaN or infinite
    └── StopRequested    control flow: the user asked to stop, the stage has checkpointed

A message is rule, then value, then the way out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iac_core.types import VolumeRef

from addresses.redaction import redact


class IacError(Exception):
    """Base class of every error raised on purpose.

    Attributes:
        problems: Everything that is wrong with what was given, where that was collected.
        is_of_input: Whether what was given must change, rather than something be waited for.
    """

    problems: "tuple[Problem, ...]" = ()
    is_of_input: bool = True


_UNSAID = object()


class ConfigError(IacError, ValueError):
    """A setting is out of range, unknown, or contradicts another.

    Args:
        rule: What must hold; the whole message where there is no value.
        value: What was given instead, shown by `str`.
        way_out: What the user can do.

    Attributes:
        rule: As given.
        value: As it is shown; empty if none was given.
        way_out: As given.

    Examples:
        >>> str(ConfigError("epochs must be at least 1", value=0, way_out="train for some"))
        'epochs must be at least 1, got 0; train for some'
    """

    def __init__(self, rule: str, *, value: object = _UNSAID, way_out: str = "") -> None:
        self.rule, self.way_out = rule, way_out
        self.value = "" if value is _UNSAID else str(value)
        said = rule if value is _UNSAID else f"{rule}, got {self.value}"
        super().__init__(f"{said}; {way_out}" if way_out else said)


class UnknownNameError(ConfigError):
    """A name is not in its table; the message lists near and known names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with a file: where, what the rule is, what was found, the way out.

    Attributes:
        file: Path of the file or folder, as the user would type it.
        place: Where in the file: a line, a key, a voxel index; empty if the whole file.
        rule: What must hold.
        value: What was found instead.
        way_out: What the user can do.
    """

    file: str
    rule: str
    value: str
    way_out: str
    place: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.place}" if self.place else self.file
        return redact(f"{where}: {self.rule}, got {self.value}; {self.way_out}")


class DataError(IacError):
    """A data folder or file breaks the rules of its layout.

    Args:
        problems: Everything that was found, in the order of the files.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type["DataError"], tuple[tuple[Problem, ...]]]:
        return DataError, (self.problems,)


class IncompleteFolderError(DataError):
    """Some cases of a data folder are incomplete or badly named; the others can be looked at.

    Args:
        problems: Everything that was found, in the order of the files.
        usable: The volumes that can be read, ordered by patient, then volume.
    """

    def __init__(self, problems: Iterable[Problem], usable: Iterable["VolumeRef"]) -> None:
        self.usable = tuple(usable)
        super().__init__(problems)

    def __reduce__(  # type: ignore[override]
        self,
    ) -> tuple[type["IncompleteFolderError"], tuple[tuple[Problem, ...], tuple["VolumeRef", ...]]]:
        return IncompleteFolderError, (self.problems, self.usable)


class ShapeError(IacError, ValueError):
    """Arrays that must fit each other do not."""


class SearchError(IacError):
    """A search or a training cannot go on."""


class NotFiniteError(SearchError):
    """A loss is NaN or infinite: smaller steps, or other data, may help."""


class NnunetError(IacError):
    """A command of nnU-Net ended with an error; the message has the last lines of its output."""


class StopRequested(IacError):  # noqa: N818 - control flow, not an error
    """The user asked to stop; the stage has written its checkpoint."""

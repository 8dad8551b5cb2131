"""What is found in one file while it is read."""

from dataclasses import dataclass, field
from pathlib import Path

from iac_core.errors import Problem


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in one file: errors and warnings, each with rule, value and way out."""

    path: Path
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def error(self, rule: str, value: object, way_out: str, *, place: str = "") -> None:
        """Note what forbids to use the file."""
        self.problems.append(self._problem(rule, value, way_out, place))

    def warn(self, rule: str, value: object, way_out: str, *, place: str = "") -> None:
        """Note what may not be meant."""
        self.warnings.append(self._problem(rule, value, way_out, place))

    def _problem(self, rule: str, value: object, way_out: str, place: str) -> Problem:
        return Problem(
            file=str(self.path), place=place, rule=rule, value=str(value), way_out=way_out
        )

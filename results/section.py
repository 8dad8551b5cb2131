"""A further table of the report, as all three templates print it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A further table: its title, what it says, headings and lines."""

    title: str
    text: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]

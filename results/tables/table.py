"""A table of the report as one value, whatever format it is written in."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from results.tables.cells import FOUR_DIGITS, Cell, Noted, NumberFormat, reason_of, text_of

Row = tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column.

    Attributes:
        heading: What stands above it.
        unit: Unit of its numbers, in brackets behind the heading; empty if they have none.
        format: How its numbers are written.
        meaning: How its values are defined, a paragraph for the notes; empty if the caption or
            the heading says it.
        align: Side on which its cells are aligned.
        names_group: Whether consecutive rows with the same values in such columns belong
            together.
    """

    heading: str
    unit: str = ""
    format: NumberFormat = FOUR_DIGITS
    meaning: str = ""
    align: Literal["left", "right"] = "left"
    names_group: bool = False

    @property
    def label(self) -> str:
        """The heading with the unit.

        Examples:
            >>> Column(heading="HD95", unit="mm").label
            'HD95 (mm)'
        """
        return f"{self.heading} ({self.unit})" if self.unit else self.heading


def plain(*headings: str, form: NumberFormat = FOUR_DIGITS) -> tuple[Column, ...]:
    """Return columns that need no more than a heading, and share a format of numbers."""
    return tuple(Column(heading=heading, format=form) for heading in headings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCell:
    """A cell as a writer gets it, not escaped.

    Attributes:
        text: What it shows.
        reason: Why it has no value; empty if it has one.
    """

    text: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the report.

    Attributes:
        title: Its heading; empty if it needs none.
        caption: What it shows.
        columns: Its columns.
        rows: Its rows, a cell for each column.
        notes: Paragraphs below it.

    Raises:
        ValueError: If a row has more or fewer cells than the table has columns.
    """

    title: str = ""
    caption: str = ""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row of {self.title!r} must have {len(self.columns)} cells, got {len(row)}"
                )

    @property
    def header(self) -> tuple[str, ...]:
        """What stands above the columns."""
        return tuple(column.label for column in self.columns)

    @property
    def lines(self) -> tuple[tuple[str, ...], ...]:
        """The rows as plain text."""
        return tuple(tuple(cell.text for cell in row) for group in self.groups() for row in group)

    @property
    def footnotes(self) -> tuple[str, ...]:
        """The footnotes with their marks, in the order in which cells refer to them."""
        return tuple(f"{mark} {note}" for note, mark in self._marks().items())

    def groups(self) -> Iterator[tuple[tuple[ShownCell, ...], ...]]:
        """Yield the rows that belong together; one group if no column names any."""
        places = [place for place, column in enumerate(self.columns) if column.names_group]
        marks = self._marks()
        for _, rows in groupby(self.rows, key=lambda row: [row[place] for place in places]):
            yield tuple(self._shown(row, marks) for row in rows)

    def _shown(self, row: Row, marks: Mapping[str, str]) -> tuple[ShownCell, ...]:
        return tuple(
            ShownCell(text=text_of(cell, column.format, marks.__getitem__), reason=reason_of(cell))
            for cell, column in zip(row, self.columns, strict=True)
        )

    def _marks(self) -> dict[str, str]:
        """Text of a footnote → its mark, in the order in which cells refer to them."""
        noted = dict.fromkeys(
            cell.note for row in self.rows for cell in row if isinstance(cell, Noted)
        )
        return {note: f"({place})" for place, note in enumerate(noted, start=1)}

"""Cells of a table, and how their numbers are written."""

import math
from collections.abc import Callable
from dataclasses import dataclass

DASH = "—"
"""Stands for a value that is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """How the numbers of a column are written.

    Attributes:
        spec: Format specification of a float.
        scale: Factor between the value and what is written, 100 for per cent.
        suffix: Written behind the number.
        least: Smaller values are written as ``< least``; None writes all of them.

    Examples:
        >>> NumberFormat(spec=".1f", suffix="×").text(3.14)
        '3.1×'
        >>> NumberFormat(spec=".3f", least=0.001).text(1e-5)
        '< 0.001'
    """

    spec: str
    scale: float = 1.0
    suffix: str = ""
    least: float | None = None

    def text(self, value: float) -> str:
        """Return a number as it is written; a dash for NaN."""
        if math.isnan(value):
            return DASH
        if self.least is not None and value < self.least:
            return f"< {self.least:g}"
        return f"{self.scale * float(value):{self.spec}}{self.suffix}"


COUNT = NumberFormat(spec=".0f")
FOUR_DIGITS = NumberFormat(spec=".4g")
DICE = NumberFormat(spec=".3f")
DICE_POINTS = NumberFormat(spec="+.2f", scale=100)
P_VALUE = NumberFormat(spec=".3f", least=0.001)
PER_CENT = NumberFormat(spec=".0f", scale=100, suffix=" %")
TIMES = NumberFormat(spec=".1f", suffix="×")


@dataclass(frozen=True, slots=True)
class Number:
    """A number that its column's format writes.

    Attributes:
        value: The number.
        sd: Its standard deviation, behind ``±``; NaN is left out.
        detail: What stands behind it in brackets; empty is left out.
    """

    value: float
    sd: float = math.nan
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Interval:
    """Two ends that the column's format writes."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Missing:
    """A value that is not there.

    Attributes:
        reason: Why; the page in HTML shows it where the pointer rests on the cell.
        sign: What stands in the cell.
    """

    reason: str
    sign: str = DASH


@dataclass(frozen=True, slots=True)
class Noted:
    """A cell with a footnote.

    Attributes:
        cell: The cell.
        note: Text of the footnote; equal texts share one.
    """

    cell: "str | Number | Interval | Missing"
    note: str


Cell = str | Number | Interval | Missing | Noted


def number(value: float, reason: str) -> Number | Missing:
    """Return a number, or a missing cell for NaN.

    Args:
        value: The number.
        reason: Why it is missing if it is.
    """
    return Missing(reason) if math.isnan(value) else Number(value)


def interval(low: float, high: float, reason: str) -> Interval | Missing:
    """Return an interval, or a missing cell if its lower end is NaN.

    Args:
        low: Lower end.
        high: Upper end.
        reason: Why it is missing if it is.
    """
    return Missing(reason) if math.isnan(low) else Interval(low, high)


def text_of(cell: Cell, form: NumberFormat, mark: Callable[[str], str]) -> str:
    """Return a cell as plain text.

    Args:
        cell: The cell.
        form: How its column writes numbers.
        mark: Takes the text of a footnote and returns its mark.
    """
    match cell:
        case Noted():
            return f"{text_of(cell.cell, form, mark)} {mark(cell.note)}"
        case Missing():
            return cell.sign
        case Interval():
            return f"{form.text(cell.low)} to {form.text(cell.high)}"
        case Number():
            sd = "" if math.isnan(cell.sd) else f" ± {form.text(cell.sd)}"
            detail = f" ({cell.detail})" if cell.detail else ""
            return f"{form.text(cell.value)}{sd}{detail}"
        case _:
            return cell


def reason_of(cell: Cell) -> str:
    """Return why a cell has no value; empty if it has one."""
    inner = cell.cell if isinstance(cell, Noted) else cell
    return inner.reason if isinstance(inner, Missing) else ""

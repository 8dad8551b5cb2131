import math

import pytest

from results.tables.cells import (
    COUNT,
    DICE,
    DICE_POINTS,
    P_VALUE,
    PER_CENT,
    TIMES,
    Interval,
    Missing,
    Noted,
    Number,
    interval,
    number,
    reason_of,
    text_of,
)

NAN = math.nan


def shown(cell, form=DICE):
    return text_of(cell, form, lambda note: f"({len(note)})")


@pytest.mark.parametrize(
    ("form", "value", "text"),
    [
        (DICE, 0.8204, "0.820"),
        (DICE_POINTS, -0.00512, "-0.51"),
        (DICE_POINTS, 0.1, "+10.00"),
        (COUNT, 12, "12"),
        (P_VALUE, 0.0009, "< 0.001"),
        (P_VALUE, 0.001, "0.001"),
        (PER_CENT, 0.25, "25 %"),
        (TIMES, 3.46, "3.5×"),
        (TIMES, NAN, "—"),
    ],
)
def test_a_format_writes_numbers(form, value, text):
    assert form.text(value) == text


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("a | b", "a | b"),
        (Number(0.5), "0.500"),
        (Number(0.5, sd=0.25), "0.500 ± 0.250"),
        (Number(0.5, detail="n 3"), "0.500 (n 3)"),
        (Interval(-1, 1), "-1.000 to 1.000"),
        (Missing("no search"), "—"),
        (Missing("older", sign="not recorded"), "not recorded"),
        (Noted(Number(1), "abc"), "1.000 (3)"),
    ],
)
def test_a_cell_is_written_by_its_kind(cell, text):
    assert shown(cell) == text


def test_what_is_undefined_is_missing_with_its_reason():
    assert number(0.5, "x") == Number(0.5)
    assert number(NAN, "too few") == Missing("too few")
    assert interval(0.0, 1.0, "x") == Interval(0.0, 1.0)
    assert interval(NAN, NAN, "too few") == Missing("too few")
    assert reason_of(Noted(Missing("refused"), "note")) == "refused"
    assert reason_of(Number(1)) == reason_of("text") == ""

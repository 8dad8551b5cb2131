import pytest

from results.tables.cells import COUNT, Missing, Noted, Number
from results.tables.table import Column, Table, plain

AXES = (Column(heading="data", names_group=True), Column(heading="net", names_group=True))


def test_a_heading_says_its_unit():
    table = Table(columns=(Column(heading="HD95", unit="mm"), *plain("arm")))
    assert table.header == ("HD95 (mm)", "arm")


def test_equal_footnotes_share_a_mark_and_stand_in_the_order_of_reading():
    rows = (
        ("a", Noted("x", "second arm is dead")),
        (Noted("b", "no search"), Noted(Missing("refused"), "second arm is dead")),
    )
    table = Table(columns=plain("arm", "score"), rows=rows)
    assert table.lines == (("a", "x (1)"), ("b (2)", "— (1)"))
    assert table.footnotes == ("(1) second arm is dead", "(2) no search")


def test_rows_of_the_same_names_are_a_group():
    rows = (("d", "u", Number(1)), ("d", "u", Number(2)), ("d", "v", Number(3)))
    table = Table(columns=(*AXES, *plain("n", form=COUNT)), rows=rows)
    groups = [[row[2].text for row in group] for group in table.groups()]
    assert groups == [["1", "2"], ["3"]]


def test_a_table_without_names_is_one_group():
    table = Table(columns=plain("n"), rows=(("a",), ("b",)))
    assert [len(group) for group in table.groups()] == [2]
    assert list(Table(columns=plain("n")).groups()) == []


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"a row of 'T' must have 2 cells, got 1"):
        Table(title="T", columns=plain("a", "b"), rows=(("x",),))

"""What holds of every writer: nothing is lost, nothing breaks the format."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from results.escaping import visible
from results.tables.cells import COUNT, DICE, Missing, Noted, Number
from results.tables.table import Column, Table, plain
from results.tables.writers import WRITERS

HOSTILE = "a & b % c_d <e> | f\ng"
ESCAPED = {
    "markdown": r"a & b % c_d \<e> \| f g",
    "latex": r"a \& b \% c\_d $<$e$>$ \textbar{} f g",
    "html": "a &amp; b % c_d &lt;e&gt; | f g",
}
COLUMNS = (
    Column(heading="data", names_group=True),
    *plain("arm"),
    Column(heading="Dice", format=DICE, align="right"),
    Column(heading="n", format=COUNT, align="right"),
)


class Reader(HTMLParser):
    """Rows and attributes of the cells of a table."""

    def __init__(self):
        super().__init__()
        self.rows, self.attributes = [], []

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.attributes.append(dict(attrs))

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def html_rows(text):
    reader = Reader()
    reader.feed(text)
    return [[cell.strip() for cell in row] for row in reader.rows]


def markdown_rows(text):
    """Headings and rows of a pipe table, without its rule."""
    return [markdown_cells(line) for place, line in enumerate(text.split("\n")) if place != 1]


def markdown_cells(line):
    """Cells of a line, read sign by sign: a backslash takes the next sign as it is."""
    cells, is_taken = [""], False
    for sign in line:
        if sign == "|" and not is_taken:
            cells.append("")
        elif sign == "\\" and not is_taken:
            is_taken = True
            continue
        else:
            cells[-1] += sign
        is_taken = False
    return [cell.strip() for cell in cells[1:-1]]


def latex_rows(text):
    """Headings and rows of a tabular, still escaped."""
    return [re.split(r"(?<!\\) & ", line) for line in text.split("\n") if line.endswith(r" \\")]


ROWS_OF = {"markdown": markdown_rows, "latex": latex_rows, "html": html_rows}


def rows_of(kind, table):
    return ROWS_OF[kind](WRITERS[kind].table(table))


@pytest.mark.parametrize("kind", WRITERS)
def test_signs_of_the_format_are_escaped_wherever_they_stand(kind):
    writer, escaped = WRITERS[kind], ESCAPED[kind]
    cells = (HOSTILE, Noted(HOSTILE, HOSTILE), Missing("r", sign=HOSTILE))
    table = Table(columns=plain(HOSTILE, "b", "c"), rows=(cells,))
    text = writer.table(table)
    assert text.count(escaped) == 4
    assert "f\ng" not in text
    assert f"(1) {escaped}" in writer.paragraphs(table.footnotes)
    assert escaped in writer.paragraphs([HOSTILE])
    assert [len(row) for row in rows_of(kind, table)] == [3, 3]


def test_the_caption_of_latex_is_escaped():
    table = Table(title=HOSTILE, caption=HOSTILE, columns=plain("a"))
    line = rf"\caption{{{ESCAPED['latex']}. {ESCAPED['latex']}}}"
    assert line in WRITERS["latex"].table(table).split("\n")


@pytest.mark.parametrize("kind", WRITERS)
def test_a_missing_cell_has_a_sign_and_keeps_its_column(kind):
    table = Table(columns=COLUMNS, rows=(("d", "a", Missing("no | search"), Number(3)),))
    (_, row) = rows_of(kind, table)
    assert len(row) == 4
    assert row[2] == ("---" if kind == "latex" else "—")


def test_html_says_why_a_cell_is_missing():
    rows = (("d", 'a "b"', Missing('no "search" <x>'), Number(3)),)
    reader = Reader()
    reader.feed(WRITERS["html"].table(Table(columns=COLUMNS, rows=rows)))
    assert [each.get("title") for each in reader.attributes[4:]] == [
        None, None, 'no "search" <x>', None,
    ]  # fmt: skip


def test_numbers_are_aligned_to_the_right():
    table = Table(columns=COLUMNS, rows=(("d", "a", Number(0.5), Number(3)),))
    assert WRITERS["markdown"].table(table).split("\n")[1] == "| --- | --- | ---: | ---: |"
    assert r"\begin{tabular}{llrr}" in WRITERS["latex"].table(table)
    reader = Reader()
    reader.feed(WRITERS["html"].table(table))
    assert [each.get("class") for each in reader.attributes] == [
        None, None, "n", "n", "name", None, "n", "n",
    ]  # fmt: skip


def test_groups_are_parted():
    rows = (("d", "a", Number(1), Number(1)), ("d", "b", Number(1), Number(1)))
    table = Table(columns=COLUMNS, rows=(*rows, ("e", "a", Number(1), Number(1))))
    assert WRITERS["latex"].table(table).count(r"\midrule") == 2
    html = WRITERS["html"].table(table)
    assert html.count('class="first"') == 2
    assert [row[0] for row in html_rows(html)] == ["data", "d", "", "e"]
    assert [row[0] for row in rows_of("markdown", table)] == ["data", "d", "d", "e"]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_long_table_has_every_row_once_below_one_header(kind):
    rows = tuple(("d", f"arm{place}", Number(place), Number(place)) for place in range(1000))
    found = rows_of(kind, Table(columns=COLUMNS, rows=rows))
    assert found[0][1] == "arm"
    assert [row[1] for row in found[1:]] == [f"arm{place}" for place in range(1000)]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_without_rows_has_its_header(kind):
    assert len(rows_of(kind, Table(columns=COLUMNS))) == 1
    assert WRITERS[kind].paragraphs([]) == ""


@settings(max_examples=60)
@given(st.lists(st.text(max_size=12), min_size=2, max_size=2))
def test_any_text_comes_back_from_its_cell(texts):
    table = Table(columns=plain("a", "b"), rows=(tuple(texts),))
    plain_texts = [visible(text).strip() for text in texts]
    assert rows_of("html", table)[1] == plain_texts
    assert len(rows_of("latex", table)[1]) == 2
    assert rows_of("markdown", table) == [["a", "b"], plain_texts]

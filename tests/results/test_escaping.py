import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from report_rows import job, tables, trajectory

from results.escaping import escape_latex, escape_markdown, file_name, visible
from results.report import write_report

HOSTILE = (
    'x/../../OUT|b*c*`d`[y](http://e)<img src=q>&amp;_f_~~g~~$h$\\i{j}%k#l^m"n\u202eo\u200bp\nq '
    "心室 שלום größe --"
)


def hostile(name):
    return {
        "dataset": f"{HOSTILE} d",
        "backbone": f"{HOSTILE} b",
        "pruner": f"{name}{HOSTILE}",
        "device": HOSTILE,
        "commit": HOSTILE,
    }


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    into = tmp_path_factory.mktemp("outer") / "report"
    rows = [
        job("none", 0, 0.8, 100.0) | hostile(""),
        job("js_stability", 0, 0.8, 25.0) | hostile("js"),
        job("random", 0, 0.8)
        | hostile("r")
        | {"status": "failed", "error": HOSTILE, "failed_stage": "search"},
    ]
    steps = [{**row, **hostile("js")} for row in trajectory("js_stability")]
    named = [
        {key: value for key, value in row.items() if key not in ("device", "commit")}
        for row in steps
    ]
    return write_report(tables(rows, named), into, sweep=HOSTILE)


def test_no_file_of_a_report_lies_outside_of_it(report):
    folder = report.markdown.parent
    assert [path.name for path in folder.parent.iterdir()] == ["report"]
    figures = list((folder / "figures").iterdir())
    assert any(path.name.startswith("importance_js") for path in figures)
    linked = re.findall(r"\]\((figures/[^)]+)\)", report.markdown.read_text().replace("\\_", "_"))
    assert sorted(linked) == sorted(f"figures/{path.name}" for path in figures)


def test_no_name_breaks_a_table_of_markdown(report):
    lines = report.markdown.read_text().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert any("OUT" in line for line in rows)
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in rows[:5]}
    assert len(widths) == 1
    plain = "\n".join(lines)
    assert not re.search(r"(?<!\\)<img", plain)
    assert not re.search(r"(?<!\\)\[y", plain)
    assert "\u202e" not in plain
    assert "[U+202E]" in plain.replace("\\", "")


def test_no_name_becomes_an_element_of_html(report):
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.append(tag)

    text = report.html.read_text()
    Reader().feed(text)
    assert "img" not in found
    assert "table" in found
    assert "\u202e" not in text


def test_a_report_with_hostile_names_compiles(report, tmp_path):
    if not shutil.which("pdflatex"):
        pytest.skip("no LaTeX on this machine")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", report.latex],
        cwd=tmp_path, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize(
    "letters", [range(0x20, 0x180), range(0x370, 0x530), range(0x2000, 0x2300)]
)
def test_every_letter_can_be_typeset(letters):
    text = "".join(map(chr, letters))
    assert escape_latex(text).isascii()
    escaped = escape_markdown(text)
    assert len(escaped) >= len(visible(text))


def test_names_of_files_stay_apart_and_below_the_limit():
    names = ["a/b", "a b", "a-b", "../a-b", "a" * 300, "a" * 301, "心", "室", "", ".", ".."]
    found = [file_name(name) for name in names]
    assert len(set(found)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,120}", name) for name in found)

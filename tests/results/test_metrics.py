"""Metrics: one definition and one column of the report for each."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from iac_core.evaluation.metrics import ClassScore
from results.metrics import METRICS
from results.schema import columns

ROOT = Path(__file__).parents[2]
DEFINITION = """
from results.metrics import METRICS, Metric
from results.tables.cells import NumberFormat

METRICS["volume_error"] = Metric(
    column="volume_error_ml", heading="volume error", label="volume error", unit="ml",
    direction="minimize", meaning="|V - V'|", note="Volume error is 100 % made up.",
    format=NumberFormat(spec=".2f"),
)
"""
COLUMN = """
from results.main_table import MAIN_COLUMNS, of_metric

MAIN_COLUMNS.append(of_metric(METRICS["volume_error"]))
"""
REPORT = """
from pathlib import Path
import sys

from report_rows import job, tables
from results.report import write_report
from results.schema import conform

rows = [job("none", seed, 0.8, 10.0, test_volume_error_ml=1.5 + seed) for seed in range(2)]
conform("patients", tables(rows)["patients"].assign(volume_error_ml=[]))
write_report(tables(rows), Path(sys.argv[1]), sweep="s")
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Folder of a report by a program that has a metric more."""
    into = tmp_path_factory.mktemp("report")
    done = subprocess.run(
        [sys.executable, "-c", DEFINITION + COLUMN + REPORT, into],
        cwd=ROOT, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'support'}", "HOME": str(into)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return into


@pytest.mark.parametrize(
    ("name", "heading", "value", "note"),
    [
        ("report.md", "| seeds | volume error (ml) |", "| 2 | 2.00 ± 0.71 |", "is 100 % made up."),
        ("report.tex", r"& seeds & volume error (ml) \\", r"& 2 & 2.00 $\pm$ 0.71 \\", ""),
        (
            "report.html",
            '<th class="n">volume error (ml)</th></tr>',
            '<td class="n">2.00 ± 0.71</td></tr>',
            "<p>Volume error is 100 % made up.</p>",
        ),
    ],
)
def test_a_metric_is_its_definition_and_its_column(report, name, heading, value, note):
    text = (report / name).read_text()
    assert heading in text
    assert value in text
    assert note in text
    is_latex = name.endswith("tex")
    assert is_latex or "pooled HD95, surface Dice and volume error are computed" in text


def test_every_metric_is_a_score_of_the_evaluation():
    scores = {field.name for field in dataclasses.fields(ClassScore)}
    assert set(METRICS) <= scores
    assert scores - set(METRICS) == {"state", "reference_ml", "prediction_ml"}


def test_every_metric_has_its_columns_with_its_unit():
    units = {
        table: {one.name: one.unit for one in columns(table)} for table in ("patients", "jobs")
    }
    for metric in METRICS.values():
        assert units["patients"][metric.column] == metric.unit
        for subset in ("validation", "test"):
            assert units["jobs"][metric.job_column(subset)] == metric.unit

import re
import shutil
import subprocess

import pandas as pd
import pytest
from report_rows import job, tables, trajectory

from results.declared import Claim, Declaration
from results.escaping import escape_latex
from results.report import write_report
from results.schema import conform

ROWS = [
    job("no_cell", 0, 0.80), job("no_cell", 1, 0.84),
    job("none", 0, 0.86, 100.0), job("none", 1, 0.88, 120.0),
    job("js_stability", 0, 0.85, 25.0), job("js_stability", 1, 0.87, 40.0),
]  # fmt: skip
EVENT = {
    "job_id": "js_stability0", "search_key": "kjs_stability0", "dataset": "acdc",
    "backbone": "unet_&_co", "pruner": "js_stability", "seed": 0, "epoch": 5, "level": 0,
    "edge": 1, "operations": "none", "rule": "js_stability", "value": 1e-4, "threshold": 2e-4,
}  # fmt: skip


def whole():
    return tables(ROWS, trajectory("js_stability") + trajectory("none"), [EVENT])


def test_missing_and_failed_jobs_are_shown_and_never_averaged_over_in_silence(tmp_path):
    rows = [*ROWS[:5], job("js_stability", 1, None, status="failed", error="NaN loss | bad")]
    found = tables(rows)
    expected = pd.DataFrame([*ROWS, job("random", 0, None), job("no_cell", 2, None)])
    keep = ["job_id", "dataset", "backbone", "pruner", "seed", "config_cell_form"]
    paths = write_report(found, tmp_path, sweep="s", expected_jobs=expected[keep])
    text = paths.markdown.read_text()
    assert "1 of 2 (1 failed)" in text
    assert "2 of 3 (1 missing)" in text
    assert "| random | — | — | — | — | — | 0 of 1 (1 missing) |" in text
    assert "NaN loss" in text


def test_a_setting_that_came_later_does_not_part_old_jobs_from_new_ones(tmp_path):
    """Seed 0 was run before `cell.start` existed, seed 1 after it."""
    frame = tables(ROWS)
    frame["jobs"]["config_cell_start"] = [
        None if seed == 0 else "plain" for seed in frame["jobs"]["seed"]
    ]
    expected = pd.DataFrame(ROWS)[["job_id", "dataset", "backbone", "pruner", "seed"]]
    expected["config_cell_start"], expected["config_cell_form"] = "plain", "replace"
    paths = write_report(frame, tmp_path, sweep="s", expected_jobs=expected)
    text = paths.markdown.read_text()
    assert "cell_start" not in text
    assert "| none | 0.870 ± 0.014 |" in text


def test_a_refused_speedup_has_its_reason_below_the_table(tmp_path):
    rows = [row | {"search_exclusive": False} for row in ROWS]
    text = write_report(tables(rows), tmp_path, sweep="s").markdown.read_text()
    assert "— (1)" in text
    assert "(1) No speed-up is given: a search shared its device" in text


def test_the_same_tables_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_report(whole(), tmp_path / name, sweep="s")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) >= 8
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    text = write_report(whole(), tmp_path, sweep="<s>").html.read_text()
    assert "&lt;s&gt;" in text
    assert "<script" not in text
    assert not re.findall(r"""(?:src|href)=["']https?:""", text)
    assert "<link" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert text.count("<svg") == 9


def test_every_figure_that_markdown_names_exists(tmp_path):
    paths = write_report(whole(), tmp_path, sweep="s")
    named = re.findall(r"\]\((figures/[^)]+)\)", paths.markdown.read_text())
    assert len(named) == 9
    assert all((tmp_path / name).exists() for name in named)


def test_latex_is_balanced_and_escaped(tmp_path):
    text = write_report(whole(), tmp_path, sweep="100 %_sweep").latex.read_text()
    assert r"100 \%\_sweep" in text
    assert r"unet\_\&\_co" in text
    assert text.count("{") == text.count("}")
    assert re.findall(r"\\begin\{(\w+)\}", text)[::-1] == re.findall(r"\\end\{(\w+)\}", text)
    for table in re.findall(r"\\begin\{tabular\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        rows = [line for line in table.splitlines() if line.endswith(r"\\")]
        assert len({line.replace(r"\&", "").count("&") for line in rows}) == 1
    assert escape_latex("a_b^2") == r"a\_b\textasciicircum{}2"


def scored(rows, dice_of):
    found = tables(rows)
    found["patients"] = conform(
        "patients",
        pd.DataFrame(
            {
                "job_id": row["job_id"], "subset": "test", "patient_id": f"p{number}",
                "volume_id": f"p{number}_1", "class_name": "LV", "state": "ok",
                "dice": dice_of[row["pruner"]] + 0.001 * number,
            }
            for row in rows
            for number in range(8)
        ),
    )  # fmt: skip
    return found


def test_arms_are_compared_with_the_full_search_and_cells_over_seeds(tmp_path):
    dice = {"no_cell": 0.9, "none": 0.8, "js_stability": 0.795}
    paths = write_report(scored(ROWS, dice), tmp_path, sweep="s")
    text = paths.markdown.read_text()
    assert "| js_stability | none | -0.50 | -0.50 to -0.50 | 0.500 | 2 | 8 |" in text
    assert "| no_cell | none | +10.00 |" in text
    assert "| js_stability | 2 | 1.00 | 1.00 | — |" in text
    assert "Declared claims" not in text
    assert "Differences of patient Dice" in paths.html.read_text()
    assert "Differences of patient Dice" in paths.latex.read_text()


@pytest.mark.parametrize(
    ("n_jobs_done", "words"),
    [(0, "before any job was done"), (3, "3 jobs were done"), (None, "not on record")],
)
def test_declared_claims_have_verdicts_and_say_when_they_were_declared(
    tmp_path, n_jobs_done, words
):
    dice = {"no_cell": 0.9, "none": 0.8, "js_stability": 0.795}
    seeds = range(6)
    rows = [
        job(pruner, seed, 0.8, None if pruner == "no_cell" else 10.0)
        for pruner in dice
        for seed in seeds
    ]
    claims = (
        Claim(arm="js_stability", reference="none", kind="not_inferior"),
        Claim(arm="none", reference="no_cell", kind="better"),
    )
    declared = Declaration(claims=claims, n_jobs_done=n_jobs_done)
    paths = write_report(scored(rows, dice), tmp_path, sweep="s", declared=declared)
    text = paths.markdown.read_text()
    few = "(few searches)"
    assert f"| js_stability | is not inferior | none | not inferior {few} | -0.50 |" in text
    assert f"| none | is better | no_cell | not shown {few} | -10.00 |" in text
    assert "| -10.00 | -10.00 to -10.00 | 1.000 | 6 | 8 |" in text
    assert words in text
    # What was declared is not repeated among the other differences.
    assert "| js_stability | none | -0.50 |" not in text


def test_agreement_over_seeds_stands_beside_chance(tmp_path):
    operations = "none,skip_connect,max_pool_3x3,sep_conv_3x3,sep_conv_5x5,dil_conv_5x5"
    rows = [row | {"config_cell_operations": operations} for row in ROWS]
    text = write_report(tables(rows), tmp_path, sweep="s").markdown.read_text()
    line = next(line for line in text.splitlines() if line.startswith("| acdc") and "(" in line)
    found = re.fullmatch(
        r".*\| js_stability \| 2 \| 1\.00 \(0\.00 to 0\.\d\d; p (< )?0\.00\d\) "
        r"\| 1\.00 \(-0\.\d\d to 0\.\d\d; p (< )?0\.00\d\) \| — \|",
        line,
    )
    assert found, line
    assert "0 is chance" not in text


def test_the_report_says_how_early_final_operations_lead(tmp_path):
    text = write_report(whole(), tmp_path, sweep="s").markdown.read_text()
    assert "## How early the final operations lead" in text
    assert "![Final operations among the top 3" in text
    without = write_report(tables(ROWS), tmp_path / "b", sweep="s").markdown.read_text()
    assert "final operations" not in without.lower()


@pytest.mark.slow
def test_latex_compiles(tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex: install texlive-latex-base and texlive-latex-recommended")
    dice = {"no_cell": 0.9, "none": 0.8, "js_stability": 0.795}
    paths = write_report(scored(ROWS, dice), tmp_path, sweep="s")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", paths.latex.name],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS[:2], ROWS[4:]])
def test_a_report_of_little_is_still_a_report(tmp_path, rows):
    paths = write_report(tables(rows), tmp_path, sweep="s")
    assert f"{len(rows)} jobs" in paths.html.read_text()

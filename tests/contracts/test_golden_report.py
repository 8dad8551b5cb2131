"""The three formats of a report, as text files beside this test.

``golden/report.md``, ``.tex`` and ``.html`` hold the report of made-up tables that reach every
section: claims and differences, dead and unrecorded searches, absent classes, a tuned arm, refused
speed-ups, failed and missing jobs, a setting on the grid, names that need escaping. Pictures are
left out. ``PYTHONPATH=.:tests/support python tests/contracts/test_golden_report.py`` writes the
files anew; a change of the report shows in their difference.
"""

import re
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from report_rows import GENOTYPE, job, tables, trajectory

from results.declared import Claim, Declaration
from results.report import write_report
from results.schema import conform
from results.transfer import StudySplit, TunedArm

FOLDER = Path(__file__).with_name("golden")
FORMATS = {"markdown": "report.md", "latex": "report.tex", "html": "report.html"}
DICE = {"no_cell": 0.80, "random": 0.81, "none": 0.84, "js_stability": 0.835, "dead": 0.79}
SECONDS = {"none": 100.0, "js_stability": 40.0, "dead": 90.0}
OPERATIONS = "none,skip_connect,max_pool_3x3,sep_conv_3x3,sep_conv_5x5,dil_conv_5x5"
N_SEEDS = 6


def job_rows():
    rows = [
        job(
            pruner, seed, dice + 0.001 * (seed * 7 % 5), SECONDS.get(pruner),
            config_cell_operations=OPERATIONS, pretrain_key=f"p{seed}",
            evaluate_key=f"e{pruner}{seed}", retrain_key=f"r{pruner}{seed}",
            best_retrain_epoch=-1 if seed == 0 else 7, retrain_kept_start=seed == 0,
            **_liveness_of(pruner, seed),
        )
        for pruner, dice in DICE.items()
        for seed in range(N_SEEDS)
    ]  # fmt: skip
    for row in rows:
        row["genotype"] = "" if row["pruner"] == "no_cell" else GENOTYPE
        row["search_exclusive"] = row["pruner"] != "dead"
    alone = {"config_cell_form": "residual", "seed": 0}
    rows += [
        row | alone | {"job_id": f"residual_{row['job_id']}", "search_key": f"x{row['job_id']}"}
        for row in rows
        if row["seed"] == 0 and row["pruner"] in ("none", "no_cell")
    ]
    failure = {"status": "failed", "failed_stage": "search", "genotype": "", "search_key": ""}
    error = "NaN loss | 5 % of <b>\n & _x_ {1}"
    return [*rows, job("random", 7, None, **failure, error=error)]


def _liveness_of(pruner, seed):
    if pruner not in SECONDS:
        return {}
    if pruner == "js_stability" and seed == 5:
        return {"search_is_alive": None}
    is_alive = pruner == "none" or (pruner == "js_stability" and seed != 1)
    share = 1.0 if is_alive else 0.5
    return {
        "search_is_alive": is_alive, "live_edge_share": share, "cell_contribution": 0.3 + share,
        "search_compile_s": 12.0,
    }  # fmt: skip


def patient_rows(rows):
    for row in rows:
        if row["status"] != "done":
            continue
        for number in range(8):
            for class_name in ("LV", "wall_&_rest"):
                offset = 0.002 * ((number * 3 + row["seed"] * 5 + len(class_name)) % 7)
                state = _state(row["pruner"], number, class_name)
                dice = {"ok": row["test_dice"] + offset, "both_empty": None}.get(state, 0.0)
                yield {
                    "job_id": row["job_id"], "dataset": row["dataset"],
                    "backbone": row["backbone"], "pruner": row["pruner"], "seed": row["seed"],
                    "subset": "test", "patient_id": f"p{number}", "volume_id": f"p{number}_1",
                    "class_name": class_name, "state": state, "dice": dice, "hd95_mm": 5.0,
                    "reference_ml": 12.5 if state in ("ok", "pred_empty") else 0.0,
                    "prediction_ml": 0.25 if state in ("ok", "gt_empty") else 0.0,
                }  # fmt: skip


def _state(pruner, number, class_name):
    if class_name == "LV" or number > 2:
        return "ok"
    if number == 0:
        return "pred_empty" if pruner in ("random", "no_cell") else "ok"
    return "gt_empty" if pruner == "none" and number == 1 else "both_empty"


def look_rows():
    return [
        {
            "job_id": f"none{seed}", "search_key": f"knone{seed}", "pruner": "none",
            "dataset": "acdc", "backbone": "unet_&_co", "seed": seed, "look": look,
            "alpha_step": 8 * 2**look, "epoch": look, "level": 0, "edge": 0, "evidence": 5.0,
            "bound": 4.6, "is_alive": True, "entropy_bits": 2.5 - look,
        }
        for seed in range(2)
        for look in range(2)
    ]  # fmt: skip


def write(into):
    rows = job_rows()
    steps = [*trajectory("js_stability"), *trajectory("none", 20)]
    found = tables(rows, steps)
    found["patients"] = conform("patients", pd.DataFrame(patient_rows(rows)))
    found["liveness"] = conform("liveness", pd.DataFrame(look_rows()))
    found["stages"] = conform(
        "stages",
        pd.DataFrame(
            [{"key": f"p{seed}", "kind": "pretrain", "outcome": "done"} for seed in "01"]
        ),
    )
    expected = pd.DataFrame([*rows, job("none", 9, None, config_cell_operations=OPERATIONS)])
    names = ["job_id", "dataset", "backbone", "pruner", "seed"]
    names += ["config_cell_form", "config_cell_operations"]
    claims = (
        Claim(arm="js_stability", reference="none", kind="not_inferior"),
        Claim(arm="none", reference="no_cell", kind="better"),
        Claim(arm="js_stability", reference="random"),
        Claim(arm="random", reference="no_cell", kind="equivalent"),
    )
    tuned = TunedArm(
        pruner="js_stability",
        tuned_on="acdc · unet_&_co",
        seen=frozenset({"js_stability0", "none0"}),
        splits=(StudySplit(dataset="acdc", patients=frozenset({"p0"})),),
        references=("none", "random"),
    )
    return write_report(
        found, into, sweep="acdc_&_100 %", expected_jobs=expected[names], tuned=[tuned],
        declared=Declaration(claims=claims, n_jobs_done=0),
    )  # fmt: skip


def texts(into):
    """Format → the report without its pictures."""
    paths = write(into)
    return {
        kind: re.sub(r"<svg.*?</svg>", "<svg/>", getattr(paths, kind).read_text(), flags=re.DOTALL)
        for kind in FORMATS
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return texts(tmp_path_factory.mktemp("golden"))


@pytest.mark.parametrize("kind", FORMATS)
def test_the_report_is_what_it_was(found, kind):
    assert found[kind] == (FOLDER / FORMATS[kind]).read_text()


@pytest.mark.parametrize("kind", FORMATS)
def test_the_golden_report_reaches_every_section(kind):
    text = (FOLDER / FORMATS[kind]).read_text()
    for title in (
        "Declared claims", "Differences of patient Dice", "The same differences by other methods",
        "Are the arms with cells different", "Agreement over seeds", "Absent classes",
        "Living searches", "How early", "Tuned settings", "cell\\_form residual"
    ):  # fmt: skip
        assert title.replace("\\", "" if kind != "latex" else "\\") in text, title


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        for format_name, text in texts(Path(made)).items():
            (FOLDER / FORMATS[format_name]).write_text(text)

"""What the report says of living and dead searches, and of records that say nothing."""

from pathlib import Path

import pandas as pd
import pytest

from results.errors import SchemaError
from results.liveness import (
    DEAD,
    arm_name,
    count_alive,
    dead_jobs,
    last_entropies,
    liveness_section,
    liveness_table,
    noted_arm_name,
)
from results.report import write_report
from results.schema import conform, empty
from results.sections import sections
from results.store import read_tables
from results.tables.cells import Noted

RECORDS = Path(__file__).parents[2] / "benchmarks" / "records"
GENOTYPE = '{"n_nodes":1,"levels":[[[0,2,"sep_conv_3x3"],[1,2,"skip_connect"]]]}'


def job(pruner, seed, *, alive=None, share=None, contribution=None, kept=None, searched=True):
    row = {
        "job_id": f"{pruner}{seed}", "dataset": "acdc", "backbone": "unet", "pruner": pruner,
        "seed": seed, "status": "done", "test_dice": 0.8, "genotype": GENOTYPE,
        "best_retrain_epoch": -1 if kept else 7, "retrain_key": f"r{pruner}{seed}",
        "retrain_kept_start": kept,
    }  # fmt: skip
    if searched:
        row |= {
            "search_s": 10.0, "search_epochs": 5, "search_epochs_full": 9,
            "search_key": f"k{pruner}{seed}", "search_is_alive": alive,
            "live_edge_share": share, "cell_contribution": contribution,
            "search_exclusive": True, "search_other_load": 0.0,
        }  # fmt: skip
    return row


def jobs(*rows):
    return conform("jobs", pd.DataFrame(rows))


def look(key, number, edge, entropy, **more):
    row = {
        "job_id": key, "search_key": key, "pruner": "none", "look": number,
        "alpha_step": 8 * 2**number, "epoch": number, "level": 0, "edge": edge, "evidence": 1.0,
        "bound": 4.6, "is_alive": False, "entropy_bits": entropy,
    }  # fmt: skip
    return row | more


DEAD_ARM = [
    job("none", 0, alive=False, share=0.25, contribution=0.3, kept=True),
    job("none", 1, alive=False, share=0.75, contribution=0.1, kept=False),
]
MIXED_ARM = [
    job("js_stability", 0, alive=True, share=1.0, contribution=0.5, kept=False),
    job("js_stability", 1, alive=False, share=0.5, contribution=0.4, kept=False),
]
OLD_ARM = [job("shapley", 0), job("shapley", 1)]
RANDOM = job("random", 0, searched=False, kept=True)


def tables(*rows, looks=()):
    found = {name: empty(name) for name in ("patients", "stages", "trajectories", "events")}
    found["jobs"] = jobs(*rows)
    found["liveness"] = conform("liveness", pd.DataFrame(looks))
    return found


def test_an_arm_is_dead_only_if_all_its_searches_say_so():
    assert arm_name(jobs(*DEAD_ARM), "none") == f"none: {DEAD}"
    assert arm_name(jobs(*MIXED_ARM), "js_stability") == "js_stability"
    assert arm_name(jobs(*OLD_ARM), "shapley") == "shapley"
    assert arm_name(jobs(DEAD_ARM[0], job("none", 1)), "none") == "none"
    assert arm_name(jobs(RANDOM), "random") == "random"


def test_a_search_that_several_jobs_share_counts_once():
    twice = [DEAD_ARM[0], DEAD_ARM[0] | {"job_id": "again", "retrain_key": "other"}]
    assert count_alive(jobs(*twice)).n_searches == 1
    assert dead_jobs(jobs(*twice)) == {"none0", "again"}
    row = liveness_table(jobs(*twice), empty("liveness")).iloc[0]
    assert (row["n_searches"], row["n_retrainings"], row["n_kept_start"]) == (1, 2, 2)


def test_failed_and_missing_jobs_say_nothing():
    failed = DEAD_ARM[0] | {"status": "failed"}
    assert count_alive(jobs(failed)).n_searches == 0
    assert arm_name(jobs(failed), "none") == "none"


def test_footnotes_say_how_many_searches_were_dead():
    dead = noted_arm_name(jobs(*DEAD_ARM), "none")
    assert isinstance(dead, Noted)
    assert dead.cell == f"none: {DEAD}"
    assert "No search of this arm was alive" in dead.note
    mixed = noted_arm_name(jobs(*MIXED_ARM), "js_stability")
    assert isinstance(mixed, Noted)
    assert mixed.cell == "js_stability"
    assert "Dead searches of js_stability: 1 of 2." in mixed.note
    assert noted_arm_name(jobs(*OLD_ARM), "shapley") == "shapley"


def test_the_entropy_is_that_of_the_last_look_of_each_search():
    looks = conform(
        "liveness",
        pd.DataFrame(
            [look("a", 0, 0, 3.0), look("a", 1, 0, 2.0), look("a", 1, 1, 1.0), look("b", 0, 0, 3)]
        ),
    )
    assert last_entropies(looks).to_dict() == {"a": 1.5, "b": 3.0}


def test_the_section_has_a_line_per_arm():
    looks = [look("knone0", 1, edge, 2.5) for edge in (0, 1)]
    found = liveness_section(
        jobs(*DEAD_ARM, *MIXED_ARM, *OLD_ARM, RANDOM),
        conform("liveness", pd.DataFrame(looks)),
        "",
    )
    lines = {line[2]: line[3:] for line in found.lines}
    assert lines[f"none: {DEAD}"] == ("0 of 2", "50 %", "0.10", "2.50", "1 of 2")
    assert lines["js_stability"] == ("1 of 2", "75 %", "0.40", "—", "0 of 2")
    assert lines["shapley"] == ("not recorded",) * 5
    assert lines["random"] == ("—", "—", "—", "—", "1 of 1")
    assert all(len(line) == len(found.header) for line in found.lines)


def test_a_partly_recorded_arm_says_how_much_is_unknown():
    row = liveness_section(
        jobs(DEAD_ARM[0], job("none", 1)), empty("liveness"), ""
    ).lines[0]  # fmt: skip
    assert row[3] == "0 of 1 (1 not recorded)"
    assert row[-1] == "1 of 1 (1 not recorded)"


def test_a_search_without_edges_to_judge_has_no_share():
    alive = job("one_shot", 0, alive=True, contribution=0.4, kept=False)
    line = liveness_section(jobs(alive), empty("liveness"), "").lines[0]
    assert line[3:] == ("1 of 1", "—", "0.40", "—", "0 of 1")


@pytest.mark.parametrize("kind", ["markdown", "html", "latex"])
def test_every_format_names_the_cells_of_dead_searches(tmp_path, kind):
    paths = write_report(tables(*DEAD_ARM, *MIXED_ARM), tmp_path, sweep="s")
    text = getattr(paths, kind).read_text()
    assert f"none: {DEAD} (1)" in text
    assert "(1) No search of this arm was alive" in text
    assert "Living searches and starting states" in text
    assert text.count(f"none: {DEAD}") >= 2
    if kind != "latex":
        assert "Cell of acdc · unet · none · seed 0 · random cell (dead search)" in text
        assert "Search alive: evidence chose its cells" in text


@pytest.mark.parametrize("kind", ["markdown", "html", "latex"])
def test_an_old_record_is_called_neither_dead_nor_alive(tmp_path, kind):
    found = tables(*OLD_ARM)
    del found["liveness"]
    text = getattr(write_report(found, tmp_path, sweep="s"), kind).read_text()
    assert "not recorded" in text
    assert f"shapley: {DEAD}" not in text
    assert f"seed 0 · {DEAD}" not in text


def test_settings_of_the_grid_are_judged_apart():
    rows = [row | {"config_cell_form": "replace"} for row in MIXED_ARM]
    rows += [
        row | {"config_cell_form": "residual", "job_id": f"x{row['job_id']}", "pruner": "none"}
        for row in DEAD_ARM
    ]
    found = [entry for entry in sections(jobs(*rows), tables(*rows)) if "Living" in entry.title]
    assert [entry.title for entry in found] == [
        "Living searches and starting states (cell_form replace)",
        "Living searches and starting states (cell_form residual)",
    ]


def test_tables_of_an_older_version_lack_what_is_new():
    found = read_tables(RECORDS / "acdc_claims_withdrawn")
    assert len(found["jobs"]) == 80
    assert len(found["liveness"]) == 0
    assert found["jobs"][["search_is_alive", "retrain_kept_start"]].isna().all(axis=None)
    with pytest.raises(SchemaError, match=r"jobs\.parquet"):
        read_tables(RECORDS)


@pytest.mark.slow
def test_tables_of_an_older_version_make_a_report(tmp_path):
    found = read_tables(RECORDS / "acdc_claims_withdrawn")
    text = write_report(found, tmp_path, sweep="acdc_claims_withdrawn").markdown.read_text()
    assert "| all | all | all | not recorded |" in text
    assert f": {DEAD}" not in text

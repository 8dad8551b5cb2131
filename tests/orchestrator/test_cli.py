"""The command line as a user meets it: plans without side effects, bad input, no traceback."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from iac_core.data.nifti import write_nifti

ROOT = Path(__file__).parents[2]


def orchestrator(*words, cwd):
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, words)],
        cwd=cwd, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(cwd)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_plan_counts_what_is_shared_and_writes_nothing(write_sweep, tmp_path):
    sweep = write_sweep("[no_cell, random, none, js_stability]", "[0, 1]")
    before = listing(tmp_path)
    done = orchestrator("plan", sweep, "--jobs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    counts, _, costs = done.stdout.partition("\n\n")
    rows = {line.split()[0]: line.split()[1:] for line in counts.splitlines()}
    assert rows["pretrain"] == ["8", "2", "0", "2"]
    assert rows["search"] == ["4", "4", "0", "4"]
    assert done.stdout.count("js_stability · seed") == 2
    assert "nothing was ever observed" in costs
    assert listing(tmp_path) == before


def test_a_plan_says_what_a_study_takes_beside_the_grid(write_sweep, tmp_path):
    sweep = write_sweep("[none, js_stability]", "[0, 1]")
    sweep.write_text(
        sweep.read_text()
        + """    study:
      space: {js_stability: {rank_guard: [true, false]}}
      judged_on: {seed: [1]}
      confirmed: 3
"""
    )
    done = orchestrator("plan", sweep, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "500 trials replayed, 3 searched for" in done.stdout
    assert "on 1 of 2 cells each: at most 3 searches" in done.stdout


def test_a_plan_for_a_cluster_with_a_price_after_a_probe(write_sweep, tmp_path):
    words = ("--probe", "--machines", "3", "--cpus", "4", "--price-per-hour", "2.5")
    done = orchestrator("plan", write_sweep("[none]"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "measured: search none unet" in done.stdout
    assert "On 3 × 4 CPUs and 0 GPUs: " in done.stdout
    assert "cost" in done.stdout
    assert sorted(entry.name for entry in (tmp_path / "runs" / "store").iterdir()) == ["costs"]
    too_large = (
        write_sweep("[none]", extra="").read_text().replace("cpus: 2,", "search: {cpus: 99},")
    )
    (tmp_path / "tiny.yaml").write_text(too_large)
    done = orchestrator("run", tmp_path / "tiny.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "resources.search must fit one machine, got 99 CPUs" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "store" / "prepare").exists()


def test_plan_works_without_the_data_and_says_that_keys_are_provisional(tmp_path):
    done = orchestrator("plan", ROOT / "sweeps" / "acdc_small.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "keys are provisional" in done.stdout


def test_a_wrong_sweep_ends_with_code_2_and_no_traceback(write_sweep, tmp_path):
    sweep = write_sweep("[nonne]", "[0, x]")
    done = orchestrator("run", sweep, cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'none'" in done.stderr
    assert "2 problems; nothing was started." in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_bad_volumes_are_all_named_before_anything_runs(write_sweep, tmp_path, phantom_folder):
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(phantom_folder, folder)
    images = sorted((folder / "training").rglob("*_frame01.nii.gz"))
    images[0].write_bytes(images[0].read_bytes()[:500])
    labels = sorted((folder / "training").rglob("*_frame01_gt.nii.gz"))[2]
    write_nifti(labels, np.full((4, 4, 4), 9, dtype=np.uint8), np.eye(4))
    done = orchestrator("run", write_sweep(), "--data", f"phantom={folder}", cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert str(images[0]) in done.stderr
    assert str(labels) in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs" / "store" / "prepare").exists()


def test_problems_of_the_sweep_and_of_its_volumes_are_said_together(
    write_sweep, tmp_path, phantom_folder
):
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(phantom_folder, folder)
    image = sorted((folder / "training").rglob("*_frame01.nii.gz"))[0]
    image.write_bytes(b"gone")
    sweep = write_sweep("[nonne]")
    done = orchestrator("run", sweep, "--data", f"phantom={folder}", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean 'none'" in done.stderr
    assert str(image) in done.stderr
    assert "2 problems; nothing was started." in done.stderr


def test_an_empty_split_is_refused_before_anything_runs(write_sweep, tmp_path):
    sweep = write_sweep()
    sweep.write_text(sweep.read_text().replace("n_folds: 4", "n_folds: 9"))
    done = orchestrator("run", sweep, cwd=tmp_path)
    assert done.returncode == 2
    assert "as many patients as folds" in done.stderr


@pytest.mark.parametrize("words", [("--data", "phantom"), ("--data", "nobody=/tmp")])
def test_a_wrong_data_option_is_refused(write_sweep, tmp_path, words):
    done = orchestrator("plan", write_sweep(), *words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_doctor_says_ok_or_the_way_out(write_sweep, tmp_path):
    done = orchestrator("doctor", write_sweep(), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 patients, 16 volumes" in done.stdout
    sweep = write_sweep()
    text = sweep.read_text().replace(
        "    resources", "    tracking: {uri: 'http://127.0.0.1:9'}\n    resources"
    )
    sweep.write_text(text)
    done = orchestrator("doctor", sweep, "--data", "phantom=/absent", cwd=tmp_path)
    assert done.returncode == 1
    assert "got no tracking server at 127.0.0.1:9 (Connection refused); start it" in done.stdout
    assert "give it with --data phantom=PATH" in done.stdout


def test_a_report_from_a_server_that_is_away_says_so(tmp_path):
    words = ("report", "--tracking-uri", "http://127.0.0.1:9", "--experiment", "x")
    done = orchestrator(*words, cwd=tmp_path)
    assert done.returncode == 1
    assert "no report was written" in done.stderr
    assert "the tracking server must answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_data_check_reads_a_folder_and_says_what_it_holds(phantom_folder, tmp_path):
    done = orchestrator("data", "check", f"acdc={phantom_folder}", cwd=tmp_path)
    assert done.returncode == 0
    assert "8 patients, 16 labelled volumes" in done.stdout
    assert "LV: in 16 of 16 volumes" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("acdc",), "must be LAYOUT=PATH"),
        (("kits24=/absent",), "did you mean 'kits23'?"),
        (("acdc=/absent",), "the data folder must exist"),
        (("acdc=PHANTOM", "--leave-out", "patient01"), "did you mean 'patient001'?"),
        (("acdc=PHANTOM", "--patient-pattern", "("), "one group"),
    ],
)
def test_data_check_says_what_is_wrong_with_what_was_typed(phantom_folder, tmp_path, words, said):
    typed = [word.replace("PHANTOM", str(phantom_folder)) for word in words]
    done = orchestrator("data", "check", *typed, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_data_show_writes_a_page_with_a_picture_of_every_volume(phantom_folder, tmp_path):
    words = ("data", "show", f"acdc={phantom_folder}", "--volumes", "3", "--out", "a/page.html")
    done = orchestrator(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "a" / "page.html").read_text()
    assert text.count("data:image/png;base64,iVBOR") == 3
    assert "patient001_frame01 ED" in text
    assert all(name in text for name in ("RV", "MYO", "LV"))

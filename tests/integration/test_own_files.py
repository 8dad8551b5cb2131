"""One damaged byte, a cut half and an emptied file, of every kind of file that a sweep writes.

The sweep then ends whole by the same command, and its tables equal those of an undisturbed run.

Left out, each with its reason: ``mlflow.db`` (SQLite's, written by MLflow: a damaged database is
MLflow's error), ``study.journal`` (Optuna's; a damaged line must be mended by hand, see
``tests/orchestrator/test_study_journal.py``), an artifact of MLflow together with the copy of it
that was collected (MLflow's own store then has no whole table: the error names the run), what
nnU-Net writes (its stages take minutes; its files are checked by the same checksums), and exports
(``tests/iac_core/test_exported.py``).
"""

import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from command_processes import run_command
from tiny_sweep import TINY_SWEEP

from results.schema import TABLES, wall_clock_columns
from results.store import read_table
from workers.stage_store import StageStore

pytestmark = pytest.mark.slow

KEY = r"[0-9a-f]{16}"
TABLE = rf"({'|'.join(TABLES)})\.parquet"
STAGE_FILES = {
    "prepare": [
        "images.npy",
        "labels.npy",
        "reference_labels.npy",
        "histograms.npy",
        "index.json",
    ],
    "pretrain": ["weights.pt", "curve.json", "split.json"],
    "search": ["genotype.json", "events.json", "curve.json", "liveness.json", "trajectory.npz"],
    "retrain": ["weights.pt", "curve.json"],
    "predict": ["masks.json"],
    "evaluate": ["patients.json"],
}
NOTES = {
    "stamp": r"store/store\.json",
    "checked data": rf"store/checks/acdc-{KEY}-{KEY}\.json",
    "built network": rf"store/checks/network-{KEY}\.json",
    "remembered data": r"tiny/folders/[\w.-]+\.json",
    "lease": r"store/(leases|attempts)/[\w-]+/lease\.\d{6}\.json",
    "end of a lease": r"store/(leases|attempts)/[\w-]+/lease\.\d{6}\.over",
    "beat of a lease": r"store/(leases|attempts)/[\w-]+/lease\.\d{6}\.beat",
    "peak": rf"store/peaks/{KEY}\.{KEY}\.json",
    "machines": r"tiny/cluster\.json",
    "declared claims": r"tiny/declared\.json",
    "reported jobs": r"tiny/reported\.json",
    "report": r"tiny/report/report\.(md|tex|html)",
    "figure": r"tiny/report/figures/\w+\.svg",
    "table": rf"tiny/tables/{TABLE}",
}
COLLECTED = {
    "collected version": rf"tiny/tables/runs/{KEY}/collected\.json",
    "collected table": rf"tiny/tables/runs/{KEY}/{TABLE}",
}
ARTIFACTS = {
    "artifact table": rf"mlartifacts/tiny/\w+/artifacts/tables/{TABLE}",
    "artifact genotype": r"mlartifacts/tiny/\w+/artifacts/genotype\.json",
}
OUTCOMES = {
    f"{kind} {name}": rf"store/{kind}/{KEY}/{re.escape(name)}"
    for kind, names in STAGE_FILES.items()
    for name in [*names, "manifest.json"]
} | {"predict mask": rf"store/predict/{KEY}/mask_\d{{5}}\.npz"}
ATTEMPTS = {
    f"attempt's {name}": rf"store/attempts/\w+-{KEY}/[0-9a-f-]+/{re.escape(name)}"
    for name in ("attempt.json", "progress.json", "outcome.json", "checkpoint.pt")
} | {"part": rf"store/attempts/prepare-{KEY}/[0-9a-f-]+/checkpoint\.parts/\d+\.npz"}
LEFT_OUT = {"database": r"mlflow\.db"}
KINDS = NOTES | COLLECTED | ARTIFACTS | OUTCOMES | ATTEMPTS | LEFT_OUT


def flipped(content):
    if not content:
        return content
    place = len(content) // 5
    return content[:place] + bytes([content[place] ^ 8]) + content[place + 1 :]


DAMAGES = {
    "flipped": flipped,
    "cut": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
}


class Sweep:
    """A sweep in its own folder, in states that copies bring back."""

    def __init__(self, folder, phantom):
        self.folder, self.runs = folder, folder / "runs"
        self.path = folder / "tiny.yaml"
        text = TINY_SWEEP.replace("PHANTOM", str(phantom)).replace("SEEDS", "[0]")
        text = text.replace("PRUNERS", "[js_stability, random]").replace(
            "cpus: 2,", "cpus: 2, lease_s: 3,"
        )
        claim = "    compare: [{arm: js_stability, reference: random}]\n"
        self.path.write_text(text.replace("    grid:", claim + "    grid:"))
        self.seen = set()

    def run(self, ends_at=None):
        words = ["run", self.path, "--runs", self.runs, "--inline"]
        return run_command(words, self.folder / "log", ends_at=ends_at)

    def runs_to_its_end(self):
        status, output = self.run()
        assert "Traceback" not in output, output
        assert status == 0, output
        return output

    def keep(self, state):
        self.seen |= set(self.files())
        shutil.copytree(self.runs, self.folder / state)

    def restore(self, state):
        shutil.rmtree(self.runs)
        shutil.copytree(self.folder / state, self.runs)

    def files(self, kinds=None):
        """Name → kind of the files that there are; each must be of a kind that is listed."""
        found = {}
        for path in sorted(self.runs.rglob("*")):
            name = path.relative_to(self.runs).as_posix()
            if path.is_file():
                of = [kind for kind, form in KINDS.items() if re.fullmatch(form, name)]
                assert len(of) == 1, f"{name} is of no kind that is listed, or of several: {of}"
                if kinds is None or of[0] in kinds:
                    found[name] = of[0]
        return found

    def damage(self, kinds, damage):
        """Damage all files of some kinds in one way; empty ones stay as they are."""
        names = self.files(kinds)
        for name in names:
            content = (self.runs / name).read_bytes()
            (self.runs / name).write_bytes(DAMAGES[damage](content))
        return names

    def tables(self):
        found = {}
        for name in TABLES:
            frame = read_table(self.runs / "tiny" / "tables" / f"{name}.parquet", name)
            if name == "stages":
                frame = frame[frame["outcome"] == "done"]
            found[name] = frame.drop(columns=wall_clock_columns(name)).reset_index(drop=True)
        return found

    def is_as_undisturbed(self):
        assert self.tables().keys() == self.undisturbed.keys()
        for name, frame in self.tables().items():
            pd.testing.assert_frame_equal(frame, self.undisturbed[name], obj=name)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory, phantom_folder):
    """The sweep after an undisturbed run, and in the states that kills left on the way."""
    sweep = Sweep(tmp_path_factory.mktemp("own"), phantom_folder)
    status, output = sweep.run(("killed", "prepare", 6))
    assert status == -9, output
    sweep.keep("killed in the preparation")
    status, output = sweep.run(("stopped", "search", 2))
    assert status == 130, output
    status, output = sweep.run(("killed", "search", 4))
    assert status == -9, output
    sweep.keep("killed in the search")
    shutil.rmtree(sweep.runs)
    sweep.runs_to_its_end()
    sweep.keep("whole")
    sweep.undisturbed = sweep.tables()
    return sweep


def test_every_kind_of_file_is_written_and_listed(sweep):
    found = {
        kind for name in sweep.seen for kind, form in KINDS.items() if re.fullmatch(form, name)
    }
    # A beat is written once in a third of a lease's life, which a sweep of seconds may not see.
    assert KINDS.keys() - found <= {"beat of a lease"}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damaged_file_of_a_stage_is_found(sweep, damage):
    sweep.restore("whole")
    for name, kind in sweep.files(OUTCOMES).items():
        path = sweep.runs / name
        content, (_, stage, key) = path.read_bytes(), path.relative_to(sweep.runs).parts[:3]
        store = StageStore(sweep.runs / "store")
        assert store.damage(stage, key) is None
        changed = DAMAGES[damage](content)
        if changed == content:
            continue  # an image without CT has no histograms, and a header alone
        path.write_bytes(changed)
        assert store.damage(stage, key), kind
        path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_notes_tables_and_reports_are_made_again(sweep, damage):
    sweep.restore("whole")
    reports = {
        name: (sweep.runs / name).read_bytes() for name in sweep.files(("report", "figure"))
    }
    damaged = sweep.damage({*NOTES, *ARTIFACTS}, damage)
    output = sweep.runs_to_its_end()
    sweep.is_as_undisturbed()
    assert {name for name in reports if not (sweep.runs / name).exists()} == set()
    assert all((sweep.runs / name).stat().st_size for name in reports)
    for name, kind in damaged.items():
        if kind in ("stamp", "checked data", "peak", "reported jobs", "machines"):
            lines = [line for line in output.splitlines() if Path(name).name in line]
            assert len([line for line in lines if "is damaged" in line]) <= 1, output
    assert "store.json is damaged and counts as absent" in output


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_collected_and_is_damaged_is_collected_again(sweep, damage):
    """Strangers are passed over: what desktops leave, files for folders and the reverse."""
    sweep.restore("whole")
    sweep.damage({*COLLECTED, "reported jobs"}, damage)
    for folder in [path for path in sweep.runs.rglob("*") if path.is_dir()]:
        if "mlartifacts" not in folder.parts:
            (folder / ".DS_Store").write_bytes(os.urandom(50))
    store = sweep.runs / "store"
    (store / "peaks" / f"{'0' * 16}.{'1' * 16}.json").mkdir()
    (store / "search" / ("2" * 16)).write_bytes(b"x")
    (store / "retrain" / ("3" * 16)).mkdir()
    (store / "attempts" / "stray").write_bytes(b"x")
    (sweep.runs / "tiny" / "tables" / "runs" / "stray").write_bytes(b"x")
    sweep.runs_to_its_end()
    sweep.is_as_undisturbed()


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_stages_that_others_build_on_are_computed_again(sweep, damage):
    """Nothing is tracked yet, and the evaluations are to come: every other stage is read."""
    sweep.restore("whole")
    shutil.rmtree(sweep.runs / "store" / "evaluate")
    for name in ("mlflow.db", "mlartifacts", "tiny"):
        path = sweep.runs / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    kinds = [kind for kind in OUTCOMES if "manifest" not in kind]
    damaged = sweep.damage(kinds, damage)
    output = sweep.runs_to_its_end()
    sweep.is_as_undisturbed()
    for stage in {name.rpartition("/")[0] for name in damaged}:
        assert output.count(f"runs/{stage} is damaged and moved to") == 1, output


@pytest.mark.parametrize("damage", DAMAGES)
def test_stages_with_damaged_manifests_are_computed_again(sweep, damage):
    sweep.restore("whole")
    damaged = sweep.damage([f"{kind} manifest.json" for kind in STAGE_FILES], damage)
    output = sweep.runs_to_its_end()
    sweep.is_as_undisturbed()
    for name in damaged:
        assert output.count(f"{name} is damaged and counts as absent") == 1, output


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_killed_search_with_damaged_files_ends_all_the_same(sweep, damage):
    sweep.restore("killed in the search")
    damaged = sweep.damage({*ATTEMPTS, "lease", "beat of a lease"}, damage)
    assert {"attempt's checkpoint.pt", "attempt's outcome.json"} <= set(damaged.values())
    sweep.runs_to_its_end()
    sweep.is_as_undisturbed()


def test_an_older_checkpoint_is_taken_where_the_newest_is_damaged(sweep):
    sweep.restore("killed in the search")
    found = [sweep.runs / name for name in sweep.files(["attempt's checkpoint.pt"])]
    newest = max(found, key=lambda path: path.stat().st_mtime_ns)
    assert len([path for path in found if path.parent.parent == newest.parent.parent]) >= 2
    newest.write_bytes(b"")
    output = sweep.runs_to_its_end()
    sweep.is_as_undisturbed()
    assert output.count("an older one is taken") == 1, output


def test_damaged_parts_of_a_killed_preparation_are_made_again(sweep):
    sweep.restore("killed in the preparation")
    parts = sorted(sweep.runs / name for name in sweep.files(["part"]))
    assert len(parts) >= 6
    for path, damage in zip(parts, DAMAGES.values(), strict=False):
        path.write_bytes(damage(path.read_bytes()))
    output = sweep.runs_to_its_end()
    sweep.is_as_undisturbed()
    assert output.count("made again") == 3, output

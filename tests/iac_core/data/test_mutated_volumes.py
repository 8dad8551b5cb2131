"""Random damage of NIfTI headers and of compressed bytes: an error of ours, or a volume.

Each damaged volume goes through the check of its folder and through the reader, in a child
process whose address space is limited to 2 GiB. Nothing but `DataError` may come out, within 10 s
for each volume. Sixty damages of a generated volume run by default; set ``IAC_MUTATIONS=500`` for
as many, drawn from a generated volume and, where ``IAC_TEST_DATA`` is set, from a real one too.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from broken_volumes import mutations, write_folder

ROOT = Path(__file__).parents[3]
N_SHORT = 60
MOST_MEMORY_BYTES = 2 * 2**30
MOST_SECONDS = 10.0


def examine(root):
    """Check a folder and read its first volume; returns what came out and how long it took."""
    from iac_core.config import DatasetOptions
    from iac_core.data import open_dataset
    from iac_core.data.check import check_dataset, load_checked
    from iac_core.errors import DataError

    begin = time.monotonic()
    dataset = open_dataset("folder", root, DatasetOptions())
    summary = check_dataset(dataset)
    outcome = "warned" if summary.warnings else "fine"
    try:
        ref = next(ref for ref in dataset.volumes() if ref.volume_id == "case_0")
        volume = load_checked(dataset, ref)
        assert volume.image.shape[1:] == volume.labels.shape
    except DataError:
        outcome = "refused"
    assert (outcome == "refused") == bool(summary.problems), summary.problems
    for problem in summary.problems:
        assert problem.file.startswith(str(root))
        assert problem.rule
        assert problem.value
        assert problem.way_out
    assert summary.n_volumes == 2 - (outcome == "refused")
    return outcome, time.monotonic() - begin


def damage_all(root, n_mutations, seed):
    """Damage image or labels of the first case again and again; print one line for each."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    warnings.simplefilter("error")
    paths = [root / kind / "case_0.nii.gz" for kind in ("images", "labels")]
    whole = [path.read_bytes() for path in paths]
    for number in range(2):
        for content, what in mutations(whole[number], n_mutations // 2, seed + number):
            paths[number].write_bytes(content)
            line = {"what": f"{paths[number].parent.name}: {what}"}
            sys.stdout.write(json.dumps({**line, "began": True}) + "\n")
            sys.stdout.flush()
            line["outcome"], line["seconds"] = examine(root)
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        paths[number].write_bytes(whole[number])


def run(root, n_mutations, seed):
    """Damage volumes in a child process; returns what came out of each."""
    code = (
        "import sys; from pathlib import Path; from test_mutated_volumes import damage_all; "
        f"damage_all(Path({str(root)!r}), {n_mutations}, {seed})"
    )
    paths = [ROOT, ROOT / "tests" / "support", Path(__file__).parent]
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root,
        env=environment, timeout=60 + MOST_SECONDS * n_mutations,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, (lines[-1:], done.stderr[-3000:])
    ended = [line for line in lines if "outcome" in line]
    assert len(ended) == n_mutations
    slow = [line for line in ended if line["seconds"] > MOST_SECONDS]
    assert slow == []
    return ended


def counts(ended):
    return {name: sum(line["outcome"] == name for line in ended)
            for name in ("refused", "warned", "fine")}  # fmt: skip


def test_damaged_volumes_are_refused_or_read(tmp_path):
    write_folder(tmp_path / "data", n_cases=2)
    found = counts(run(tmp_path / "data", N_SHORT, seed=0))
    assert found["refused"] > N_SHORT // 2


def test_the_child_would_notice_an_error_of_another_kind(tmp_path):
    write_folder(tmp_path / "data", n_cases=2)
    (tmp_path / "data" / "labels" / "case_1.nii.gz").unlink()  # one volume less than expected
    with pytest.raises(AssertionError):
        run(tmp_path / "data", 2, seed=0)


@pytest.mark.slow
@pytest.mark.skipif("IAC_MUTATIONS" not in os.environ, reason="set IAC_MUTATIONS=500")
def test_many_damages_of_generated_and_real_volumes(tmp_path):
    n_mutations, real = int(os.environ["IAC_MUTATIONS"]), os.environ.get("IAC_TEST_DATA", "")
    sources = ["generated"]
    write_folder(tmp_path / "generated", n_cases=2)
    task = Path(real) / "msd_hippocampus" / "Task04_Hippocampus"
    if real and task.is_dir():
        sources.append("real")
        write_folder(tmp_path / "real", n_cases=2)
        (tmp_path / "real" / "dataset.yaml").write_text("labels: {background: 0, a: 1, p: 2}\n")
        for kind, folder in (("images", "imagesTr"), ("labels", "labelsTr")):
            shutil.copy(
                task / folder / "hippocampus_001.nii.gz",
                tmp_path / "real" / kind / "case_0.nii.gz",
            )
    for seed, name in enumerate(sources, start=1):
        ended = run(tmp_path / name, n_mutations // len(sources), seed=10 * seed)
        sys.stdout.write(f"\n{name}: {counts(ended)}, slowest "
                         f"{max(line['seconds'] for line in ended):.2f} s\n")  # fmt: skip
        (tmp_path / f"{name}.json").write_text(json.dumps(ended))

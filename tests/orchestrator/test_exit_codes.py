"""The command line in processes of its own: what each way to end a command gives its caller."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FAULTY = """    backbones:
      unet: {type: external, target: "faulty_networks:Faulty", classes_argument: out_channels,
             arguments: {fault: FAULT, seconds: 0.5}, skips: [{module: upcat_2, argument: 1}]}
"""
PLAIN = "    backbones: {unet: {widths: [8, 16]}}\n"


def start(*words, cwd, **more):
    paths = [str(ROOT), str(ROOT / "tests" / "support")]
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *map(str, words)],
        cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONPATH": ":".join(paths),
             "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}, **more,
    )  # fmt: skip


def ended(process):
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in out + err
    return process.returncode, out, err


@pytest.fixture
def sweep_with(write_sweep):
    def write(fault=None, extra=""):
        path = write_sweep("[no_cell]", extra=extra)
        if fault is not None:
            path.write_text(path.read_text().replace(PLAIN, FAULTY.replace("FAULT", fault)))
        return path

    return write


GONE = "    tracking: {uri: 'http://127.0.0.1:9', experiment: x}\n"


@pytest.mark.parametrize(
    ("words", "fault", "extra", "code"),
    [
        (("--help",), None, "", 0),
        (("run", "SWEEP", "--inline"), None, "", 0),
        (("plan", "SWEEP"), None, "", 0),
        (("run", "SWEEP", "--inline"), "gpu_memory", "", 1),
        (("run", "SWEEP", "--inline"), None, GONE, 1),
        (("report", "SWEEP", "--runs", "."), None, GONE, 1),
        (("doctor", "SWEEP"), None, GONE, 1),
        (("status", "SWEEP"), None, "", 2),
        (("run", "SWEEP", "--data", "phantom"), None, "", 2),
        (("run", "SWEEP", "--data", "phantom=/absent"), None, "", 2),
        (("plan", "absent.yaml"), None, "", 2),
        (("plan", "SWEEP", "--no-such-option"), None, "", 2),
        (("no_such_command",), None, "", 2),
        (("run", "SWEEP", "--inline", "--job", "zzz"), None, "", 2),
    ],
)
def test_every_way_to_end_has_its_code(words, fault, extra, code, sweep_with, tmp_path):
    sweep = str(sweep_with(fault, extra))
    found, out, err = ended(start(*(w.replace("SWEEP", sweep) for w in words), cwd=tmp_path))
    assert found == code, out + err
    if code:
        assert out + err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["importing", "running"])
def test_a_stopped_command_ends_with_130_and_no_traceback(number, moment, sweep_with, tmp_path):
    sweep = sweep_with("slow")
    process = start("run", sweep, "--inline", cwd=tmp_path)
    if moment == "running":
        assert process.stdout is not None
        while "start   pretrain" not in (line := process.stdout.readline()):
            assert line, process.communicate()
    else:
        time.sleep(1.0)
    process.send_signal(number)
    code, out, err = ended(process)
    assert code == 130, out + err
    if moment == "running":
        assert "Stopped; the same command goes on from here." in out
        assert f"orchestrator run {sweep} --inline" in out
    else:
        assert "Stopped before anything began." in err


def test_a_full_standard_output_is_no_traceback(sweep_with, tmp_path):
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "orchestrator", "plan", str(sweep_with())],
            cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path),
                               "PYTHONPATH": str(ROOT)},
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert process.returncode == 1
    assert "the disk must have room" in process.stderr
    assert "Traceback" not in process.stderr


def test_the_codes_are_written_in_the_help(tmp_path):
    code, out, _ = ended(start("--help", cwd=tmp_path))
    assert code == 0
    for word in ("Exit codes", "130 stopped", "2 bad input", "no report was written"):
        assert " ".join(word.split()) in " ".join(out.split())

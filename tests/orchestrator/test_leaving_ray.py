"""Ray is left in one piece while other threads go on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAVES = """
import gc, sys, threading, time
import ray
from orchestrator.ray_executor import leave_ray

ray.init("local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
kept = [[ray.put(1)] for _ in range(5000)]
go = threading.Event()

def collects():
    # What a collection of garbage does in this thread while the main one waits for its turn.
    go.wait()
    while True:
        end = time.perf_counter() + 0.0003
        while time.perf_counter() < end:
            pass
        if gc.isenabled() and kept:
            kept.pop().clear()

threading.Thread(target=collects, daemon=True).start()
sys.setswitchinterval(0.05)
go.set()
{leave}()
kept.clear()
print("left in one piece")
"""


@pytest.mark.slow
@pytest.mark.ray
def test_garbage_of_another_thread_does_not_end_the_process_while_ray_is_left(tmp_path):
    done = left_by("leave_ray", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("left in one piece\n")


def left_by(leave, folder):
    return subprocess.run(
        [sys.executable, "-c", LEAVES.replace("{leave}", leave)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=300, check=False, cwd=folder,
    )  # fmt: skip

"""The chaos run in its short form: twenty kills, and nothing lost, doubled or different."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.ray
@pytest.mark.slow
def test_twenty_kills_lose_repeat_and_change_nothing():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--kills", "20", "--seed", "1", "--every", "2"],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, text=True,
        capture_output=True, check=False, timeout=3600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] >= 20
    assert {"driver", "node", "worker", "mlflow"} <= set(found["by_kind"])
    bad = {name: found[name] for name in ("lost", "repeated", "orphans", "differing")}
    assert not any(bad.values()), f"{bad}\n{done.stderr[-5000:]}"

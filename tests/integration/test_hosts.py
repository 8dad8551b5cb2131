"""The hosts of tests: what a killed test process has left is no hindrance to the next one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import Network, why_not

WHY_NOT = why_not()
SUPPORT = Path(__file__).parents[1] / "support"
LEAVES = """
import os, signal
from hosts import Network
Network(1, environment=dict(os.environ)).__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""


def listed(kind):
    done = subprocess.run(["ip", kind, "list"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_hosts_of_a_killed_process_are_removed_by_the_next_one():
    killed = subprocess.Popen(
        [sys.executable, "-c", LEAVES], env=os.environ | {"PYTHONPATH": str(SUPPORT)}
    )
    killed.wait()
    left = f"iac{killed.pid}"
    assert left in listed("netns")
    assert left in listed("link")
    with Network(1, environment=dict(os.environ)) as (host,):
        assert left not in listed("netns") + listed("link")
        assert host.name in listed("netns")
    assert host.name not in listed("netns")

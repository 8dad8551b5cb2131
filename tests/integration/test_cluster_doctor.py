"""A cluster is looked at before a sweep runs on it: a host that sees other folders is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hosts import Network, why_not

WHY_NOT = why_not()
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200",
}  # fmt: skip


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_a_host_without_data_and_store_is_named_and_nothing_runs(
    write_sweep, phantom_folder, tmp_path
):
    sweep, runs = write_sweep("[no_cell]"), tmp_path / "runs"
    with Network(2, environment=ENVIRONMENT) as hosts:
        head, other = hosts
        for host in hosts:
            host.start_ray(head)

        def orchestrator(command, *words):
            return subprocess.run(
                head.words(
                    sys.executable, "-m", "orchestrator", command, sweep, "--runs", runs,
                    "--address", head.address, *words,
                ),
                env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                check=False, timeout=600,
            )  # fmt: skip

        fine = orchestrator("doctor", "--cluster")
        assert fine.returncode == 0, fine.stdout
        assert "nodes         ok  2:" in fine.stdout
        other.mask(phantom_folder)
        other.mask(runs / "store")
        looked = orchestrator("doctor", "--cluster")
        assert looked.returncode == 1, looked.stdout
        lines = [line for line in looked.stdout.splitlines() if "NO  " in line]
        assert [line.split("NO")[0].strip() for line in lines] == ["data phantom", "store"]
        assert all(other.ip in line and head.ip not in line for line in lines)
        refused = orchestrator("run")
        assert refused.returncode == 2, refused.stdout
        assert "the nodes of a cluster must see the same" in refused.stdout
        assert not (runs / "store" / "prepare").exists()

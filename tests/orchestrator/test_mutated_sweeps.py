"""Random mutations of the shipped sweeps through what `orchestrator plan` does.

The short form (60 mutations) is part of every run of the tests. The long form:

    IAC_MUTATIONS=1000 python -m pytest tests/orchestrator/test_mutated_sweeps.py

or without pytest, with what was said to each: ``python tests/support/plan_mutations.py --first 0
--count 1000``. A number names a mutation for good, so a fault is seen again with ``--first NUMBER
--count 1``.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "support" / "plan_mutations.py"
SECONDS_EACH = 10
MOST_MIB = 2048


def test_no_mutated_sweep_ends_in_a_traceback_hangs_or_fills_the_memory():
    n = int(os.environ.get("IAC_MUTATIONS", "60"))
    done = subprocess.run(
        [sys.executable, SCRIPT, "--count", str(n)],
        capture_output=True, text=True, timeout=120 + SECONDS_EACH * n, check=False,
    )  # fmt: skip
    said = [json.loads(line) for line in done.stdout.splitlines()]
    begun = {one["number"] for one in said if one["outcome"] == "begun"}
    found = [one for one in said if one["outcome"] != "begun"]
    died = begun - {one["number"] for one in found}
    assert not died, f"the process died of {died}: {done.stderr[-2000:]}"
    assert len(found) == n, done.stderr[-2000:]
    assert [one for one in found if one["outcome"] not in ("planned", "refused")] == []
    assert max(one["peak_mib"] for one in found) < MOST_MIB
    counts = Counter(one["outcome"] for one in found)
    assert min(counts["planned"], counts["refused"]) >= n // 20, counts
    assert len({one["kind"] for one in found}) > 5

"""Plan mutated sweeps in this process, each within a time limit and all within one of memory.

    python tests/support/plan_mutations.py --first 0 --count 1000

A line of JSON for each mutation: its number, sweep, kind, outcome (``planned``, ``refused``,
``fault`` or ``hung``), seconds, peak memory of the process in MiB, and what was said. A number is
printed before it is tried, so that it is known if the process dies of it.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
SWEEPS = sorted(ROOT.glob("sweeps/*.yaml")) + sorted(ROOT.glob("sweeps/clusters/aws.yaml"))
SECONDS_EACH = 10
"""Of processor time; six times as many on the clock."""
MOST_MEMORY = 2 * 2**30


class HungError(BaseException):
    """A plan took longer than it may; no `except` of the project catches it."""


def main() -> None:
    """Try the mutations that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=60)
    given = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]
    from sweep_mutations import mutated

    signal.signal(signal.SIGALRM, _hung)
    signal.signal(signal.SIGPROF, _hung)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        path = Path(folder) / "mutated.yaml"
        for name in ("quickstart", "backbones", "tune_jsd"):
            path.write_text((ROOT / "sweeps" / f"{name}.yaml").read_text(encoding="utf-8"))
            _outcome(path)  # imports, so that neither time nor memory of them counts
        resource.setrlimit(resource.RLIMIT_AS, (_status_kib("VmSize") * 1024 + MOST_MEMORY, -1))
        for number in range(given.first, given.first + given.count):
            sweep = random.Random(number).choice(SWEEPS)
            # One seed of five in the largest sweep: a plan of 4,800 jobs takes seconds.
            text = sweep.read_text(encoding="utf-8").replace("seed: [0, 1, 2, 3, 4]", "seed: [0]")
            kind, raw = mutated(text, number)
            path.write_bytes(raw)
            _say({"number": number, "outcome": "begun"})
            start = time.monotonic()
            signal.setitimer(signal.ITIMER_PROF, SECONDS_EACH)  # other work may run beside it
            signal.alarm(6 * SECONDS_EACH)
            outcome, said = _outcome(path)
            _say(
                {
                    "number": number,
                    "sweep": sweep.name,
                    "kind": kind,
                    "outcome": outcome,
                    "seconds": round(time.monotonic() - start, 2),
                    "peak_mib": _status_kib("VmHWM") // 1024,
                    "said": said[-3000:] if outcome == "fault" else said[:300],
                }
            )


def _say(found: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


def _hung(*_: object) -> None:
    raise HungError


def _outcome(path: Path) -> tuple[str, str]:
    """What `orchestrator plan` does with a file: outcome, and what was said."""
    from iac_core.errors import IacError

    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            _plan(path)
    except IacError as error:
        is_named = str(path) in str(error)
        return ("refused", str(error)) if is_named else ("fault", f"no file named: {error}")
    except HungError:
        return "hung", traceback.format_exc()[-3000:]
    except (Exception, SystemExit):  # noqa: BLE001 - whatever it is, it is a fault
        return "fault", traceback.format_exc()
    return "planned", said.getvalue()


def _plan(path: Path) -> None:
    from orchestrator.cli import app

    words = ["plan", str(path), "--runs", str(path.parent / "runs"), "--cpus", "2"]
    try:
        app(words, standalone_mode=False)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def _status_kib(field: str) -> int:
    """Return a size of this process; `ru_maxrss` starts at the peak of the one that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()

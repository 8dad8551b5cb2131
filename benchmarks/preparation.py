"""Preparation of many patients: does memory stay bounded, and is a stop cheap?

    python -m benchmarks.preparation [--quick] [--patients 1000]

Generated patients are prepared in a process of its own, stopped half-way and started again. The
ratio is that of the peak memory for a tenth of the patients over that for all of them: 1 where
memory does not grow.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.interleaved import print_result

_CHILD = """
import json, sys, time
from dataclasses import dataclass
from pathlib import Path
import numpy as np
import torch
from iac_core.config import PrepareSettings
from iac_core.data.acdc import Acdc
from iac_core.data.prepare import prepare
from iac_core.errors import StopRequested
from iac_core.types import SilentReporter, Volume, VolumeRef
from workers.memory import PeakMemory

n, stop_at, into = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])

class Many:
    description = Acdc(Path()).description

    def volumes(self):
        return tuple(
            VolumeRef(patient_id=f"p{i:05d}", volume_id=f"p{i:05d}", image_paths=(Path(),),
                      label_path=Path())
            for i in range(n)
        )

    def load(self, ref):
        generator = np.random.default_rng(int(ref.patient_id[1:]))
        shape = (216, 256, 10)
        labels = np.zeros(shape, dtype=np.uint8)
        labels[80:140, 90:150, 2:8] = 1 + generator.integers(0, 3)
        image = generator.normal(size=shape).astype(np.float32)[None] + labels
        return Volume(image=image, labels=labels, spacing_mm=(1.5, 1.5, 8.0),
                      affine=np.diag([1.5, 1.5, 8.0, 1.0]))

class Stops(SilentReporter):
    left = stop_at

    def should_stop(self):
        self.left -= 1
        return self.left < 0

memory = PeakMemory(torch.device("cpu"))
started = time.time()
try:
    prepare(Many(), PrepareSettings(size=128, spacing_mm=1.5), into,
            Stops() if stop_at else SilentReporter())
except StopRequested:
    pass
peak = memory.measured()["peak_host_mib"]
print(json.dumps({"peak_mib": peak, "seconds": time.time() - started}))
"""


def _run(n: int, stop_at: int, into: Path) -> dict[str, float]:
    into.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(n), str(stop_at), str(into)],
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    """Print peaks and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a minute at most")
    parser.add_argument("--patients", type=int, default=1000)
    options = parser.parse_args()
    n = 100 if options.quick else options.patients
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        few = _run(n // 10, 0, root / "few")
        first = _run(n, n // 2, root / "many")
        started = time.time()
        second = _run(n, 0, root / "many")
        again_s = time.time() - started
    print_result(
        "preparation",
        few["peak_mib"] / max(first["peak_mib"], second["peak_mib"]),
        n=n,
        device=torch.device("cpu"),
        peak_mib_tenth=round(few["peak_mib"]),
        peak_mib_all=round(max(first["peak_mib"], second["peak_mib"])),
        first_half_s=round(first["seconds"], 1),
        second_half_s=round(again_s, 1),
    )


if __name__ == "__main__":
    main()

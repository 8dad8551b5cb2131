"""Where a result comes from: commit, versions, host, device, and who else used the machine."""

import contextlib
import functools
import importlib.metadata
import os
import platform
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil

_PROCESSORS = " logical CPUs)"
_PACKAGES = ("torch", "numpy", "scipy", "nibabel", "monai", "ray", "iac-orchestrator")


@functools.cache
def commit() -> str:
    """Return the commit of this code's checkout, with ``-dirty`` if changed; empty without one."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return described.stdout.strip()


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def device_name(device: str) -> str:
    """Return the model of a torch device: the GPU's name, or the processor's."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return _processor()


def is_gpu(name: str) -> bool:
    """Return whether the name of a device's model is that of a GPU.

    Examples:
        >>> is_gpu("NVIDIA H200"), is_gpu("AMD EPYC (2 logical CPUs)"), is_gpu("")
        (True, False, False)
    """
    return bool(name) and not name.endswith(_PROCESSORS)


@functools.cache
def _processor() -> str:
    with contextlib.suppress(OSError):  # another system than Linux
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.split(':', 1)[1].strip()} ({os.cpu_count()}{_PROCESSORS}"
    return f"{platform.processor() or platform.machine()} ({os.cpu_count()}{_PROCESSORS}"


def provenance(device: str, n_threads: int, *, n_micro_batches: int = 1) -> dict[str, Any]:
    """Return everything that a table says about where and how a stage ran."""
    return {
        "commit": commit(),
        "versions": versions(),
        "host": socket.gethostname(),
        "device": device_name(device),
        "n_threads": n_threads,
        "n_micro_batches": n_micro_batches,
    }


class OtherLoad:
    """Measures how much of the machine's processors other processes used meanwhile."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._machine = self._busy_seconds()
        self._own = time.process_time()

    @staticmethod
    def _busy_seconds() -> float:
        times = psutil.cpu_times()
        return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))

    def share(self) -> float:
        """Return busy CPU seconds of all other processes / (seconds × CPUs), within 0 and 1."""
        elapsed = max(time.perf_counter() - self._start, 1e-9)
        own = time.process_time() - self._own
        others = self._busy_seconds() - self._machine - own
        return min(1.0, max(0.0, others / (elapsed * (os.cpu_count() or 1))))

"""How much memory a stage takes at its peak, and a limit to what it may take of a GPU."""

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import torch

from workers.recipes import recipe_of
from workers.task import StageTask

CONTEXT_MIB = 600.0
"""What CUDA itself takes of a GPU per process, kernels included; an upper bound, our choice."""
_MIB = 2**20
_RESET_THE_PEAK = "5"


class PeakMemory:
    """Measures from its making on.

    Args:
        device: Device that the stage computes on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        with contextlib.suppress(OSError):  # another system than Linux: the process's own peak
            Path("/proc/self/clear_refs").write_text(_RESET_THE_PEAK, encoding="ascii")
        if device.type == "cuda":
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()  # of the stage before
            torch.cuda.reset_peak_memory_stats(device)

    def measured(self) -> dict[str, float]:
        """Return ``peak_host_mib``; on a GPU ``peak_gpu_mib`` and ``gpu_mib``, all it has, too.

        The host's peak counts pages of mapped files, which the system can take back: an upper
        bound. The GPU's is what torch reserved, and `CONTEXT_MIB`.
        """
        found = {"peak_host_mib": _host_peak_mib()}
        if self._device.type == "cuda":
            reserved = torch.cuda.max_memory_reserved(self._device) / _MIB
            total = torch.cuda.get_device_properties(self._device).total_memory / _MIB
            found |= {"peak_gpu_mib": reserved + CONTEXT_MIB, "gpu_mib": total}
        return found


def runs_apart(task: StageTask) -> bool:
    """Return whether a stage computes in a process of its own, where nothing is measured."""
    return task.kind in recipe_of(task.job.settings.backbone).runs_apart


@contextlib.contextmanager
def gpu_limited(device: torch.device, share: float) -> Iterator[None]:
    """Let this process take a share of a GPU and no more; beyond it, it is out of memory.

    Args:
        device: The device; nothing happens on a CPU.
        share: Of its memory, in (0, 1]; what CUDA itself takes is part of it.
    """
    if device.type != "cuda" or share >= 1:
        yield
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    total = torch.cuda.get_device_properties(index).total_memory / _MIB
    torch.cuda.set_per_process_memory_fraction(max(0.0, share - CONTEXT_MIB / total), index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)


def _host_peak_mib() -> float:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

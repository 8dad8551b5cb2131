"""Timing of two sides in turns in one process, and the line of JSON that a benchmark ends with."""

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of both sides, pair by pair."""

    baseline_s: tuple[float, ...]
    ours_s: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of the pairs' ratios, baseline over ours."""
        return median(a / b for a, b in zip(self.baseline_s, self.ours_s, strict=True))


def measure(
    baseline: Callable[[], object],
    ours: Callable[[], object],
    *,
    n: int,
    device: torch.device,
) -> Timing:
    """Run both sides in turns, n times after one run that is not counted."""

    def seconds(side: Callable[[], object]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        side()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    seconds(baseline)
    seconds(ours)
    pairs = [(seconds(baseline), seconds(ours)) for _ in range(n)]
    return Timing(tuple(a for a, _ in pairs), tuple(b for _, b in pairs))


def device_name(device: torch.device) -> str:
    """Return the name of a device's model."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def print_result(name: str, ratio: float, *, n: int, device: torch.device, **more: Any) -> None:  # noqa: ANN401
    """Print the line of JSON that ends a benchmark."""
    line: Mapping[str, Any] = {
        "name": name,
        "ratio": round(ratio, 3),
        "n": n,
        "unit": "baseline seconds / our seconds",
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **more,
    }
    print(json.dumps(line))

"""What operation pruners do to pure noise, to endless drift and to a planted truth, simulated.

    python -m benchmarks.liveness [--quick]

Alpha is moved by gradients of a known law (see `iac_core.pruners.simulation`): no network, no
data. For every pruner with its default settings the table has, of searches of 200 epochs with 4
steps each,

* noise and drift: the share that removed anything, and the share with a living edge;
* planted at a signal-to-noise ratio of 0.3 and 1 per step: the share of edges that keep the
  planted operation, and the median and 90th percentile, over edges, of the architecture steps
  until half of the other operations are gone (inf: never).

A search that removes anything under noise follows noise.

The second table is what `noise_factor` rests on: percentiles, over edges and epochs, of the
divergence between two windows over that of a random walk, with Adam on symmetric noise.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy import ndarray

from benchmarks.interleaved import device_name
from iac_core.config import SearchSettings
from iac_core.pruners import OPERATION_PRUNERS, build_pruner
from iac_core.pruners.js_stability import JsStabilityFastSettings, JsStabilitySettings
from iac_core.pruners.no_pruning import NoPruningSettings
from iac_core.pruners.simulation import SimulatedGradients, SimulatedSearch, simulate
from iac_core.pruners.windows import motion_over_noise

N_STEPS = 4
PERCENTILES = (50, 90, 95, 99, 99.9)
SCENARIOS = (
    ("noise", SimulatedGradients(law="noise")),
    ("drift", SimulatedGradients(law="drift", snr=1.0)),
    ("planted_0.3", SimulatedGradients(law="planted", snr=0.3)),
    ("planted_1", SimulatedGradients(law="planted", snr=1.0)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseSetting:
    """A rule whose noise factor is simulated."""

    window_epochs: int
    n_steps: int
    rate: float


NOISE_SETTINGS = (
    NoiseSetting(window_epochs=5, n_steps=4, rate=0.03),  # js_stability
    NoiseSetting(window_epochs=2, n_steps=4, rate=0.06),  # js_stability_fast
    NoiseSetting(window_epochs=5, n_steps=2, rate=0.03),
    NoiseSetting(window_epochs=5, n_steps=16, rate=0.009),
    NoiseSetting(window_epochs=2, n_steps=4, rate=0.03),
    NoiseSetting(window_epochs=3, n_steps=4, rate=0.03),
    NoiseSetting(window_epochs=10, n_steps=4, rate=0.03),
)


def main() -> None:
    """Print both tables, and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute at most")
    options = parser.parse_args()
    torch.set_num_threads(1)
    n = 4 if options.quick else 100
    rows = {
        name: row_of(name, n if name_is_cheap(name) else max(2, n // 10))
        for name in OPERATION_PRUNERS
    }
    print(
        f"{'pruner':20} {'noise':>13} {'drift':>13}"
        f"   {'planted at 0.3':>24}   {'planted at 1':>24}"
    )
    print(
        f"{'':20} {'removed alive':>13} {'removed alive':>13}"
        + 2 * f"   {'kept  half gone, 90 %':>24}"
    )
    for name, row in rows.items():
        print(_line(name, row))
    factors = noise_table(3 if options.quick else 30)
    print(f"\n{'window':>6} {'steps':>6} {'rate':>6}   percentiles {PERCENTILES}")
    for setting, found in zip(NOISE_SETTINGS, factors, strict=True):
        print(
            f"{setting.window_epochs:6} {setting.n_steps:6} {setting.rate:6}   "
            + " ".join(f"{value:6.2f}" for value in found)
        )
    print(
        json.dumps(
            {
                "name": "liveness",
                "n": n,
                "unit": "shares of searches or edges; architecture steps",
                "device": device_name(torch.device("cpu")),
                "threads": torch.get_num_threads(),
                "pruners": rows,
                "noise_factor_99": {
                    "js_stability": round(factors[0][3], 2),
                    "js_stability_fast": round(factors[1][3], 2),
                },
                "noise_factor": {
                    "js_stability": JsStabilitySettings().noise_factor,
                    "js_stability_fast": JsStabilityFastSettings().noise_factor,
                },
            }
        )
    )


def name_is_cheap(name: str) -> bool:
    """Whether a pruner scores nothing."""
    return not name.startswith("shapley")


def row_of(name: str, n: int) -> dict[str, float | None]:
    """Return the numbers of one pruner's row.

    Args:
        name: The pruner.
        n: Searches of every scenario; a tenth as many where each has 14 planted edges.
    """
    row: dict[str, float | None] = {}
    for scenario, gradients in SCENARIOS:
        planted = gradients.law == "planted"
        settings = OPERATION_PRUNERS[name].Settings()
        found = [
            simulate(build_pruner(settings), gradients, seed=seed, n_steps=N_STEPS)
            for seed in range(max(2, n // 10) if planted else n)
        ]
        row |= {
            f"{scenario}_{key}": value
            for key, value in (_of_planted(found) if planted else _of_noise(found)).items()
        }
    return row


def _of_noise(found: Sequence[SimulatedSearch]) -> dict[str, float | None]:
    return {
        "removed": float(np.mean([search.has_removed for search in found])),
        "living_edge": float(np.mean([search.evidence.is_alive.any() for search in found])),
    }


def _of_planted(found: Sequence[SimulatedSearch]) -> dict[str, float | None]:
    kept = np.concatenate([search.keeps_plant() for search in found])
    steps = np.sort(np.concatenate([search.steps_until_half() for search in found]))
    half, most = (float(steps[math.ceil(share * len(steps)) - 1]) for share in (0.5, 0.9))
    return {
        "kept": round(float(kept.mean()), 3),
        "half_gone": half if math.isfinite(half) else None,
        "half_gone_90": most if math.isfinite(most) else None,
    }


def _line(name: str, row: dict[str, float | None]) -> str:
    def steps(value: float | None) -> str:
        return "inf" if value is None else f"{value:.0f}"

    noise = "".join(
        f" {row[f'{law}_removed']:7.2f} {row[f'{law}_living_edge']:5.2f}"
        for law in ("noise", "drift")
    )
    planted = "".join(
        f"   {row[f'{law}_kept']:8.2f} {steps(row[f'{law}_half_gone']):>7} "
        f"{steps(row[f'{law}_half_gone_90']):>7}"
        for law in ("planted_0.3", "planted_1")
    )
    return f"{name:20}{noise}{planted}"


def noise_table(n: int) -> list[list[float]]:
    """Return the percentiles of every setting, from n searches each."""
    return [
        np.percentile(noise_ratios(setting, n), PERCENTILES).tolist() for setting in NOISE_SETTINGS
    ]


def noise_ratios(setting: NoiseSetting, n: int) -> ndarray:
    """Return divergence over that of a random walk, ``(searches × epochs × edges,)``."""
    settings = SearchSettings(epochs=200, alpha_warmup_epochs=0, alpha_learning_rate=setting.rate)
    width = 2 * setting.window_epochs
    ratios = []
    for seed in range(n):
        alpha = simulate(
            build_pruner(NoPruningSettings()),
            SimulatedGradients(law="noise"),
            seed=seed,
            n_steps=setting.n_steps,
            search=settings,
        ).alpha
        every, none = np.ones(alpha.shape[1:], dtype=bool), np.zeros(alpha.shape[1:], dtype=bool)
        ratios += [
            motion_over_noise(alpha[last - width : last + 1], every, none)
            for last in range(width, len(alpha))
        ]
    return np.concatenate(ratios)


if __name__ == "__main__":
    main()

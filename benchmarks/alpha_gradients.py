"""How much of alpha's gradient is signal, step by step of real searches.

    python -m benchmarks.alpha_gradients --acdc FOLDER --msd FOLDER [--quick] [--keep]
    python -m benchmarks.alpha_gradients

A search without pruning runs on slices of each folder, with the cell in the skip's place and no
decay of alpha. The gradient of the loss in alpha is recorded at every step of alpha, for the usual
batch and for a batch of four times the size. ``--keep`` writes the gradients to
``records/alpha_gradients``; without folders the figures are those of the kept ones.

All figures are of gradients centred over an edge's operations, within a window of steps:

* SNR is ``|mean| / deviation`` of one step, for every edge and operation. It is above 0 for noise
  too, so the same gradients with a random sign for each step stand beside it.
* The best operation of an edge is chosen on every other step of the window and measured on the
  rest, and the other way round: a mean of both, which is 0 on average for noise.
* ``bound² · (1 + 1/SNR²)`` steps are needed until ``|Σ g| > bound · √Σ g²`` is expected for an
  SNR; ``bound = √(2 ln(2 · edges · operations · looks / 0.05))`` keeps a search of pure noise
  below 5 % for all its edges, operations and looks (after 8, 16, 32, … steps) together.
* Two things that the bound does not know are printed beside it: the correlation of a step's
  deviation from the window's mean with that of the next step (noise that lasts counts as evidence
  too), and the cosine of the mean gradients of the first 100 steps and of all after step 300
  (whether what moved alpha at first still does).
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from benchmarks.interleaved import device_name
from benchmarks.searches import backbone_settings, make_search
from iac_core.config import (
    OPERATION_NAMES,
    CellSettings,
    DatasetOptions,
    PrepareSettings,
    SearchSettings,
)
from iac_core.data import open_dataset
from iac_core.data.prepare import prepare
from iac_core.data.slices import PreparedData
from iac_core.seeding import numpy_generator
from iac_core.training.batches import epoch_order
from iac_core.training.search import Search
from iac_core.types import SilentReporter

RECORDS = Path(__file__).parent / "records" / "alpha_gradients"
SPACING_MM = {"acdc": 3.0, "msd": 1.0}
"""Layout → in-plane spacing of the slices of 48 × 48 pixels."""
BATCH_SIZE, LARGE_BATCH_SIZE = 16, 64
STEPS_PER_EPOCH, WARMUP_EPOCHS = 4, 2
N_STEPS_OF_A_SEARCH = 4 * 185
"""Steps of alpha in 200 epochs after the default warm-up of 15."""
N_STEPS_LARGE = 300
"""Steps of alpha that the search with the large batch runs: each costs four times as much."""
FALSE_ALARMS = 0.05
N_SIGN_FLIPS = 200

Gradients = Float[ndarray, "steps edges ops"]


@dataclass(frozen=True, slots=True)
class Signal:
    """What a window of gradients says.

    Attributes:
        snr: Of every edge and operation, shape ``(edges, ops)``, at least 0.
        best: Cross-validated SNR of each edge's best operation, shape ``(edges,)``.
    """

    snr: Float[ndarray, "edges ops"]
    best: Float[ndarray, " edges"]


def centred(gradients: Gradients) -> Gradients:
    """Return gradients less their mean over an edge's operations, in float64."""
    exact = gradients.astype(np.float64)
    return exact - exact.mean(axis=-1, keepdims=True)


def signed_snr(gradients: Gradients) -> Float[ndarray, "edges ops"]:
    """Return mean over deviation of one step; 0 where nothing varies."""
    deviation = gradients.std(axis=0, ddof=1)
    mean = gradients.mean(axis=0)
    return np.divide(mean, deviation, out=np.zeros_like(mean), where=deviation > 0)


def signal(gradients: Gradients) -> Signal:
    """Measure a window of centred gradients; ``none`` is never the best operation.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> planted = rng.normal(size=(4000, 1, 8))
        >>> planted[:, 0, 3] += 0.5
        >>> round(float(signal(planted).best[0]), 1)
        0.5
    """
    halves = [signed_snr(gradients[start::2]) for start in (0, 1)]
    choosable = slice(int(OPERATION_NAMES[0] == "none"), None)
    crossed = []
    for chosen_on, measured_on in (halves, reversed(halves)):
        candidates = chosen_on[:, choosable]
        best = np.abs(candidates).argmax(axis=1)[:, None]
        sign = np.sign(np.take_along_axis(candidates, best, axis=1))
        crossed.append((sign * np.take_along_axis(measured_on[:, choosable], best, axis=1))[:, 0])
    return Signal(snr=np.abs(signed_snr(gradients)), best=np.mean(crossed, axis=0))


def n_looks(n_steps: int) -> int:
    """Return how many of the steps 8, 16, 32, … are within so many steps.

    Examples:
        >>> n_looks(740)
        7
    """
    return max(0, int(math.log2(n_steps / 8)) + 1) if n_steps >= 8 else 0


def bound(n_edges: int, n_operations: int, n_steps: int) -> float:
    """Return what ``|Σ g| / √Σ g²`` must exceed.

    Examples:
        >>> round(bound(14, 8, 740), 2)
        4.55
    """
    n_tests = n_edges * n_operations * max(1, n_looks(n_steps))
    return math.sqrt(2 * math.log(2 * n_tests / FALSE_ALARMS))


def steps_needed(snr: Float[ndarray, " edges"], limit: float) -> Float[ndarray, " edges"]:
    """Return the steps after which the evidence is expected to reach the bound; inf without any.

    Examples:
        >>> steps_needed(np.array([1.0, 0.0]), 4.5).tolist()
        [40.5, inf]
    """
    with np.errstate(divide="ignore"):
        return limit**2 * (1 + 1 / np.maximum(snr, 0.0) ** 2)


def alive_by_look(gradients: Gradients) -> Bool[ndarray, "looks edges"]:
    """Return which edges had passed the bound by each look, from centred gradients."""
    n_steps, n_edges, n_operations = gradients.shape
    limit = bound(n_edges, n_operations, n_steps)
    passed = np.zeros((n_looks(n_steps), n_edges), dtype=bool)
    for look in range(len(passed)):
        seen = gradients[: 8 * 2**look, :, int(OPERATION_NAMES[0] == "none") :]
        evidence = np.abs(seen.sum(axis=0)) / np.sqrt((seen**2).sum(axis=0))
        passed[look] = (evidence > limit).any(axis=1)
    return np.logical_or.accumulate(passed)


def next_step_correlation(gradients: Gradients) -> float:
    """Return the correlation of deviations from the mean with those of the next step.

    Examples:
        >>> alternating = np.tile([1.0, -1.0], 50)[:, None, None] * np.ones((1, 1, 8))
        >>> round(next_step_correlation(alternating), 1)
        -1.0
    """
    deviations = gradients - gradients.mean(axis=0)
    return float((deviations[1:] * deviations[:-1]).sum() / (deviations[1:] ** 2).sum())


def kept_direction(gradients: Gradients) -> float:
    """Return the cosine of the means of steps 0 to 100 and from 300 on; NaN without the latter."""
    if len(gradients) <= 300:
        return math.nan
    early, late = gradients[:100].mean(axis=0), gradients[300:].mean(axis=0)
    return float((early * late).sum() / math.sqrt((early**2).sum() * (late**2).sum()))


def prepared_slices(layout: str, folder: Path, into: Path) -> PreparedData:
    """Prepare the slices of a data folder."""
    settings = PrepareSettings(size=48, spacing_mm=SPACING_MM[layout])
    into.mkdir()
    prepare(open_dataset(layout, folder, DatasetOptions()), settings, into, SilentReporter())
    return PreparedData.open(into)


def record_gradients(search: Search, *, alpha_batch_size: int, n_steps: int) -> Gradients:
    """Run a search without pruning for so many steps of alpha; return the loss's gradients.

    Steps follow each other as in `Search.run_epoch`; the decay of alpha is no part of them.
    """
    found: list[ndarray] = []
    shape = tuple(search.architecture.active.shape[1:])
    epochs = search.settings.epochs
    for epoch in range(epochs):
        orders = [
            epoch_order(
                slices,
                batch_size,
                STEPS_PER_EPOCH,
                numpy_generator(search.seed, "search", purpose, epoch),
            )
            for purpose, slices, batch_size in (
                ("alpha", search.alpha_slices, alpha_batch_size),
                ("weights", search.weight_slices, search.settings.batch_size),
            )
        ]
        for step, (of_alpha, of_weights) in enumerate(zip(*orders, strict=True)):
            if epoch >= WARMUP_EPOCHS:
                search.architecture_step(of_alpha)
                gradient = search.architecture.alpha.grad
                assert gradient is not None
                found.append(gradient.detach().cpu().numpy().reshape(shape).copy())
            done = (epoch * STEPS_PER_EPOCH + step) / (epochs * STEPS_PER_EPOCH)
            search.weight_step(of_weights, done)
            if len(found) == n_steps:
                return np.stack(found)
    return np.stack(found)


def searches(
    layout: str, folder: Path, *, quick: bool
) -> Iterator[tuple[str, Float[ndarray, "steps edges ops"]]]:
    """Run the searches of a data folder over one backbone; yield name and gradients."""
    with tempfile.TemporaryDirectory() as into:
        data = prepared_slices(layout, folder, Path(into) / "prepared")
        cell = CellSettings(form="replace")
        hosted = make_search(
            data,
            backbone_settings("unet"),
            torch.device("cpu"),
            cell=cell,
            keep_features=False,
            pretrain_epochs=2 if quick else 30,
        )
        settings = SearchSettings(
            batch_size=BATCH_SIZE,
            steps_per_epoch=STEPS_PER_EPOCH,
            alpha_warmup_epochs=WARMUP_EPOCHS,
            alpha_weight_decay=0.0,
            keep_features=False,
        )
        for batch_size, n_steps in (
            (BATCH_SIZE, N_STEPS_OF_A_SEARCH),
            (LARGE_BATCH_SIZE, N_STEPS_LARGE),
        ):
            search = Search(
                hosted.supernet.implant.backbone, hosted.pruner, hosted.room, cell, settings, 0
            )
            yield (
                f"{layout}_batch_{batch_size}",
                record_gradients(
                    search, alpha_batch_size=batch_size, n_steps=24 if quick else n_steps
                ),
            )


def flipped(gradients: Gradients, rng: np.random.Generator) -> Gradients:
    """Return the gradients with a random sign for each step: noise of the same size."""
    return gradients * rng.choice([-1.0, 1.0], size=(len(gradients), 1, 1))


def window_row(gradients: Gradients, limit: float) -> dict[str, float]:
    """Return the figures of one window of centred gradients."""
    real = signal(gradients)
    rng = np.random.default_rng(0)
    nulls = [signal(flipped(gradients, rng)) for _ in range(N_SIGN_FLIPS)]
    needed = steps_needed(real.best, limit)
    enough = needed <= N_STEPS_OF_A_SEARCH
    enough_by_chance = [
        float((steps_needed(null.best, limit) <= N_STEPS_OF_A_SEARCH).mean()) for null in nulls
    ]
    low, middle, high = np.quantile(real.snr, (0.1, 0.5, 0.9))
    return {
        "rms": float(np.sqrt((gradients**2).mean())),
        "next_step_correlation": next_step_correlation(gradients),
        "snr_10": float(low),
        "snr_median": float(middle),
        "snr_90": float(high),
        "snr_median_of_noise": float(np.median([np.median(null.snr) for null in nulls])),
        "best_median": float(np.median(real.best)),
        "best_smallest": float(real.best.min()),
        "best_largest": float(real.best.max()),
        "steps_needed_median": float(np.median(needed)),
        "enough_share": float(enough.mean()),
        "enough_share_of_noise": float(np.mean(enough_by_chance)),
    }


def windows(n_steps: int) -> list[tuple[int, int]]:
    """Return the windows of steps that are looked at: the first 100, the next 200, all."""
    parts = [(0, 100), (100, 300), (0, n_steps)]
    return [(start, end) for start, end in parts if end <= n_steps]


def describe(name: str, gradients: Gradients) -> dict[str, Any]:
    """Print what the gradients of a search say; return its figures."""
    found = centred(gradients)
    n_steps, n_edges, n_operations = found.shape
    limit = bound(n_edges, n_operations, N_STEPS_OF_A_SEARCH)
    raw_rms = float(np.sqrt((gradients.astype(np.float64) ** 2).mean()))
    print(f"\n{name}: {n_steps} steps of alpha, rms gradient {raw_rms:.2e}, bound {limit:.2f}")
    print(
        "  steps      rms      SNR 10 % / median / 90 %  noise | best operation of an edge: "
        "median (range)  steps needed  enough for  noise  next step"
    )
    rows = {}
    for start, end in windows(n_steps):
        row = window_row(found[start:end], limit)
        rows[f"{start}-{end}"] = {key: float(f"{value:.4g}") for key, value in row.items()}
        print(
            f"  {start:>3}–{end:<4} {row['rms']:.2e}  {row['snr_10']:.3f} / "
            f"{row['snr_median']:.3f} / {row['snr_90']:.3f}      "
            f"{row['snr_median_of_noise']:.3f} | {row['best_median']:>7.3f} "
            f"({row['best_smallest']:.3f} to {row['best_largest']:.3f})"
            f"{row['steps_needed_median']:>12.0f}"
            f"{row['enough_share']:>12.0%}{row['enough_share_of_noise']:>7.0%}"
            f"{row['next_step_correlation']:>11.2f}"
        )
    alive = alive_by_look(found).mean(axis=1)
    looks = {8 * 2**look: round(float(share), 3) for look, share in enumerate(alive)}
    print("  edges past the bound by step " + ", ".join(f"{k}: {v:.0%}" for k, v in looks.items()))
    last = rows[list(rows)[-1]]
    print(
        f"  {N_STEPS_OF_A_SEARCH} steps are expected to be enough for {last['enough_share']:.0%} "
        "of the edges, by the SNR of all steps"
    )
    turned = kept_direction(found)
    if not math.isnan(turned):
        print(f"  cosine of the mean gradients of steps 0–100 and from 300 on: {turned:.2f}")
    return {
        "n_steps": n_steps,
        "rms": float(f"{raw_rms:.4g}"),
        "windows": rows,
        "alive": looks,
        "kept_direction": None if math.isnan(turned) else round(turned, 3),
    }


def kept() -> Iterator[tuple[str, Gradients]]:
    """Yield name and gradients of the kept searches."""
    for path in sorted(RECORDS.glob("*.npz")):
        with np.load(path) as arrays:
            yield path.stem, arrays["gradients"]


def main() -> None:
    """Print the figures of each search, then all of them as a line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--acdc", type=Path, help="folder in the ACDC layout")
    parser.add_argument("--msd", type=Path, help="folder of a task in the MSD layout")
    parser.add_argument("--quick", action="store_true", help="a minute at most")
    parser.add_argument("--keep", action="store_true", help=f"write to {RECORDS.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    given = {"acdc": options.acdc, "msd": options.msd}
    folders = {layout: folder for layout, folder in given.items() if folder is not None}
    figures = {}
    for name, gradients in (
        kept()
        if not folders
        else (
            found
            for layout, folder in folders.items()
            for found in searches(layout, folder, quick=options.quick)
        )
    ):
        figures[name] = describe(name, gradients)
        if options.keep:
            RECORDS.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(RECORDS / f"{name}.npz", gradients=gradients.astype(np.float32))
    print(
        json.dumps(
            {
                "name": "alpha_gradients",
                "unit": "|mean| / deviation of one step",
                "n_steps_of_a_search": N_STEPS_OF_A_SEARCH,
                "searches": figures,
                "device": device_name(torch.device("cpu")),
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()

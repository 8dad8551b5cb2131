"""Speed-ups of recorded searches, re-timed on this machine.

    python -m benchmarks.search_cost RECORD [--quick] [--data FOLDER]

RECORD is a folder with ``trajectories.parquet``, such as ``records/acdc_claims_withdrawn``;
backbones and cells are those of ``sweeps/NAME.yaml``, NAME that of the folder.
A record says for every epoch of a search which operations were in
the graph, how many steps were made and how many slices were scored; none of that depends on the
machine it was made on, while seconds do. Here each distinct state of a supernet is stepped in
turns with the full supernet, and so is scoring; an epoch's cost is its steps and scored slices
times these, in steps of the full supernet. The speed-up is the full search's cost over the
search's. Both encode every training slice once, and both are charged for it; ``--data`` counts the
slices of the real folder. The compilation of a machine's first search is printed apart; a pruner's
own arithmetic (milliseconds) is left out. Run it on an idle machine.
"""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch

from benchmarks.interleaved import measure, print_result
from benchmarks.searches import arguments, double_step, make_search, prepared
from iac_core.config import OPERATION_NAMES, CellSettings
from iac_core.data.slices import PreparedData
from iac_core.training.search import Search, compile_kernels
from iac_core.types import Scoring
from orchestrator.session import tables
from orchestrator.spec import load_sweep
from results.store import read_table

SWEEPS = Path(__file__).parents[1] / "sweeps"
N_PAIRS = 1
"""Pairs of steps for each distinct state, after one that is not counted: a search's cost is a sum
over some dozens of states."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch of a search consists of.

    Attributes:
        active: Operations in the graph, ``(levels, edges, ops)``, as bytes.
        n_weight_steps: Weight steps.
        n_architecture_steps: Steps of alpha.
        n_scored_slices: Slices × masks scored.
    """

    active: bytes
    n_weight_steps: int
    n_architecture_steps: int
    n_scored_slices: int


def recorded_epochs(trajectory: pd.DataFrame) -> list[Epoch]:
    """Return the epochs of one search, in order."""
    trajectory = trajectory[trajectory["search_key"] == trajectory["search_key"].iloc[0]]
    ordered = trajectory.assign(
        column=trajectory["operation"].map({name: i for i, name in enumerate(OPERATION_NAMES)})
    ).sort_values(["epoch", "level", "edge", "column"])
    return [
        Epoch(
            active=part["active"].to_numpy(dtype=bool).tobytes(),
            n_weight_steps=int(part["n_weight_steps"].iloc[0]),
            n_architecture_steps=int(part["n_architecture_steps"].iloc[0]),
            n_scored_slices=int(part["n_scored_slices"].iloc[0]),
        )
        for _, part in ordered.groupby("epoch", sort=True)
    ]


class Clock:
    """Cost of steps in steps of the full supernet, each state timed once.

    Attributes:
        scored_share: Cost of a scored slice over that of a slice that the full supernet trains on.
    """

    def __init__(
        self,
        data: PreparedData,
        backbone: object,
        cell: CellSettings,
        device: torch.device,
        n_pairs: int,
    ) -> None:
        self.data, self.backbone, self.cell = data, backbone, cell
        self.device, self.n_pairs = device, n_pairs
        self.full = make_search(data, backbone, device, cell=cell)
        self.full.keep_features()
        self.scored_share: list[float] = []
        self._known: dict[tuple[bytes, bool], float] = {}

    def encoding(self) -> float:
        """Return the cost of encoding every training slice once, as a search's first epoch."""
        timing = measure(lambda: double_step(self.full), self._encode, n=3, device=self.device)
        return 1 / timing.ratio

    def _encode(self) -> None:
        self.full.features = None
        self.full.keep_features()

    def step(self, active: bytes, *, with_alpha: bool) -> float:
        """Return the cost of a weight step, with the step of alpha before it or without."""
        key = (active, with_alpha)
        if with_alpha and np.frombuffer(active, dtype=bool).all():
            return 1.0
        if key not in self._known:
            pruned = self._pruned(active)
            timing = measure(
                lambda: double_step(self.full),
                lambda: double_step(pruned, with_alpha=with_alpha),
                n=self.n_pairs,
                device=self.device,
            )
            self._known[key] = 1 / timing.ratio
        return self._known[key]

    def scored_slice(self, active: bytes) -> float:
        """Return the cost of one slice of one coalition, half of the operations present."""
        pruned = self._pruned(active)
        n_masks, n_slices = 32, 8
        live = np.frombuffer(active, dtype=bool).reshape(self._shape(active))
        masks = np.random.default_rng(0).random((n_masks, *live.shape)) < 0.5
        masks &= live
        importance = pruned.architecture.importance().detach()
        scoring = Scoring(n_slices=n_slices, measure="negative_loss")
        timing = measure(
            lambda: double_step(self.full),
            lambda: pruned.scorer.values(importance, masks, scoring),
            n=self.n_pairs,
            device=self.device,
        )
        share = 1 / timing.ratio / (n_masks * n_slices)
        self.scored_share.append(share * 2 * self.full.settings.batch_size)
        return share

    def _pruned(self, active: bytes) -> Search:
        search = make_search(self.data, self.backbone, self.device, cell=self.cell)
        search.features = self.full.features  # of the same encoder and slices
        keep = np.frombuffer(active, dtype=bool).reshape(self._shape(active)).copy()
        if not keep.all():
            search.remove_operations(keep)
        return search

    def _shape(self, active: bytes) -> tuple[int, ...]:
        return (-1, self.full.architecture.active.shape[1], len(OPERATION_NAMES))


def cost(epochs: list[Epoch], clock: Clock, encoding: float) -> float:
    """Return the cost of a search in steps of the full supernet.

    Args:
        epochs: What it consists of.
        clock: Costs of its steps.
        encoding: Cost of encoding the slices once.
    """
    total = encoding
    for epoch in epochs:
        with_alpha = epoch.n_architecture_steps > 0
        total += epoch.n_weight_steps * clock.step(epoch.active, with_alpha=with_alpha)
        if epoch.n_scored_slices:
            total += epoch.n_scored_slices * clock.scored_slice(epoch.active)
    return total


def main() -> None:
    """Print a row per search, then the speed-ups by pruner as JSON."""
    parser = arguments(__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--only-backbone", help="one backbone of the record")
    parser.add_argument("--pruner", action="append", help="only this one; may be repeated")
    options = parser.parse_args()
    sweep = load_sweep(SWEEPS / f"{options.record.name}.yaml", tables=tables())
    device = torch.device(options.device)
    torch.set_num_threads(1)
    table = read_table(options.record / "trajectories.parquet", "trajectories")
    rows, scored, encodings = [], [], {}
    started = time.perf_counter()
    compile_kernels()
    compile_s = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        data = prepared(options.data, options.size, Path(folder))
        for backbone, of_backbone in table.groupby("backbone", sort=True):
            if options.only_backbone and backbone != options.only_backbone:
                continue
            settings = sweep.backbones[str(backbone)]
            clock = Clock(data, settings, sweep.stages["cell"], device, N_PAIRS)
            encoding = clock.encoding()
            encodings[str(backbone)] = round(encoding, 2)
            full = {
                seed: cost(recorded_epochs(part), clock, encoding)
                for seed, part in of_backbone[of_backbone["pruner"] == "none"].groupby("seed")
            }
            for (pruner, seed), part in of_backbone.groupby(["pruner", "seed"], sort=True):
                if seed not in full or pruner == "none":
                    continue
                if options.pruner and pruner not in options.pruner:
                    continue
                if options.quick and seed != min(full):
                    continue
                epochs = recorded_epochs(part)
                own = cost(epochs, clock, encoding)
                rows.append(
                    {
                        "backbone": backbone,
                        "pruner": pruner,
                        "seed": int(seed),
                        "epochs": len(epochs),
                        "speedup": full[seed] / own,
                    }
                )
                print(rows[-1], flush=True)
            scored += clock.scored_share
    found = pd.DataFrame(rows)
    summary = {
        f"{backbone} {pruner}": {
            "median": round(float(part["speedup"].median()), 2),
            "smallest": round(float(part["speedup"].min()), 2),
            "searches": len(part),
        }
        for (backbone, pruner), part in found.groupby(["backbone", "pruner"])
    }
    print_result(
        "search_cost",
        median(found["speedup"]),
        n=N_PAIRS,
        device=device,
        speedups=summary,
        encoding_in_steps=encodings,
        compile_s=round(compile_s, 1),
        scored_slice=round(median(scored), 3) if scored else None,
    )


if __name__ == "__main__":
    main()

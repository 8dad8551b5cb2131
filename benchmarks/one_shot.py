"""A step of a single-path super-net over a step of the full mixed one, weights alone.

    python -m benchmarks.one_shot [--quick] [--backbone unet] [--data FOLDER]

Both train the weights of the same cells with all channels (K = 1) on the same slices, with kept
encoder features. ``cell`` is the share of one cell's forward and backward alone (C = 64,
32 × 32): the frozen decoder and the loss, which a step also pays, cost the same on both sides.
``score_s`` is the median time of one genotype's score, ``n_slices`` slices forward.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.interleaved import measure, print_result
from benchmarks.searches import arguments, backbone_settings, double_step, make_search, prepared
from iac_core.backbones.interface import Backbone
from iac_core.cells.search_cell import SearchCell
from iac_core.config import CellSettings
from iac_core.searches.cell_space import CellSpace
from iac_core.searches.settings import OneShotSettings
from iac_core.training.one_shot import OneShot

CELL = CellSettings(partial_channels=1, form="replace")


def cell_ratio(device: torch.device, n: int) -> float:
    """Return seconds of a full cell over those of a path, forward and backward."""
    torch.manual_seed(0)
    cell = SearchCell(64, 64, CELL).to(device)
    skip, second, direction = (
        torch.randn(16, 64, 32, 32, device=device).to(memory_format=torch.channels_last)
        for _ in range(3)
    )
    importance = torch.full((len(cell.edges), len(cell.operation_names)), 0.125, device=device)
    edge_weights = torch.full((len(cell.edges),), 0.3, device=device)
    space, generator = CellSpace(CELL, 1), np.random.default_rng(0)

    def full() -> None:
        out = cell(skip, second, importance, edge_weights)
        torch.autograd.grad((out * direction).sum(), cell.weights)

    def path() -> None:
        mask = space.mask(space.sample(generator))[0]
        out = cell.forward_path(skip, second, mask)
        torch.autograd.grad((out * direction).sum(), cell.weights)

    return measure(full, path, n=n, device=device).ratio


def main() -> None:
    """Print how much shorter a step of one path is."""
    options = arguments(__doc__).parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    n = 9 if options.quick else 40
    with tempfile.TemporaryDirectory() as folder:
        data = prepared(options.data, options.size, Path(folder))
        mixed = make_search(data, backbone_settings(options.backbone), device, cell=CELL)
        backbone = mixed.supernet.implant.backbone
        assert isinstance(backbone, Backbone)
        settings = OneShotSettings(n_steps=10**6)
        run = OneShot(backbone, settings, mixed.room, CELL, mixed.settings, 0)
        indices = np.resize(run.training.slices, mixed.settings.batch_size)
        timing = measure(
            lambda: double_step(mixed, with_alpha=False),
            lambda: run.training.weight_step(indices),
            n=n,
            device=device,
        )
        space, generator, seconds = run.training.space, np.random.default_rng(0), []
        for _ in range(n + 1):
            path = space.mask(space.sample(generator))
            started = time.perf_counter()
            run.scorer().score(path)
            seconds.append(time.perf_counter() - started)
        n_slices = run.scorer().n_slices
    print_result(
        "one_shot",
        timing.ratio,
        n=n,
        device=device,
        cell=round(cell_ratio(device, n), 3),
        path_step_s=round(median(timing.ours_s), 4),
        mixed_step_s=round(median(timing.baseline_s), 4),
        score_s=round(median(seconds[1:]), 4),
        n_slices=n_slices,
        backbone=options.backbone,
        size=options.size,
    )


if __name__ == "__main__":
    main()

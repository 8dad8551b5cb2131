"""A search step after half of the operations were pruned, over a step of the full supernet.

    python -m benchmarks.pruned_step [--quick] [--backbone unet] [--data FOLDER]

A step is one of alpha and one of the weights. Which half goes is drawn five times; ``share`` is
the median over draws. ``cell`` is the share of one cell's forward and backward alone (C = 64,
32 × 32): the frozen decoder and the loss, which the step also pays, do not shrink.
"""

import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.interleaved import measure, print_result
from benchmarks.searches import arguments, backbone_settings, double_step, make_search, prepared
from benchmarks.supernet import cell_step
from iac_core.cells.architecture import ArchitectureParameters
from iac_core.cells.search_cell import SearchCell
from iac_core.config import CellSettings


def half_of_operations(seed: int) -> np.ndarray:
    """Keep four of the eight operations on every edge, at random; ``(1, edges, ops)``."""
    generator = np.random.default_rng(seed)
    settings = CellSettings()
    n_edges, n_operations = 14, len(settings.operations)
    keep = np.zeros((1, n_edges, n_operations), dtype=bool)
    for edge in range(n_edges):
        keep[0, edge, generator.permutation(n_operations)[: n_operations // 2]] = True
    return keep


def cell_share(keep: np.ndarray, device: torch.device, n: int) -> float:
    """Seconds of a pruned cell over those of a full one."""
    steps = []
    for mask in (None, keep):
        torch.manual_seed(0)
        cell = SearchCell(64, 64, CellSettings()).to(device)
        architecture = ArchitectureParameters(CellSettings(), 1, torch.Generator().manual_seed(0))
        architecture.to(device)
        if mask is not None:
            cell.prune(mask[0], None)
            architecture.prune(mask, None)
        steps.append(cell_step(cell, architecture, 64, 32, torch.channels_last))
    return 1 / measure(steps[0], steps[1], n=n, device=device).ratio


def main() -> None:
    """Print the share that is left."""
    options = arguments(__doc__).parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    n = 7
    shares, cells = [], []
    with tempfile.TemporaryDirectory() as folder:
        data = prepared(options.data, options.size, Path(folder))
        for seed in range(2 if options.quick else 5):
            full, pruned = (
                make_search(data, backbone_settings(options.backbone), device) for _ in range(2)
            )
            keep = half_of_operations(seed)
            pruned.remove_operations(keep)
            timing = measure(
                lambda full=full: double_step(full),
                lambda pruned=pruned: double_step(pruned),
                n=n,
                device=device,
            )
            shares.append(1 / timing.ratio)
            cells.append(cell_share(keep, device, n))
    print_result(
        "pruned_step",
        1 / median(shares),
        n=n,
        device=device,
        share=round(median(shares), 3),
        shares=[round(share, 3) for share in shares],
        cell=round(median(cells), 3),
        backbone=options.backbone,
        size=options.size,
    )


if __name__ == "__main__":
    main()

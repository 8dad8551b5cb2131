"""Forward and backward of one search cell against the plain reference, channels first.

    python -m benchmarks.supernet [--quick] [--device cuda]

Batch 16, 4 nodes, K = 4, all operations. Both sides give the gradients of the second input (the
encoder's skip is frozen), of all weights, alpha and beta. The reference is eager and has one
module per edge and operation.
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks.interleaved import measure, print_result
from benchmarks.reference_cell import ReferenceCell
from iac_core.cells.architecture import ArchitectureParameters
from iac_core.cells.search_cell import SearchCell
from iac_core.config import CellSettings

SHAPES = ((64, 32), (256, 16), (32, 64))
"""Channels of the skip, and its rows and columns."""


def cell_step(
    cell: torch.nn.Module,
    architecture: ArchitectureParameters,
    channels: int,
    size: int,
    memory_format: torch.memory_format,
) -> Callable[[], object]:
    """Return a function that runs the cell forward and backward on fixed random features."""
    device = architecture.beta.device
    generator = torch.Generator().manual_seed(1)
    skip, second, direction = (
        torch.randn(16, channels, size, size, generator=generator).to(
            device, memory_format=memory_format
        )
        for _ in range(3)
    )
    second.requires_grad_()
    wanted = [second, *cell.parameters(), *architecture.parameters()]

    def step() -> object:
        out = cell(skip, second, architecture.importance()[0], architecture.edge_weights()[0])
        return torch.autograd.grad(out, wanted, direction)

    return step


def main() -> None:
    """Print a row per shape, then the smallest ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="7 pairs instead of 21")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    torch.set_num_threads(1)
    n = 7 if arguments.quick else 21
    settings = CellSettings()
    ratios: dict[str, float] = {}
    print("| C, size | reference ms | ours ms | ratio |\n| --- | --- | --- | --- |")
    for channels, size in SHAPES:
        torch.manual_seed(0)
        cell = SearchCell(channels, channels, settings).to(device)
        reference = ReferenceCell(cell).to(device)
        architecture = ArchitectureParameters(settings, 1, torch.Generator().manual_seed(0))
        architecture.to(device)
        timing = measure(
            cell_step(reference, architecture, channels, size, torch.contiguous_format),
            cell_step(cell, architecture, channels, size, torch.channels_last),
            n=n,
            device=device,
        )
        middle = [sorted(side)[n // 2] * 1e3 for side in (timing.baseline_s, timing.ours_s)]
        ratios[f"{channels}x{size}"] = round(timing.ratio, 2)
        print(
            f"| {channels}, {size} × {size} | {middle[0]:.1f} | {middle[1]:.1f} "
            f"| {timing.ratio:.2f} |"
        )
    print_result("supernet", min(ratios.values()), n=n, device=device, ratios=ratios)


if __name__ == "__main__":
    main()

"""The searched cell as PC-DARTS describes it: one module per edge and operation, edge by edge.

The oracle of the tests and the other side of `benchmarks.supernet`.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from iac_core.cells.operations import OPERATIONS, SeparableBranch
from iac_core.cells.search_cell import SearchCell


def shuffled(x: Tensor, groups: int) -> Tensor:
    """Move channel ``a · C/groups + b`` to ``b · groups + a``."""
    batch, channels, height, width = x.shape
    parts = x.reshape(batch, groups, channels // groups, height, width)
    return parts.transpose(1, 2).reshape(batch, channels, height, width)


class ReferenceCell(nn.Module):
    """The same cell as a `SearchCell`, with copies of its weights.

    Args:
        cell: The cell to copy; its live operations become modules.
    """

    def __init__(self, cell: SearchCell) -> None:
        super().__init__()
        self.partial_channels, self.n_nodes = cell.partial_channels, cell.n_nodes
        self.edges, self.operation_names = cell.edges, cell.operation_names
        self.inputs = nn.ModuleList()
        for layer in cell.inputs:
            n_out, n_in = layer.conv.weight.shape[:2]
            norm = nn.BatchNorm2d(n_out, affine=False, track_running_stats=False)
            copy = nn.Sequential(nn.ReLU(), nn.Conv2d(n_in, n_out, 1, bias=False), norm)
            copy[1].weight = nn.Parameter(layer.conv.weight.detach().clone())
            self.inputs.append(copy)
        self.mixed = nn.ModuleDict(
            {
                f"{edge}_{name}": OPERATIONS[name](cell.n_active_channels, affine=False)
                for edge in range(len(cell.edges))
                for column, name in enumerate(cell.operation_names)
                if cell.live[edge, column]
            }
        )
        self.output = cell.output
        kernels = list(self.kernels())
        places = list(cell.layout.tensors())
        assert len(kernels) == len(places)
        by_operation: dict[tuple[int, int], list[nn.Conv2d]] = {}
        for edge, column, conv in kernels:
            by_operation.setdefault((edge, column), []).append(conv)
        self.kernel_at: list[tuple[slice, nn.Conv2d]] = []
        for edge, column, place, shape in places:
            conv = by_operation[edge, column].pop(0)
            conv.weight = nn.Parameter(cell.weights.detach()[place].view(shape).clone())
            self.kernel_at.append((place, conv))

    def kernels(self) -> Iterator[tuple[int, int, nn.Conv2d]]:
        """Yield edge, column and convolution, in the order in which they are applied."""
        for edge in range(len(self.edges)):
            for column, name in enumerate(self.operation_names):
                key = f"{edge}_{name}"
                if key in self.mixed:
                    for branch in self.mixed[key].modules():
                        if isinstance(branch, SeparableBranch):
                            yield edge, column, branch.depthwise
                            yield edge, column, branch.pointwise

    def forward(
        self, skip: Tensor, second: Tensor, importance: Tensor, edge_weights: Tensor
    ) -> Tensor:
        """Return the cell's output, operation by operation."""
        states = [self.inputs[0](skip), self.inputs[1](second)]
        for node in range(2, 2 + self.n_nodes):
            total = torch.zeros_like(states[0])
            for edge, (source, target) in enumerate(self.edges):
                if target == node and any(
                    f"{edge}_{name}" in self.mixed
                    for name in self.operation_names
                    if name != "none"
                ):
                    mixed = self.mixed_operation(edge, states[source], importance[edge])
                    total = total + edge_weights[edge] * mixed
            states.append(total)
        out: Tensor = self.output(torch.cat(states[2:], dim=1))
        return out

    def mixed_operation(self, edge: int, x: Tensor, importance: Tensor) -> Tensor:
        """Weighted sum of an edge's operations over the first 1/K of the channels."""
        width = x.shape[1] // self.partial_channels
        active, bypass = x[:, :width], x[:, width:]
        total = torch.zeros_like(active)
        for column, name in enumerate(self.operation_names):
            key = f"{edge}_{name}"
            if key in self.mixed:
                total = total + importance[column] * self.mixed[key](active)
        return shuffled(torch.cat([total, bypass], dim=1), self.partial_channels)

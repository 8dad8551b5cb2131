"""The searched cell as PC-DARTS describes it, edge by edge and operation by operation: the
oracle."""

import torch
from torch import nn

from iac_core.cells.search_cell import SearchCell


def shuffled(x: torch.Tensor, groups: int) -> torch.Tensor:
    per_group = x.shape[1] // groups
    order = [a * per_group + b for b in range(per_group) for a in range(groups)]
    return x[:, order]


def reference_forward(
    cell: SearchCell,
    skip: torch.Tensor,
    second: torch.Tensor,
    importance: torch.Tensor,
    edge_weights: torch.Tensor,
) -> torch.Tensor:
    """Run the cell's own modules one at a time, in the order of the formula."""
    states = [cell.inputs[0](skip), cell.inputs[1](second)]
    k = cell.partial_channels
    for node in range(2, 2 + cell.n_nodes):
        total = torch.zeros_like(states[0])
        for edge, (source, target) in enumerate(cell.edges):
            if target == node and float(edge_weights[edge].detach()) > 0:
                mixed = mixed_operation(cell, edge, states[source], importance[edge], k)
                total = total + edge_weights[edge] * mixed
        states.append(total)
    return cell.output(torch.cat(states[2:], dim=1))


def mixed_operation(
    cell: SearchCell, edge: int, x: torch.Tensor, importance: torch.Tensor, k: int
) -> torch.Tensor:
    width = x.shape[1] // k
    active, bypass = x[:, :width], x[:, width:]
    total = torch.zeros_like(active)
    for column, name in enumerate(cell.operation_names):
        key = f"edge{edge}_{name}"
        if key in cell.operations:
            module: nn.Module = cell.operations[key]
            total = total + importance[column] * module(active)
    return shuffled(torch.cat([total, bypass], dim=1), k)

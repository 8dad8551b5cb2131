"""The loop that reads the chosen edges off alpha and beta."""

import numpy as np
from numpy import ndarray

from iac_core.kernels.compiling import compiled_as_written


@compiled_as_written
def choose_edges(
    alpha: ndarray,
    beta: ndarray,
    active: ndarray,
    targets: ndarray,
    real: ndarray,
    n_kept: int,
    chosen: ndarray,
) -> None:
    """Keep the best edges into each node, each with its best operation.

    Args:
        alpha: Logits of one level, ``(edges, ops)``; anything where inactive.
        beta: Edge logits, ``(edges,)``.
        active: Operations that count, ``(edges, ops)``.
        targets: Node that each edge enters, ascending.
        real: Whether an operation is another than ``none``, ``(ops,)``.
        n_kept: Edges that a node keeps.
        chosen: ``(edges,)``, written: the operation of a kept edge, -1 of any other.
    """
    n_edges, n_operations = alpha.shape
    best = np.empty(n_edges)
    operations = np.empty(n_edges, dtype=np.int64)
    for edge in range(n_edges):
        chosen[edge] = operations[edge] = -1
        top, total, best[edge] = -np.inf, 0.0, -1.0
        for k in range(n_operations):
            if active[edge, k]:
                top = max(top, alpha[edge, k])
        for k in range(n_operations):
            if active[edge, k]:
                total += np.exp(alpha[edge, k] - top)
        for k in range(n_operations):
            if active[edge, k] and real[k]:
                share = np.exp(alpha[edge, k] - top) / total
                if share > best[edge]:
                    best[edge], operations[edge] = share, k
    start = 0
    while start < n_edges:
        end = start + 1
        while end < n_edges and targets[end] == targets[start]:
            end += 1
        top, total = -np.inf, 0.0
        for edge in range(start, end):
            if operations[edge] >= 0:
                top = max(top, beta[edge])
        for edge in range(start, end):
            if operations[edge] >= 0:
                total += np.exp(beta[edge] - top)
        for edge in range(start, end):
            best[edge] *= np.exp(beta[edge] - top) / total
        for _ in range(n_kept):
            winner = -1
            for edge in range(start, end):
                is_free = operations[edge] >= 0 and chosen[edge] < 0
                if is_free and (winner < 0 or best[edge] > best[winner]):
                    winner = edge
            if winner >= 0:
                chosen[winner] = operations[winner]
        start = end

"""Loops of stability tests: how far distributions moved, and what a settled edge may lose.

Arrays: ``alpha (epochs, levels, edges, ops)``, ``beta (epochs, levels, edges)``, ``active`` and
``keep (levels, edges, ops)`` bool, ``targets (edges,)`` the node that each edge enters,
``real (ops,)`` whether an operation is another than ``none``.
"""

from typing import NamedTuple

import numpy as np
from numpy import ndarray

from iac_core.kernels.compiling import compiled_as_written


class SettlingRules(NamedTuple):
    """When an edge counts as settled, and how much it then loses.

    Attributes:
        threshold: Largest divergence of a settled epoch, in bits.
        patience_epochs: Settled epochs in a row before an edge is pruned.
        rank_guard: Whether a settled epoch also needs the kept operations of the one before.
        weak_share: Operations under this share of the uniform importance go.
        max_share: At most this share of an edge's operations goes at once.
        min_operations: An edge keeps at least this many.
        keeps_none: Whether ``none`` stays while a node has edges to spare.
        edges_per_node: Live edges that a node keeps.
    """

    threshold: float
    patience_epochs: int
    rank_guard: bool
    weak_share: float
    max_share: float
    min_operations: int
    keeps_none: bool
    edges_per_node: int


class Settling(NamedTuple):
    """What the test remembers of each edge; written by `prune_settled`.

    Attributes:
        epochs: Settled epochs in a row, ``(levels, edges)``.
        kept: Operations that the last epoch would have kept, like ``active``.
        has_kept: Whether there is such an epoch since the edge was pruned, ``(levels, edges)``.
    """

    epochs: ndarray
    kept: ndarray
    has_kept: ndarray


@compiled_as_written
def mean_shares(logits: ndarray, active: ndarray, first: int, last: int, out: ndarray) -> None:
    """Mean over epochs of the softmax over active entries, 0 where inactive.

    Args:
        logits: ``(epochs, n)``; inactive entries may be NaN.
        active: ``(n,)``.
        first: First epoch.
        last: Epoch after the last one.
        out: ``(n,)``, written.
    """
    out[:] = 0.0
    for epoch in range(first, last):
        top = -np.inf
        for k in range(len(active)):
            if active[k]:
                top = max(top, logits[epoch, k])
        total = 0.0
        for k in range(len(active)):
            if active[k]:
                total += np.exp(logits[epoch, k] - top)
        for k in range(len(active)):
            if active[k]:
                out[k] += np.exp(logits[epoch, k] - top) / total
    out /= last - first


@compiled_as_written
def divergence_in_bits(p: ndarray, q: ndarray) -> float:
    """Jensen–Shannon divergence of two distributions ``(n,)``."""
    total = 0.0
    for k in range(len(p)):
        middle = (p[k] + q[k]) / 2
        if p[k] > 0:
            total += p[k] * np.log2(p[k] / middle)
        if q[k] > 0:
            total += q[k] * np.log2(q[k] / middle)
    return max(total / 2, 0.0)


@compiled_as_written
def window_divergence(alpha: ndarray, active: ndarray, jsd: ndarray, mean: ndarray) -> None:
    """Compare the second half of some epochs with the first, edge by edge.

    Args:
        alpha: An even number of epochs.
        active: Operations to compare over.
        jsd: ``(levels, edges)``, written.
        mean: Mean shares of the second half, like ``active``, written.
    """
    n_epochs, n_levels, n_edges, n_operations = alpha.shape
    before = np.empty(n_operations)
    for level in range(n_levels):
        for edge in range(n_edges):
            logits, after = alpha[:, level, edge], mean[level, edge]
            mean_shares(logits, active[level, edge], 0, n_epochs // 2, before)
            mean_shares(logits, active[level, edge], n_epochs // 2, n_epochs, after)
            jsd[level, edge] = divergence_in_bits(before, after)


@compiled_as_written
def beta_divergence(beta: ndarray, live: ndarray, targets: ndarray, jsd: ndarray) -> None:
    """Compare the second half of some epochs with the first, node by node.

    Args:
        beta: An even number of epochs.
        live: Edges that carry something, ``(levels, edges)``.
        targets: Ascending.
        jsd: ``(levels, edges)``, written: each edge has its node's divergence.
    """
    n_epochs, n_levels, n_edges = beta.shape
    before, after = np.empty(n_edges), np.empty(n_edges)
    for level in range(n_levels):
        start = 0
        while start < n_edges:
            end = start + 1
            while end < n_edges and targets[end] == targets[start]:
                end += 1
            logits, mask = beta[:, level, start:end], live[level, start:end]
            mean_shares(logits, mask, 0, n_epochs // 2, before[start:end])
            mean_shares(logits, mask, n_epochs // 2, n_epochs, after[start:end])
            jsd[level, start:end] = divergence_in_bits(before[start:end], after[start:end])
            start = end


@compiled_as_written
def n_live_edges(keep: ndarray, target: int, targets: ndarray, real: ndarray) -> int:
    """Count the edges ``(edges, ops)`` into a node that keep an operation other than ``none``."""
    count = 0
    for edge in range(len(targets)):
        if targets[edge] == target and (keep[edge] & real).any():
            count += 1
    return count


@compiled_as_written
def n_to_remove(mean: ndarray, active: ndarray, rules: SettlingRules) -> int:
    """Operations of an edge that are weak, at least 1, at most what the rules allow."""
    n_active = n_weak = 0
    for k in range(len(active)):
        n_active += active[k]
    for k in range(len(active)):
        if active[k] and mean[k] < rules.weak_share / n_active:
            n_weak += 1
    n_most = min(int(n_active * rules.max_share), n_active - rules.min_operations)
    return max(0, min(max(1, n_weak), n_most))


@compiled_as_written
def mark_removable(
    mean: ndarray,
    keep: ndarray,
    edge: int,
    targets: ndarray,
    real: ndarray,
    rules: SettlingRules,
    gone: ndarray,
) -> None:
    """Mark the weakest operations that one edge may lose.

    An edge never loses its last operation, and a node never goes below the edges it needs.

    Args:
        mean: Importances on the edge, ``(ops,)``.
        keep: What stays of the level so far, ``(edges, ops)``; as it was on this edge at first.
        edge: The edge.
        targets: Node that each edge enters.
        real: Whether an operation is another than ``none``.
        rules: How many go.
        gone: ``(ops,)``, written.
    """
    gone[:] = False
    active = keep[edge].copy()
    n_wanted = n_to_remove(mean, active, rules)
    n_others = n_live_edges(keep, targets[edge], targets, real)
    spares = n_others > rules.edges_per_node
    if (active & real).any():
        n_others -= 1
    for operation in np.argsort(mean, kind="mergesort"):
        if n_wanted == 0:
            break
        if not active[operation]:
            continue
        n_wanted -= 1
        if rules.keeps_none and spares and not real[operation]:
            continue
        active[operation] = False
        n_live = n_others + (1 if (active & real).any() else 0)
        if active.any() and (n_live >= rules.edges_per_node or not real[operation]):
            gone[operation] = True
        else:
            active[operation] = True


@compiled_as_written
def prune_settled(
    jsd: ndarray,
    mean: ndarray,
    keep: ndarray,
    targets: ndarray,
    real: ndarray,
    rules: SettlingRules,
    settling: Settling,
    pruned: ndarray,
) -> None:
    """Take the weak operations of every edge that has settled for long enough.

    Args:
        jsd: Divergence of each edge, ``(levels, edges)``.
        mean: Importances, like `keep`.
        keep: What is active; written: what stays.
        targets: Node that each edge enters.
        real: Whether an operation is another than ``none``.
        rules: When, and how much.
        settling: What is remembered; written.
        pruned: ``(levels, edges)``, written.
    """
    n_levels, n_edges, n_operations = keep.shape
    gone = np.empty(n_operations, dtype=np.bool_)
    for level in range(n_levels):
        for edge in range(n_edges):
            pruned[level, edge] = False
            mark_removable(mean[level, edge], keep[level], edge, targets, real, rules, gone)
            kept = keep[level, edge] & ~gone
            is_same = True
            if rules.rank_guard:
                is_same = settling.has_kept[level, edge] and (
                    (settling.kept[level, edge] == kept).all()
                )
            settling.kept[level, edge] = kept
            settling.has_kept[level, edge] = True
            if not gone.any() or jsd[level, edge] > rules.threshold or not is_same:
                settling.epochs[level, edge] = 0
                continue
            settling.epochs[level, edge] += 1
            if settling.epochs[level, edge] < rules.patience_epochs:
                continue
            settling.epochs[level, edge] = 0
            settling.has_kept[level, edge] = False
            keep[level, edge] = kept
            pruned[level, edge] = True


def compile_loops() -> None:
    """Have every loop compiled, on a tiny cell: once on a machine, then cached."""
    alpha, active = np.zeros((2, 1, 2, 2)), np.ones((1, 2, 2), dtype=bool)
    jsd, mean, pruned = np.empty((1, 2)), np.empty((1, 2, 2)), np.empty((1, 2), dtype=bool)
    targets, real = np.array([2, 2]), np.array([False, True])
    window_divergence(alpha, active, jsd, mean)
    beta_divergence(alpha[..., 0], pruned, targets, jsd)
    rules = SettlingRules(0.0, 1, False, 0.5, 0.5, 1, False, 2)
    epochs, kept, has_kept = np.zeros((1, 2), dtype=np.int64), active.copy(), pruned.copy()
    prune_settled(
        jsd, mean, active, targets, real, rules, Settling(epochs, kept, has_kept), pruned
    )

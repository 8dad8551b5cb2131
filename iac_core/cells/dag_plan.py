"""What a forward pass over a search cell's live operations consists of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from iac_core.cells.genotype import N_INPUTS
from iac_core.cells.operation_weights import Bundle, WeightLayout

POOLS = ("max_pool_3x3", "avg_pool_3x3")
"""They are computed together, once for all edges that leave a state."""


@dataclass(frozen=True, slots=True)
class _Term:
    """One operation on one edge: its result's slot, and whom it enters."""

    slot: int
    edge: int
    column: int


class DagPlan:
    """What a forward pass over the live operations consists of; made anew when some go.

    Args:
        live: Operations in the graph, ``(edges, ops)``; those called ``none`` count for nothing.
        edges: ``(source, target)`` of every edge.
        operations: Names along the last axis of `live`.
        n_nodes: Intermediate nodes.
        layout: Of the weights.
    """

    def __init__(
        self,
        live: ndarray,
        edges: tuple[tuple[int, int], ...],
        operations: tuple[str, ...],
        n_nodes: int,
        layout: WeightLayout,
    ) -> None:
        self.live, self.edges, self.operations = live.copy(), edges, operations
        self.n_nodes, self.n_states = n_nodes, N_INPUTS + n_nodes
        self.m = layout.channels
        columns = {name: column for column, name in enumerate(operations)}
        self.identity_column = columns.get("skip_connect")
        carries = [column for name, column in columns.items() if name != "none"]
        by_source: list[list[_Term]] = [[] for _ in range(self.n_states)]
        self.bundles: list[list[tuple[Bundle, int]]] = [[] for _ in range(self.n_states)]
        self.pool_slot: list[int | None] = [None] * self.n_states
        self.n_slots = 0
        for source in range(self.n_states):
            terms = by_source[source]
            pools = [
                _Term(self.n_slots + which, edge, columns[name])
                for which, name in enumerate(POOLS)
                if name in columns
                for edge in range(len(edges))
                if edges[edge][0] == source and live[edge, columns[name]]
            ]
            if pools:
                self.pool_slot[source] = self.n_slots
                self.n_slots += len(POOLS)
                terms += pools
            for bundle in layout.bundles:
                if bundle.source == source:
                    self.bundles[source].append((bundle, self.n_slots))
                    for branch, edge in enumerate(bundle.edges):
                        terms.append(_Term(self.n_slots + branch, edge, bundle.column))
                    self.n_slots += len(bundle.edges)
        self.sources = [SourceTerms(terms, edges) for terms in by_source]
        all_terms = [term for terms in by_source for term in terms]
        self.targets = [
            TargetTerms(
                target,
                [term for term in all_terms if edges[term.edge][1] == target],
                [
                    edge
                    for edge in range(len(edges))
                    if edges[edge][1] == target and live[edge, carries].any()
                ],
                edges,
                None if self.identity_column is None else live[:, self.identity_column],
            )
            for target in range(N_INPUTS, self.n_states)
        ]


class SourceTerms:
    """The terms that leave a state, as index arrays."""

    def __init__(self, terms: Sequence[_Term], edges: tuple[tuple[int, int], ...]) -> None:
        self.slots = np.array([term.slot for term in terms], dtype=np.int64)
        self.edges = np.array([term.edge for term in terms], dtype=np.int64)
        self.columns = np.array([term.column for term in terms], dtype=np.int64)
        self.targets = np.array([edges[term.edge][1] - N_INPUTS for term in terms], dtype=np.int64)


class TargetTerms:
    """The terms that enter a node, as index arrays."""

    def __init__(
        self,
        target: int,
        terms: Sequence[_Term],
        live_edges: Sequence[int],
        edges: tuple[tuple[int, int], ...],
        has_identity: ndarray | None,
    ) -> None:
        self.target = target
        self.slots = np.array([term.slot for term in terms], dtype=np.int64)
        self.edges = np.array([term.edge for term in terms], dtype=np.int64)
        self.columns = np.array([term.column for term in terms], dtype=np.int64)
        self.live_edges = np.array(live_edges, dtype=np.int64)
        self.live_sources = np.array([edges[edge][0] for edge in live_edges], dtype=np.int64)
        self.has_identity = (
            np.zeros(len(live_edges), dtype=bool)
            if has_identity is None
            else has_identity[self.live_edges]
        )

"""What a search holds every operation pruner to."""

import numpy as np

from iac_core.cells.genotype import EDGES_PER_NODE, live_edges
from iac_core.errors import SearchError
from iac_core.types import Decision, SearchState


def check_decision(decision: Decision, state: SearchState) -> None:
    """Refuse a decision that revives an operation, empties an edge or starves a node.

    Raises:
        SearchError: Naming the rule and the edge or node.
    """
    revived = np.argwhere(decision.keep & ~state.active)
    if len(revived):
        raise SearchError(
            f"an operation pruner must not revive an operation, got (level, edge, operation) "
            f"{revived[0].tolist()} in epoch {state.epoch}"
        )
    emptied = np.argwhere(~decision.keep.any(axis=-1))
    if len(emptied):
        raise SearchError(
            f"an operation pruner must leave every edge an operation, got none on (level, edge) "
            f"{emptied[0].tolist()} in epoch {state.epoch}"
        )
    live = live_edges(decision.keep, state.operations)
    targets = np.array([target for _, target in state.edges])
    for target in np.unique(targets):
        fewest = int(live[:, targets == target].sum(axis=-1).min())
        if fewest < EDGES_PER_NODE:
            raise SearchError(
                f"an operation pruner must leave every node {EDGES_PER_NODE} edges that carry "
                f"something, got {fewest} into node {target} in epoch {state.epoch}"
            )

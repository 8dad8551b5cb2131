"""Evidence in gradients: when sums of them are more than noise. Imports no torch.

A sum of steps over the root of their squares, |Σ g| / √Σ g², exceeds x with a probability of at
most 2 exp(-x²/2) if each step's sign is a coin toss given its size, whatever the sizes are and
however they depend on the past (Efron 1969; de la Peña 1999). It needs no estimate of the noise,
and neither learning rate nor batch size enter. `evidence_bound` shares one error over all edges,
operations and looks.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from iac_core.types import AlphaEvidence

MIN_LIVE_EDGE_SHARE = 0.9
"""A search is alive if at least this share of its edges is …"""

MIN_CONTRIBUTION = 0.2
"""… and each level's cell adds at least this much of what the decoder receives (rms over rms)."""

GRADIENT_SUMS = (
    "gradient_sum",
    "gradient_products",
    "edge_gradient_sum",
    "edge_gradient_products",
)
"""Sums of `AlphaEvidence` that a search records after every epoch."""

FIRST_LOOK = 8
"""Architecture step of the first look for life; every further one is at twice as many."""

_ROUNDING = 1e-12


def evidence_bound(n_edges: int, n_operations: int, n_looks: int, error: float = 0.05) -> float:
    """Return what |Σ g| / √Σ g² must exceed to be more than noise: √(2 ln(2 · tests / error)).

    Args:
        n_edges: Edges of all architectures (levels × edges).
        n_operations: Candidate operations of an edge.
        n_looks: Looks that the search could have.
        error: Probability that noise alone exceeds it anywhere.

    Examples:
        >>> round(evidence_bound(14, 8, 7), 2)
        4.55
    """
    return math.sqrt(2 * math.log(2 * n_edges * n_operations * max(1, n_looks) / error))


def is_look(n_steps: int) -> bool:
    """Return whether edges are looked at after so many architecture steps: 8, 16, 32 and so on.

    Examples:
        >>> [n for n in range(100) if is_look(n)]
        [8, 16, 32, 64]
    """
    return n_steps >= FIRST_LOOK and n_steps & (n_steps - 1) == 0


def n_looks_within(n_steps: int) -> int:
    """Return how many looks so many architecture steps have.

    Examples:
        >>> n_looks_within(7), n_looks_within(8), n_looks_within(740)
        (0, 1, 7)
    """
    return max(0, (n_steps // FIRST_LOOK).bit_length())


def self_normalised(
    sums: Float[ndarray, "*batch"], squares: Float[ndarray, "*batch"]
) -> Float[ndarray, "*batch"]:
    """Return Σ g / √Σ g², 0 where there was no gradient; at most the root of the number of steps.

    Examples:
        >>> self_normalised(np.array([4.0, 0.0]), np.array([4.0, 0.0])).tolist()
        [2.0, 0.0]
    """
    root = np.sqrt(np.maximum(squares, 0.0))
    found: ndarray = np.divide(sums, root, out=np.zeros_like(sums, dtype=float), where=root > 0)
    return found


def evidence_against(
    sums: Float[ndarray, "*batch n"],
    products: Float[ndarray, "*batch n n"],
    best: Int[ndarray, "*batch"],
) -> Float[ndarray, "*batch n"]:
    """Return Σ (g_o - g_best) / √Σ (g_o - g_best)² of every entry; 0 of the best itself.

    Args:
        sums: Σ g.
        products: Σ g_o g_p.
        best: Index of the entry that the others are held against.

    Examples:
        >>> steps = np.array([[1.0, -1.0]] * 9)
        >>> evidence_against(steps.sum(0), steps.T @ steps, np.array(1)).tolist()
        [3.0, 0.0]
    """
    at = best[..., None]
    own = np.diagonal(products, axis1=-2, axis2=-1)
    of_best = np.take_along_axis(own, at, axis=-1)
    shared = np.take_along_axis(products, at[..., None], axis=-1)[..., 0]
    squares = own - 2 * shared + of_best
    squares = np.where(squares > _ROUNDING * (own + of_best), squares, 0.0)
    return self_normalised(sums - np.take_along_axis(sums, at, axis=-1), squares)


def best_of(
    sums: Float[ndarray, "*batch n"], may_stay: Bool[ndarray, "*batch n"]
) -> Int[ndarray, "*batch"]:
    """Return the entry with the smallest Σ g among those that may stay; 0 if there is none."""
    found: ndarray = np.where(may_stay, sums, np.inf).argmin(axis=-1)
    return found


def all_alive(
    evidence: AlphaEvidence, live: Bool[ndarray, "levels edges"], targets: Int[ndarray, " edges"]
) -> Bool[ndarray, "levels edges"]:
    """Return for each edge whether all edges into its node that carry something are alive.

    Args:
        evidence: Which edges are alive.
        live: Edges that keep an operation other than ``none``.
        targets: Node that each edge enters.
    """
    is_dead = live & ~evidence.is_alive
    same_node = targets[:, None] == targets
    found: ndarray = ~(is_dead[:, None, :] & same_node).any(axis=-1)
    return found


def blank_evidence(shape: Sequence[int], bound: float, *, alive: bool = False) -> AlphaEvidence:
    """Return the evidence before the first step.

    Args:
        shape: ``(levels, edges, ops)``.
        bound: As in `AlphaEvidence`.
        alive: Whether edges are alive all the same, since step 0.
    """
    levels, edges, operations = shape
    return AlphaEvidence(
        n_steps=0,
        gradient_sum=np.zeros((levels, edges, operations)),
        gradient_products=np.zeros((levels, edges, operations, operations)),
        edge_gradient_sum=np.zeros((levels, edges)),
        edge_gradient_products=np.zeros((levels, edges, edges)),
        bound=bound,
        alive_since=np.full((levels, edges), 0 if alive else -1, dtype=np.int64),
    )

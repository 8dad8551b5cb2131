"""How far distributions moved between two windows of epochs, and how far noise moves them."""

import functools
import math
from types import ModuleType

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from iac_core.cells.genotype import masked_softmax
from iac_core.pruners.ranking import genotype_of, jensen_shannon
from iac_core.types import Reason, SearchState

_STANDSTILL_BITS = 1e-12
"""Divergences of logits that do not move at all: rounding."""


def window_divergence(
    alpha_history: Float[ndarray, "epochs levels edges ops"],
    active: Bool[ndarray, "levels edges ops"],
    window_epochs: int,
) -> tuple[Float[ndarray, "levels edges"], Float[ndarray, "levels edges ops"]]:
    """Compare the last W epochs with the W before them.

    Args:
        alpha_history: Alpha after every epoch, at least 2 W of them.
        active: Operations still in the graph; earlier epochs are renormalised over these.
        window_epochs: W.

    Returns:
        Divergence in bits for each edge, and the mean importances of the last window.
    """
    recent = np.ascontiguousarray(alpha_history[-2 * window_epochs :], dtype=np.float64)
    jsd, mean = np.empty(active.shape[:2]), np.empty(active.shape)
    stability_loops().window_divergence(recent, active, jsd, mean)
    return jsd, mean


def beta_divergence(
    beta_history: Float[ndarray, "epochs levels edges"],
    live: Bool[ndarray, "levels edges"],
    targets: Int[ndarray, " edges"],
    window_epochs: int,
) -> Float[ndarray, "levels edges"]:
    """Compare the windows of edge weights, node by node; each edge gets its node's divergence.

    Args:
        beta_history: Beta after every epoch, at least 2 W of them.
        live: Edges that carry something; the softmax runs over these.
        targets: Node that each edge enters.
        window_epochs: W.
    """
    recent = np.ascontiguousarray(beta_history[-2 * window_epochs :], dtype=np.float64)
    divergence = np.empty(live.shape)
    stability_loops().beta_divergence(recent, live, targets, divergence)
    return divergence


def noise_divergence(
    logits: Float[ndarray, "epochs *batch n"],
    shares: Float[ndarray, "*batch n"],
    active: Bool[ndarray, "*batch n"],
) -> Float[ndarray, "*batch"]:
    """Return the divergence between the windows that logits would have if they walked at random.

    A small move δ of logits diverges by Var_p(δ) / (8 ln 2) bits. If each logit takes independent
    steps of variance s² an epoch, the means of two adjacent windows of W epochs differ by a move
    of variance s² (2 W² + 1) / (3 W). s² is half the mean squared difference of successive steps,
    which a steady drift leaves out.

    Args:
        logits: After the 2 W + 1 epochs up to now; inactive ones may be NaN.
        shares: Mean softmax over both windows, 0 where inactive.
        active: What the softmax ran over.
    """
    window = (len(logits) - 1) // 2
    turns = np.diff(np.where(active, logits, 0.0), n=2, axis=0)
    s2 = np.square(turns).mean(axis=0) / 2 if len(turns) else np.zeros(shares.shape)
    per_epoch = (shares * (1 - shares) * s2).sum(axis=-1)
    noise: ndarray = per_epoch * (2 * window**2 + 1) / (3 * window) / (8 * math.log(2))
    return noise


def motion_over_noise(
    logits: Float[ndarray, "epochs *batch n"],
    active: Bool[ndarray, "*batch n"],
    leaders: Bool[ndarray, "*batch n"],
) -> Float[ndarray, "*batch"]:
    """Return the divergence between two windows over that of a random walk.

    Leaders that gain only widen their lead, which is no reason to wait: where their common share
    is larger in the second window, the others are compared among themselves.

    Args:
        logits: After the 2 W + 1 epochs up to now; inactive ones may be NaN.
        active: Entries that the softmax runs over.
        leaders: Entries that will be kept.

    Returns:
        About 1 for a random walk, 0 where nothing moved, infinity where everything that moves
        does so without any noise.
    """
    window = (len(logits) - 1) // 2
    shares = masked_softmax(logits[1:], np.broadcast_to(active, logits[1:].shape))
    gain = (shares[window:].mean(axis=0) - shares[:window].mean(axis=0)) * leaders
    compared = np.where(gain.sum(axis=-1, keepdims=True) > 0, active & ~leaders, active)
    shares = masked_softmax(logits[1:], np.broadcast_to(compared, logits[1:].shape))
    before, after = shares[:window].mean(axis=0), shares[window:].mean(axis=0)
    divergence = jensen_shannon(before, after)
    noise = noise_divergence(logits, (before + after) / 2, compared)
    ratio = np.full(divergence.shape, np.inf)
    np.divide(divergence, noise, out=ratio, where=noise > 0)
    return np.where(divergence <= _STANDSTILL_BITS, 0.0, ratio)


class GenotypeAge:
    """For how many epochs the genotype has stayed the same.

    Attributes:
        genotype: The last one, JSON.
        epochs: Its age.
    """

    def __init__(self, genotype: str = "", epochs: int = 0) -> None:
        self.genotype, self.epochs = genotype, epochs

    def follow(self, state: SearchState) -> None:
        """Take note of another epoch."""
        genotype = genotype_of(state)
        self.epochs = self.epochs + 1 if genotype == self.genotype else 0
        self.genotype = genotype

    def stop_reason(
        self, most: int, *, min_operations: int, stop_operations: int, patience_epochs: int
    ) -> Reason | None:
        """Say whether the search is over.

        Args:
            most: Operations of the edge that keeps most.
            min_operations: With this many everywhere nothing is left to decide.
            stop_operations: From this many on a genotype that stands ends the search …
            patience_epochs: … at this age.
        """
        if most <= min_operations:
            return Reason(
                rule="every_edge_decided", value=float(most), threshold=float(min_operations)
            )
        if most <= stop_operations and self.epochs >= patience_epochs:
            return Reason(
                rule="genotype_unchanged",
                value=float(self.epochs),
                threshold=float(patience_epochs),
            )
        return None


@functools.cache
def stability_loops() -> ModuleType:
    """Return the compiled loops, loaded where a pruner is built, not where settings are read."""
    from iac_core.kernels import stability

    stability.compile_loops()  # before a search counts its seconds
    return stability

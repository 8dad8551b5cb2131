"""States of imagined searches, for tests of operation pruners."""

import numpy as np

from iac_core.cells.genotype import cell_edges, live_edges, masked_softmax
from iac_core.config import OPERATION_NAMES
from iac_core.types import AlphaEvidence, SearchState


def state(
    alpha_history,
    active,
    *,
    step_per_epoch=0.15,
    first_alpha_epoch=0,
    n_epochs=200,
    beta_history=None,
    evidence=None,
):
    """The state after the last epoch of a history ``(epochs, levels, edges, ops)``.

    Beta is 0 throughout unless its history, of at least as many epochs, is given. Without evidence
    every edge is alive and the last logits are what 100 equal gradients made of them.
    """
    history = np.asarray(alpha_history, dtype=float)
    n_nodes = {2: 1, 5: 2, 9: 3, 14: 4}[history.shape[2]]
    alpha = np.where(active, history[-1], np.nan)
    betas = np.zeros(history.shape[:3])
    if beta_history is not None:
        betas = np.asarray(beta_history, dtype=float)[: len(history)]
    return SearchState(
        epoch=len(history) - 1,
        n_epochs=n_epochs,
        alpha=alpha,
        beta=betas[-1],
        importance=masked_softmax(history[-1], active),
        active=active,
        operations=OPERATION_NAMES,
        edges=cell_edges(n_nodes),
        alpha_history=history,
        beta_history=betas,
        evidence=evidence or equal_gradients(-history[-1], -betas[-1]),
        first_alpha_epoch=first_alpha_epoch,
        max_alpha_step_per_epoch=step_per_epoch,
        seed=0,
        n_slices_trained=1000 * len(history),
        n_scoring_slices=10_000,
        values_of=lambda masks, scoring: additive_values(masks),
        dominant_eigenvalue=lambda: 1.0 + 0.02 * len(history) ** 2,
    )


def equal_gradients(alpha_sum, beta_sum, n_steps=100):
    """Evidence of so many equal steps; whatever differs differs by √n_steps."""
    return AlphaEvidence(
        n_steps=n_steps,
        gradient_sum=alpha_sum,
        gradient_products=alpha_sum[..., :, None] * alpha_sum[..., None, :] / n_steps,
        edge_gradient_sum=beta_sum,
        edge_gradient_products=beta_sum[..., :, None] * beta_sum[..., None, :] / n_steps,
        bound=4.6,
        alive_since=np.full(beta_sum.shape, 8),
    )


def additive_values(masks):
    """A game in which every operation adds a worth of its own, and fewer are worth less."""
    worth = np.random.default_rng(7).random(masks.shape[1:])
    return 1 + (masks * worth).sum(axis=(1, 2, 3)) / worth.sum()


def drive(pruner, alphas, **settings):
    """Feed a pruner one epoch after the other; return the decisions and the last mask."""
    active = np.ones(np.asarray(alphas[0]).shape, dtype=bool)
    decisions = []
    for epoch in range(len(alphas)):
        decision = pruner.decide(state(alphas[: epoch + 1], active, **settings))
        assert not (decision.keep & ~active).any(), "an operation was revived"
        assert decision.keep.any(axis=-1).all(), "an edge was emptied"
        live = live_edges(decision.keep, OPERATION_NAMES)
        targets = np.array([target for _, target in cell_edges(2)])
        if live.shape[1] == len(targets):
            for node in np.unique(targets):
                assert (live[:, targets == node].sum(axis=-1) >= 2).all(), "a node starves"
        active = decision.keep.copy()
        decisions.append(decision)
        if decision.stop:
            break
    return decisions, active

"""Simulated searches of alpha and beta under a known law of gradients, driving a real pruner.

Nothing is trained: the gradients of an edge's operations are drawn, centred over the operations
that are still active (as the gradient of a softmax always is), added up as evidence, and given to
Adam or AdamW as in a real search. The pruner sees a real `SearchState` and decides after every
epoch, so that what it does under pure noise or to a planted truth can be counted.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from iac_core.cells.genotype import cell_edges, live_edges, masked_softmax
from iac_core.config import OPERATION_NAMES, SearchSettings, require
from iac_core.pruners.contract import check_decision
from iac_core.pruners.evidence import (
    MIN_LIVE_EDGE_SHARE,
    evidence_bound,
    is_look,
    n_looks_within,
    self_normalised,
)
from iac_core.types import AlphaEvidence, OperationPruner, Reason, Scoring, SearchState

Law = Literal["zero", "noise", "planted", "half_planted", "drift"]

RECORDED_NOISE = 5e-4
"""Rms gradient of alpha that was recorded in searches whose cell replaces the skip."""

_ADAM_EPS = 1e-8


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedGradients:
    """The law that gradients are drawn from.

    Attributes:
        law: ``zero``: none at all. ``noise``: symmetric, independent over steps and operations.
            ``planted``: the same, and one operation of each edge, never ``none``, has a mean.
            ``half_planted``: the same on every second edge. ``drift``: every operation has a mean
            of its own, spread evenly between the planted operation's and its negative.
        snr: |mean| / deviation, per step, of the planted operation's gradient centred over all
            operations of the edge.
        noise: Deviation of an operation's gradient before it is centred.
    """

    law: Law
    snr: float = 0.3
    noise: float = RECORDED_NOISE

    def __post_init__(self) -> None:
        require(self.snr >= 0, "snr must be at least 0", self.snr)
        require(self.noise >= 0, "noise must be at least 0", self.noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedSearch:
    """What a simulated search did.

    Attributes:
        plant: Planted operation of each edge, -1 where there is none, shape ``(edges,)``.
        alpha: Logits after every epoch, ``(epochs, edges, ops)``, NaN where gone.
        active: Operations in the graph at the end, ``(edges, ops)``.
        steps_of_removal: Architecture step after which an operation went, -1 if it stayed, like
            `active`.
        evidence: The sums at the end.
        events: ``(epoch, reason)`` in order.
        n_epochs: Epochs until it stopped.
    """

    plant: Int[ndarray, " edges"]
    alpha: Float[ndarray, "epochs edges ops"]
    active: Bool[ndarray, "edges ops"]
    steps_of_removal: Int[ndarray, "edges ops"]
    evidence: AlphaEvidence
    events: tuple[tuple[int, Reason], ...]
    n_epochs: int

    @property
    def has_removed(self) -> bool:
        """Whether anything went."""
        return not bool(self.active.all())

    @property
    def is_alive(self) -> bool:
        """Whether enough edges are alive."""
        return self.evidence.live_edge_share >= MIN_LIVE_EDGE_SHARE

    def keeps_plant(self) -> Bool[ndarray, " planted"]:
        """Whether each planted edge still has its planted operation."""
        edges = np.flatnonzero(self.plant >= 0)
        kept: ndarray = self.active[edges, self.plant[edges]]
        return kept

    def steps_until_half(self) -> Float[ndarray, " planted"]:
        """Architecture steps until half of the other operations of each planted edge are gone.

        Infinite where they never are. ``none`` is one of the others.
        """
        steps = np.where(self.steps_of_removal < 0, np.inf, self.steps_of_removal)
        edges = np.flatnonzero(self.plant >= 0)
        steps[edges, self.plant[edges]] = np.inf
        n_half = -(-(steps.shape[1] - 1) // 2)
        found: ndarray = np.sort(steps, axis=1)[edges, n_half - 1]
        return found


def simulate(
    pruner: OperationPruner,
    gradients: SimulatedGradients,
    *,
    seed: int,
    n_nodes: int = 4,
    n_steps: int = 4,
    search: SearchSettings | None = None,
) -> SimulatedSearch:
    """Run a simulated search to its end.

    Args:
        pruner: In the state it was built in.
        gradients: Their law.
        seed: Of everything that is drawn.
        n_nodes: Intermediate nodes of the cell.
        n_steps: Steps of an epoch; the pruner's pace may shorten it.
        search: Epochs, rate, decay and optimiser of alpha; None is 200 epochs without a warm-up.

    Raises:
        SearchError: If the pruner breaks its contract.
    """
    run = _Run(pruner, gradients, seed, n_nodes, n_steps, search or SIMULATED_SEARCH)
    for _ in range(run.search.epochs):
        if run.run_epoch():
            break
    return run.result()


SIMULATED_SEARCH = SearchSettings(epochs=200, alpha_warmup_epochs=0)
"""Length and optimiser of a simulated search unless others are given."""


@dataclass(slots=True)
class _Adam:
    """Adam on one array, as `torch.optim` has it, its decay decoupled or added to the gradient."""

    shape: tuple[int, ...]
    rate: float
    search: SearchSettings
    first: ndarray = field(init=False)
    second: ndarray = field(init=False)
    n_steps: int = 0

    def __post_init__(self) -> None:
        self.first, self.second = np.zeros(self.shape), np.zeros(self.shape)

    def step(self, logits: ndarray, gradient: ndarray) -> None:
        """Move the logits."""
        decay = self.search.resolved_alpha_weight_decay
        if decay and self.search.alpha_optimiser == "adam_l2":
            gradient = gradient + decay * logits
        elif decay:
            logits *= 1 - self.rate * decay
        self.n_steps += 1
        one, two = self.search.alpha_betas
        self.first += (1 - one) * (gradient - self.first)
        self.second += (1 - two) * (gradient * gradient - self.second)
        root = np.sqrt(self.second / (1 - two**self.n_steps)) + _ADAM_EPS
        logits -= (self.rate / (1 - one**self.n_steps)) * self.first / root


class _Run:
    """A simulated search under way; one level."""

    def __init__(
        self,
        pruner: OperationPruner,
        gradients: SimulatedGradients,
        seed: int,
        n_nodes: int,
        n_steps: int,
        search: SearchSettings,
    ) -> None:
        self.pruner, self.gradients, self.search, self.seed = pruner, gradients, search, seed
        self.generator = np.random.default_rng([seed, 7])
        self.edges, self.n_steps = cell_edges(n_nodes), n_steps
        n_edges, n_operations = len(self.edges), len(OPERATION_NAMES)
        self.real = np.array([name != "none" for name in OPERATION_NAMES])
        pace = pruner.pace
        warmup = pace.alpha_warmup_epochs
        self.warmup = search.alpha_warmup_epochs if warmup is None else warmup
        self.rate = search.resolved_alpha_learning_rate(n_steps) * pace.alpha_rate_factor
        # One array for alpha and beta, that one optimiser moves; both are views of it.
        self.logits = 1e-3 * self.generator.standard_normal(n_edges * (n_operations + 1))
        self.alpha = self.logits[n_edges:].reshape(n_edges, n_operations)
        self.beta = self.logits[:n_edges]
        self.adam = _Adam(self.logits.shape, self.rate, search)
        self.plant, self.means = self._plant()
        self.active = np.ones(self.alpha.shape, dtype=bool)
        self.gone_at = np.full(self.alpha.shape, -1)
        n_alpha_steps = max(0, search.epochs - self.warmup) * n_steps
        self.bound = evidence_bound(n_edges, n_operations, n_looks_within(n_alpha_steps))
        self.sums = {
            "gradient_sum": np.zeros(self.alpha.shape),
            "gradient_products": np.zeros((*self.alpha.shape, n_operations)),
            "edge_gradient_sum": np.zeros(n_edges),
            "edge_gradient_products": np.zeros((n_edges, n_edges)),
        }
        self.alive_since = np.full(n_edges, -1)
        self.n_alpha_steps = self.n_trained = self.epoch = 0
        self.alphas = np.full((search.epochs, 1, *self.alpha.shape), np.nan)
        self.betas = np.full((search.epochs, 1, n_edges), np.nan)
        self.events: list[tuple[int, Reason]] = []

    def run_epoch(self) -> bool:
        """Draw an epoch's steps and let the pruner decide; return whether it stops."""
        n_steps = self._steps_of_epoch()
        if self.epoch >= self.warmup:
            self._train(n_steps)
        self.n_trained += n_steps * (1 + (self.epoch >= self.warmup))
        self.alphas[self.epoch, 0] = np.where(self.active, self.alpha, np.nan)
        self.betas[self.epoch, 0] = self.beta
        state = self._state(n_steps)
        decision = self.pruner.decide(state)
        if decision.keep is not state.active:
            check_decision(decision, state)
        self.events += [(self.epoch, reason) for reason in decision.reasons]
        self.gone_at[self.active & ~decision.keep[0]] = self.n_alpha_steps
        self.active = decision.keep[0].copy()
        self.epoch += 1
        return decision.stop

    def result(self) -> SimulatedSearch:
        return SimulatedSearch(
            plant=self.plant,
            alpha=self.alphas[: self.epoch, 0],
            active=self.active,
            steps_of_removal=self.gone_at,
            evidence=self._evidence(),
            events=tuple(self.events),
            n_epochs=self.epoch,
        )

    def _plant(self) -> tuple[ndarray, ndarray]:
        """Planted operation of each edge, and the mean gradient of every operation."""
        law, (n_edges, n) = self.gradients.law, self.alpha.shape
        plant = self.generator.choice(np.flatnonzero(self.real), size=n_edges)
        means = np.zeros(self.alpha.shape)
        # Centring takes the mean and the deviation of one operation to (n - 1) / n and its root.
        size = self.gradients.snr * self.gradients.noise * np.sqrt(n / (n - 1))
        if law == "drift":
            spread = np.linspace(-size, size, n)
            means = np.stack([self.generator.permutation(spread) for _ in range(n_edges)])
        if law == "half_planted":
            plant[1::2] = -1
        if law not in ("planted", "half_planted"):
            plant[:] = -1
        planted = np.flatnonzero(plant >= 0)
        means[planted, plant[planted]] = -size
        return plant, means

    def _steps_of_epoch(self) -> int:
        """As `iac_core.training.search.Search.steps_of_epoch`."""
        n_removable = self.active.size - len(self.active)
        gone = float((~self.active).sum()) / n_removable
        return max(1, round(self.n_steps * self.pruner.pace.share(min(1.0, gone))))

    def _train(self, n_steps: int) -> None:
        """An epoch's steps of alpha and beta."""
        noise = 0.0 if self.gradients.law == "zero" else self.gradients.noise
        drawn = noise * self.generator.standard_normal((n_steps, *self.alpha.shape)) + self.means
        drawn = np.where(self.active, drawn, 0.0)
        centre = drawn.sum(axis=-1, keepdims=True) / self.active.sum(axis=-1, keepdims=True)
        of_alpha = np.where(self.active, drawn - centre, 0.0)
        of_beta = noise * self.generator.standard_normal((n_steps, len(self.edges)))
        for step in np.concatenate([of_beta, of_alpha.reshape(n_steps, -1)], axis=1):
            self.adam.step(self.logits, step)
        self.sums["edge_gradient_sum"] += of_beta.sum(axis=0)
        self.sums["edge_gradient_products"] += of_beta.T @ of_beta
        first = 0
        for last in range(1, n_steps + 1):
            is_due = is_look(self.n_alpha_steps + last)
            if is_due or last == n_steps:
                part = of_alpha[first:last].swapaxes(0, 1)
                self.sums["gradient_sum"] += part.sum(axis=1)
                self.sums["gradient_products"] += part.swapaxes(1, 2) @ part
                first = last
            if is_due:
                self._look(self.n_alpha_steps + last)
        self.n_alpha_steps += n_steps

    def _look(self, n_steps: int) -> None:
        """Find edges alive; the gradients of whole edges are centred, as liveness wants them."""
        squares = np.diagonal(self.sums["gradient_products"], axis1=-2, axis2=-1)
        strength = np.abs(self_normalised(self.sums["gradient_sum"], squares))
        found = (strength[:, self.real] > self.bound).any(axis=-1)
        found &= (self.alive_since < 0) & self.active.all(axis=-1)
        self.alive_since[found] = n_steps

    def _evidence(self) -> AlphaEvidence:
        return AlphaEvidence(
            n_steps=self.n_alpha_steps,
            bound=self.bound,
            alive_since=self.alive_since[None].copy(),
            **{name: array[None] for name, array in self.sums.items()},
        )

    def _state(self, n_steps: int) -> SearchState:
        alphas, betas = self.alphas[: self.epoch + 1], self.betas[: self.epoch + 1]
        active = self.active[None]
        return SearchState(
            epoch=self.epoch,
            n_epochs=self.search.epochs,
            alpha=alphas[-1],
            beta=betas[-1],
            importance=masked_softmax(self.alpha[None], active),
            active=active,
            operations=OPERATION_NAMES,
            edges=self.edges,
            alpha_history=alphas,
            beta_history=betas,
            evidence=self._evidence(),
            first_alpha_epoch=self.warmup,
            max_alpha_step_per_epoch=self.rate * n_steps,
            seed=self.seed,
            n_slices_trained=self.n_trained * self.search.batch_size,
            n_scoring_slices=1000,
            values_of=self._values_of,
            dominant_eigenvalue=lambda: 1.0,
        )

    def _values_of(
        self, masks: Bool[ndarray, "n levels edges ops"], scoring: Scoring
    ) -> Float[ndarray, " n"]:
        """Noise about the share of planted edges whose planted operation a mask has."""
        planted = np.flatnonzero(self.plant >= 0)
        worth = masks[:, 0, planted, self.plant[planted]].mean(axis=-1) if len(planted) else 0.0
        usable = live_edges(masks[:, 0], OPERATION_NAMES).mean(axis=-1)
        noise = self.generator.standard_normal(len(masks)) / np.sqrt(scoring.n_slices)
        values: ndarray = 0.5 * usable + 0.5 * worth + 0.1 * noise
        return values

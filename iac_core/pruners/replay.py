"""Replay: what an operation pruner does on the recorded alpha of a full search, training nothing.

The pruner itself decides, epoch by epoch, from states that are rebuilt from the record, so that a
replayed rule is the rule. Until something is pruned a replay is exact: pruning had not touched the
training that was recorded. Everything after the first removal is an estimate: the record's alpha
moved on with all operations in the network, and what is left is renormalised.
"""

from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from iac_core.cells.genotype import Genotype, discretise
from iac_core.config import SearchPace, SearchSettings, require
from iac_core.errors import ConfigError
from iac_core.pruners.contract import check_decision
from iac_core.pruners.evidence import blank_evidence
from iac_core.types import AlphaEvidence, OperationPruner, Reason, Scoring, SearchState


class NotReplayableError(ConfigError):
    """A pruner's decisions depend on what a recorded search does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvidence:
    """Evidence after every epoch of a search that pruned nothing; see `AlphaEvidence`.

    Attributes:
        gradient_sum: Shape ``(epochs, levels, edges, ops)``.
        gradient_products: Shape ``(epochs, levels, edges, ops, ops)``.
        edge_gradient_sum: Shape ``(epochs, levels, edges)``.
        edge_gradient_products: Shape ``(epochs, levels, edges, edges)``.
        n_alpha_steps: Architecture steps up to the end of every epoch, int64.
        alive_since: At the end of the search, ``(levels, edges)``.
        bound: That of the search.
    """

    gradient_sum: Float[ndarray, "epochs levels edges ops"]
    gradient_products: Float[ndarray, "epochs levels edges ops ops"]
    edge_gradient_sum: Float[ndarray, "epochs levels edges"]
    edge_gradient_products: Float[ndarray, "epochs levels edges edges"]
    n_alpha_steps: Int[ndarray, " epochs"]
    alive_since: Int[ndarray, "levels edges"]
    bound: float

    def at(self, epoch: int) -> AlphaEvidence:
        """Return the evidence after an epoch: an edge is alive from its look on."""
        n_steps = int(self.n_alpha_steps[epoch])
        return AlphaEvidence(
            n_steps=n_steps,
            gradient_sum=_as_float64(self.gradient_sum[epoch]),
            gradient_products=_as_float64(self.gradient_products[epoch]),
            edge_gradient_sum=_as_float64(self.edge_gradient_sum[epoch]),
            edge_gradient_products=_as_float64(self.edge_gradient_products[epoch]),
            bound=self.bound,
            alive_since=np.where(self.alive_since <= n_steps, self.alive_since, -1),
        )


def _as_float64(array: ndarray) -> ndarray:
    return array.astype(np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """What a full search that pruned nothing has recorded.

    Attributes:
        alpha: Logits after every epoch, shape ``(epochs, levels, edges, ops)``.
        beta: Edge logits, shape ``(epochs, levels, edges)``.
        importance: Softmax of alpha, shape like alpha.
        operations: Names along the last axis of alpha.
        edges: ``(source, target)`` of every edge.
        search: Settings of the search; its `epochs` may exceed those recorded.
        n_weight_steps: Weight steps of each epoch.
        n_architecture_steps: Steps of alpha and beta of each epoch.
        seed: The job's seed.
        evidence: Sums of gradients; None for a search that was recorded before they were kept.

    Raises:
        ConfigError: If the arrays do not fit each other, or the search pruned something.
    """

    alpha: Float[ndarray, "epochs levels edges ops"]
    beta: Float[ndarray, "epochs levels edges"]
    importance: Float[ndarray, "epochs levels edges ops"]
    operations: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    search: SearchSettings
    n_weight_steps: Int[ndarray, " epochs"]
    n_architecture_steps: Int[ndarray, " epochs"]
    seed: int
    evidence: RecordedEvidence | None = None

    def __post_init__(self) -> None:
        require(len(self.alpha) > 0, "a trajectory must have an epoch", len(self.alpha))
        require(
            self.alpha.shape == self.importance.shape
            and self.alpha.shape[:3] == self.beta.shape
            and self.alpha.shape[2:] == (len(self.edges), len(self.operations))
            and len(self.alpha) == len(self.n_weight_steps) == len(self.n_architecture_steps),
            "the arrays of a trajectory must fit each other",
            (self.alpha.shape, self.beta.shape),
        )
        require(
            bool(np.isfinite(self.alpha).all()),
            "a trajectory to replay must be of a search that pruned nothing",
            f"operations without alpha from epoch {self._first_gap()}",
        )

    @property
    def n_nodes(self) -> int:
        """Intermediate nodes of the cell."""
        return self.edges[-1][1] - 1

    @property
    def alpha_rate(self) -> float:
        """Learning rate of alpha."""
        return self.search.resolved_alpha_learning_rate(int(self.n_weight_steps.max()))

    def genotype(self) -> Genotype:
        """Return what the recorded search found."""
        every = np.ones(self.alpha.shape[1:], dtype=bool)
        return discretise(self.alpha[-1], self.beta[-1], every, self.operations, self.n_nodes)

    def _first_gap(self) -> int:
        gaps = np.flatnonzero(~np.isfinite(self.alpha).all(axis=(1, 2, 3)))
        return int(gaps[0]) if len(gaps) else -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedSearch:
    """How a search would have gone.

    Attributes:
        events: What is removed and why, and the stop: ``(epoch, reason)`` in order.
        active: Operations in the graph during each epoch, shape ``(epochs, levels, edges, ops)``;
            its length is that of the search.
        genotype: The cells it ends with.
        first_removal_epoch: Epoch after which the first operation goes; None if none does.
        is_whole: Whether the search ended by its own rule or at its full length; False if the
            record is shorter than that.
    """

    events: tuple[tuple[int, Reason], ...]
    active: Bool[ndarray, "epochs levels edges ops"]
    genotype: Genotype
    first_removal_epoch: int | None
    is_whole: bool

    @property
    def n_epochs(self) -> int:
        """Epochs that the search runs."""
        return len(self.active)

    @property
    def n_exact_epochs(self) -> int:
        """Epochs that are known and not estimated: those up to the first removal."""
        return self.n_epochs if self.first_removal_epoch is None else self.first_removal_epoch + 1

    @property
    def is_exact(self) -> bool:
        """Whether nothing of it is estimated: it removes nothing before its last epoch."""
        return self.n_exact_epochs == self.n_epochs

    @property
    def epoch_equivalents(self) -> float:
        """Epochs of the full search that all its epochs cost, if an operation's cost is its share.

        See `iac_core.pruners.epoch_cost` for seconds.
        """
        return float(self.active.mean(axis=(1, 2, 3)).sum())


def check_replayable(pruner: OperationPruner, search: SearchSettings) -> None:
    """Refuse settings that change the training from its first epoch.

    Args:
        pruner: The pruner.
        search: Settings of the recorded search.

    Raises:
        NotReplayableError: Naming the setting.
    """
    plain = SearchPace()
    wanted = pruner.pace
    if wanted.alpha_warmup_epochs == search.alpha_warmup_epochs:
        wanted = replace(wanted, alpha_warmup_epochs=None)
    for name in ("alpha_warmup_epochs", "alpha_rate_factor", "start_share"):
        if getattr(wanted, name) != getattr(plain, name):
            raise NotReplayableError(
                f"pace.{name} must be that of the recorded search to be replayed, got "
                f"{getattr(wanted, name)}; it changes the training from its first epoch: search "
                "anew, or record a search without pruning at that pace"
            )


def check_evidence(pruner: OperationPruner, *, has_evidence: bool) -> None:
    """Refuse a pruner that decides on evidence over a record that has none.

    Raises:
        NotReplayableError: Naming what is missing.
    """
    if pruner.needs_evidence and not has_evidence:
        raise NotReplayableError(
            "a pruner that decides on evidence needs a record with sums of alpha's gradients, "
            "got one from before they were kept; search anew, or set living_edges_only to false "
            "or min_live_edge_share to 0 where the pruner has it"
        )


def replay(trajectory: Trajectory, pruner: OperationPruner) -> ReplayedSearch:
    """Let a fresh pruner decide over a recorded search.

    Args:
        trajectory: The record.
        pruner: In the state it was built in.

    Raises:
        NotReplayableError: If the pruner changes the training from its first epoch, or asks for
            what only the trained network can tell, or decides on evidence that the record lacks.
        SearchError: If the pruner breaks its contract.
    """
    check_replayable(pruner, trajectory.search)
    check_evidence(pruner, has_evidence=trajectory.evidence is not None)
    states = _States(trajectory)
    events: list[tuple[int, Reason]] = []
    actives: list[ndarray] = []
    first_removal: int | None = None
    stops, genotype_epoch = False, None
    for epoch in range(min(len(trajectory.alpha), trajectory.search.epochs)):
        state = states.at(epoch)
        actives.append(state.active)
        decision = pruner.decide(state)
        events += [(epoch, reason) for reason in decision.reasons]
        if not np.array_equal(decision.keep, state.active):
            check_decision(decision, state)
            first_removal = epoch if first_removal is None else first_removal
            states.remove(decision.keep, epoch)
        stops, genotype_epoch = decision.stop, decision.genotype_epoch
        if stops:
            break
    return ReplayedSearch(
        events=tuple(events),
        active=np.array(actives),
        genotype=states.genotype(len(actives) - 1 if genotype_epoch is None else genotype_epoch),
        first_removal_epoch=first_removal,
        is_whole=stops or len(actives) == trajectory.search.epochs,
    )


class _States:
    """States of the recorded search as it would look with fewer operations."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.record = trajectory
        self.active = np.ones(trajectory.alpha.shape[1:], dtype=bool)
        self.history = trajectory.alpha
        self.is_pruned = False
        self.steps = np.cumsum(trajectory.n_weight_steps + trajectory.n_architecture_steps)
        self.alpha_rate = trajectory.alpha_rate
        self.active.flags.writeable = False
        self.no_evidence = blank_evidence(trajectory.alpha.shape[1:], bound=np.inf)

    def at(self, epoch: int) -> SearchState:
        record = self.record
        return SearchState(
            epoch=epoch,
            n_epochs=record.search.epochs,
            alpha=self.history[epoch],
            beta=record.beta[epoch],
            importance=self._importance(epoch),
            active=self.active,
            operations=record.operations,
            edges=record.edges,
            alpha_history=self.history[: epoch + 1],
            beta_history=record.beta[: epoch + 1],
            evidence=self._evidence(epoch),
            first_alpha_epoch=record.search.alpha_warmup_epochs,
            max_alpha_step_per_epoch=self.alpha_rate * int(record.n_weight_steps[epoch]),
            seed=record.seed,
            n_slices_trained=int(self.steps[epoch]) * record.search.batch_size,
            n_scoring_slices=1,  # whoever scores is refused by `_no_values`
            values_of=_no_values,
            dominant_eigenvalue=_no_eigenvalue,
        )

    def _evidence(self, epoch: int) -> AlphaEvidence:
        """That of the record: what is left has the gradients it had among all operations."""
        recorded = self.record.evidence
        return self.no_evidence if recorded is None else recorded.at(epoch)

    def remove(self, keep: Bool[ndarray, "levels edges ops"], epoch: int) -> None:
        """From the next epoch on only what is kept has an alpha."""
        if not self.is_pruned:
            self.history, self.is_pruned = self.history.copy(), True
        self.history.flags.writeable = True
        self.history[epoch + 1 :, ~keep] = np.nan
        self.active = keep.copy()
        for array in (self.active, self.history):
            array.flags.writeable = False

    def _importance(self, epoch: int) -> Float[ndarray, "levels edges ops"]:
        """The recorded shares, renormalised over what is left."""
        recorded: ndarray = self.record.importance[epoch]
        if not self.is_pruned:
            return recorded
        left = np.where(self.active, recorded, 0.0)
        shares: ndarray = left / left.sum(axis=-1, keepdims=True)
        return shares

    def genotype(self, epoch: int) -> Genotype:
        """The cells of an epoch's logits, over what is left at the end of the search."""
        record = self.record
        alpha = np.nan_to_num(self.history[epoch])
        return discretise(
            alpha, record.beta[epoch], self.active, record.operations, record.n_nodes
        )


def _no_values(masks: Bool[ndarray, "n levels edges ops"], scoring: Scoring) -> NoReturn:
    raise NotReplayableError(
        "a pruner that scores operations on slices cannot be replayed, got one that asks for the "
        "values of masks; the recorded search has no network left to score: search anew"
    )


def _no_eigenvalue() -> NoReturn:
    raise NotReplayableError(
        "a pruner that measures curvature cannot be replayed, got one that asks for an "
        "eigenvalue; the recorded search has no network left to differentiate: search anew"
    )


def agreement(a: Genotype, b: Genotype) -> float:
    """Return the share of kept edges, with their operations, that two genotypes have in common.

    Levels count alike; 1 means equal.

    Examples:
        >>> from iac_core.cells.genotype import GenotypeEdge
        >>> one = Genotype(1, ((GenotypeEdge(2, 0, "skip_connect"), GenotypeEdge(2, 1, "none")),))
        >>> other = Genotype(1, ((GenotypeEdge(2, 0, "skip_connect"),),))
        >>> agreement(one, one), agreement(one, other)
        (1.0, 0.5)
    """
    n_levels = max(len(a.levels), len(b.levels))
    shares = []
    for level in range(n_levels):
        ours, theirs = set(a.level(level)), set(b.level(level))
        shares.append(len(ours & theirs) / max(len(ours), len(theirs), 1))
    return float(np.mean(shares))

"""IAC-LTH with a test that binds: operations go on evidence, once their edge has settled.

Source of the idea: the abstract of IAC-LTH (a Jensen–Shannon test of stability on each edge's
operation importances; low-importance operations go step by step). The rule is our choice:

1. The edge is alive (see `iac_core.pruners.evidence`); a dead one is never pruned.
2. The evidence against the operation exceeds the bound: Σ (g_o - g_best) / √Σ (g_o - g_best)²,
   g being the gradient of the loss in alpha and `best` the operation with the smallest Σ g among
   those that a genotype can use, so never ``none``.
3. The edge has settled: the divergence between two windows of its importances is at most
   `noise_factor` times what a random walk gives. Where the best operation gains, only the others
   are compared: a lead that grows is no reason to wait.

`iac_core.pruners.js_absolute` compares the divergence with an absolute threshold.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from iac_core.cells.genotype import EDGES_PER_NODE, live_edges
from iac_core.config import SearchPace, require, require_at_least, require_positive
from iac_core.pruners.evidence import (
    MIN_LIVE_EDGE_SHARE,
    all_alive,
    best_of,
    evidence_against,
)
from iac_core.pruners.ranking import has_spare_edges, removable
from iac_core.pruners.windows import (
    GenotypeAge,
    beta_divergence,
    motion_over_noise,
    stability_loops,
    window_divergence,
)
from iac_core.types import Decision, Reason, SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class JsStabilitySettings:
    """When an edge counts as settled, and how much it then loses.

    Attributes:
        window_epochs: W; the means of two adjacent windows of this length are compared (row 18).
        noise_factor: c; a settled edge diverges at most this much more than a random walk. The
            default is the 99th percentile (6.85, rounded up) of that ratio under Adam on symmetric
            noise with W = 5, 4 steps an epoch and 8 operations, as ``python -m
            benchmarks.liveness`` prints it: noise alone keeps a decided operation for 1 epoch in
            100. It is above 1 since Adam's first moment makes successive epochs alike, which s²
            leaves out.
        patience_epochs: P; an edge is pruned after so many settled epochs in a row with the same
            best operation and something to lose.
        max_share: At most this share of an edge's operations goes at once (row 23).
        min_operations: An edge keeps at least this many.
        stop_operations: The search may end once enough edges have at most this many operations,
            at least 90 % of them being alive …
        stop_edge_share: … enough being this share of all edges …
        stop_patience_epochs: … and the genotype has not changed for this many epochs.
        prune_edges: Whether a node whose edges are all alive loses edges by the same rule with
            the gradients of beta, until two are left. An edge that is lost keeps ``none`` alone,
            so until its node is down to two an edge never loses ``none``.
        pace: How the epochs of the search are run.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    window_epochs: int = 5
    noise_factor: float = 7.0
    patience_epochs: int = 3
    max_share: float = 0.5
    min_operations: int = 1
    stop_operations: int = 3
    stop_edge_share: float = 0.9
    stop_patience_epochs: int = 10
    prune_edges: bool = False
    pace: SearchPace = field(default_factory=SearchPace)

    def __post_init__(self) -> None:
        require_at_least(
            1,
            window_epochs=self.window_epochs,
            patience_epochs=self.patience_epochs,
            min_operations=self.min_operations,
            stop_operations=self.stop_operations,
            stop_patience_epochs=self.stop_patience_epochs,
        )
        require_positive(noise_factor=self.noise_factor)
        require(
            0 < self.stop_edge_share <= 1,
            "stop_edge_share must be above 0, at most 1",
            self.stop_edge_share,
        )
        require(0 < self.max_share < 1, "max_share must be between 0 and 1", self.max_share)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsStabilityFastSettings(JsStabilitySettings):
    """The settings that aim at the shortest search: other defaults, the same rules (our choice).

    A short warm-up with a faster alpha, short windows, and edges go too. It may end once half of
    the eight operations are gone. Epochs keep all their steps: evidence grows with the steps of
    alpha, and shorter ones leave a weak signal without it. The noise factor is the same percentile
    with W = 2 and that rate.
    """

    window_epochs: int = 2
    noise_factor: float = 9.0
    patience_epochs: int = 1
    stop_operations: int = 4
    stop_patience_epochs: int = 2
    prune_edges: bool = True
    pace: SearchPace = field(
        default_factory=lambda: SearchPace(alpha_warmup_epochs=2, alpha_rate_factor=2.0)
    )


class JsStability:
    """The operation pruner of IAC-LTH, with evidence (see the module docstring)."""

    Settings: ClassVar[type] = JsStabilitySettings

    def __init__(self, settings: JsStabilitySettings) -> None:
        self.settings = settings
        stability_loops()
        self._genotype = GenotypeAge()
        self._edges: _Patience | None = None
        self._nodes: _Patience | None = None

    @property
    def pace(self) -> SearchPace:
        """How the epochs of the search are to be run."""
        return self.settings.pace

    @property
    def needs_evidence(self) -> bool:
        """Always."""
        return True

    def decide(self, state: SearchState) -> Decision:
        """Prune where there is evidence and the edge has settled; stop when all is decided."""
        self._genotype.follow(state)
        window = self.settings.window_epochs
        if len(state.alpha_history) < 2 * window:
            return Decision(keep=state.active)
        jsd, _ = window_divergence(state.alpha_history, state.active, window)
        targets = np.array([target for _, target in state.edges])
        live = live_edges(state.active, state.operations)
        beta_jsd = beta_divergence(state.beta_history, live, targets, window)
        measures = {"jsd": jsd, "beta_jsd": beta_jsd}
        is_early = state.epoch < state.first_alpha_epoch + 2 * window
        if is_early or not state.evidence.is_alive.any():
            return Decision(keep=state.active, measures=measures)
        keep = state.active.copy()
        reasons = self._prune_operations(keep, state)
        if self.settings.prune_edges:
            reasons += self._prune_edges(keep, targets, state)
        stop = self._stop_reason(keep, state)
        if stop is not None:
            reasons.append(stop)
        return Decision(
            keep=keep, stop=stop is not None, reasons=tuple(reasons), measures=measures
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {
            "last_genotype": self._genotype.genotype,
            "genotype_age": self._genotype.epochs,
            "edges": None if self._edges is None else self._edges.state_dict(),
            "nodes": None if self._nodes is None else self._nodes.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the counters."""
        self._genotype = GenotypeAge(state["last_genotype"], state["genotype_age"])
        self._edges, self._nodes = (
            None if state[name] is None else _Patience.of(state[name])
            for name in ("edges", "nodes")
        )

    def _prune_operations(
        self, keep: Bool[ndarray, "levels edges ops"], state: SearchState
    ) -> list[Reason]:
        """Take the operations that evidence speaks against out of `keep`."""
        if self._edges is None:
            self._edges = _Patience.start(keep)
        evidence, best = operation_evidence(state)
        losing = state.active & (evidence > state.evidence.bound)
        losing &= state.evidence.is_alive[..., None]
        if self.settings.prune_edges and "none" in state.operations:
            none = state.operations.index("none")
            for level, edge in np.argwhere(losing[..., none]).tolist():
                if has_spare_edges(keep[level], edge, state.edges, state.operations):
                    losing[level, edge, none] = False
        asked = np.asarray(losing.any(axis=-1))
        settled = self._has_settled(state.alpha_history, state.active, best, asked)
        due = self._edges.count(settled, best, self.settings.patience_epochs)
        reasons = []
        for level, edge in np.argwhere(due).tolist():
            against = np.where(losing[level, edge], evidence[level, edge], -np.inf)
            candidates = np.argsort(-against, kind="stable")[: int(losing[level, edge].sum())]
            n_active = int(keep[level, edge].sum())
            n_most = min(
                int(n_active * self.settings.max_share), n_active - self.settings.min_operations
            )
            gone = removable(
                candidates[: max(0, n_most)].tolist(),
                keep[level],
                edge,
                state.edges,
                state.operations,
            )
            if gone:
                keep[level, edge, gone] = False
                value = float(evidence[level, edge, gone].min())
                reasons.append(_reason("evidence", value, level, edge, gone, state))
        return reasons

    def _has_settled(
        self,
        history: Float[ndarray, "epochs levels n m"],
        active: Bool[ndarray, "levels n m"],
        leaders: Bool[ndarray, "levels n m"],
        asked: Bool[ndarray, "levels n"],
    ) -> Bool[ndarray, "levels n"]:
        """Whether distributions that something may leave have settled; False where not asked."""
        settled = np.zeros(asked.shape, dtype=bool)
        if asked.any():
            logits = history[-2 * self.settings.window_epochs - 1 :][:, asked]
            ratio = motion_over_noise(logits, active[asked], leaders[asked])
            settled[asked] = ratio <= self.settings.noise_factor
        return settled

    def _prune_edges(
        self,
        keep: Bool[ndarray, "levels edges ops"],
        targets: Int[ndarray, " edges"],
        state: SearchState,
    ) -> list[Reason]:
        """Leave nodes fewer edges: those that evidence speaks against keep ``none`` alone."""
        nodes = np.unique(targets)
        live = live_edges(keep, state.operations)[:, None, :] & (targets == nodes[:, None])
        if self._nodes is None:
            self._nodes = _Patience.start(live)
        if "none" not in state.operations:
            return []
        none = state.operations.index("none")
        evidence, kept = edge_evidence(state, live)
        losing = live & ~kept & (evidence > state.evidence.bound) & keep[:, None, :, none]
        alive = all_alive(state.evidence, live.any(axis=1), targets)
        losing &= alive[:, None, :] & (live.sum(axis=-1) > EDGES_PER_NODE)[..., None]
        history = np.broadcast_to(
            state.beta_history[:, :, None, :], (len(state.beta_history), *live.shape)
        )
        settled = self._has_settled(history, live, kept, losing.any(axis=-1))
        due = self._nodes.count(settled, kept, self.settings.patience_epochs)
        reasons = []
        for level, node in np.argwhere(due).tolist():
            against = np.where(losing[level, node], evidence[level, node], -np.inf)
            n_losing = int(losing[level, node].sum())
            n_gone = max(1, int(n_losing * self.settings.max_share))
            for edge in np.argsort(-against, kind="stable")[:n_gone].tolist():
                gone = [int(k) for k in np.flatnonzero(keep[level, edge]) if k != none]
                keep[level, edge, gone] = False
                value = float(evidence[level, node, edge])
                reasons.append(_reason("edge_evidence", value, level, edge, gone, state))
        return reasons

    def _stop_reason(
        self, keep: Bool[ndarray, "levels edges ops"], state: SearchState
    ) -> Reason | None:
        """Say whether the search is over.

        The few edges that may be dead in a search that is alive do not hold it up, nor do as many
        that stay open; but while a living edge is open, not everything is decided.
        """
        counts = np.sort(keep.sum(axis=-1), axis=None)
        most = counts[-1]
        if state.evidence.live_edge_share >= MIN_LIVE_EDGE_SHARE:
            n_counted = math.ceil(self.settings.stop_edge_share * counts.size)
            is_open = (keep.sum(axis=-1) > self.settings.min_operations) & state.evidence.is_alive
            most = max(counts[n_counted - 1], (self.settings.min_operations + 1) * is_open.any())
        return self._genotype.stop_reason(
            int(most),
            min_operations=self.settings.min_operations,
            stop_operations=self.settings.stop_operations,
            patience_epochs=self.settings.stop_patience_epochs,
        )


class JsStabilityFast(JsStability):
    """`JsStability` with the defaults of `JsStabilityFastSettings`."""

    Settings: ClassVar[type] = JsStabilityFastSettings


def operation_evidence(
    state: SearchState,
) -> tuple[Float[ndarray, "levels edges ops"], Bool[ndarray, "levels edges ops"]]:
    """Return the evidence against every operation, and the one that it is held against.

    Evidence is that of `iac_core.pruners.evidence.evidence_against`, against the operation with
    the smallest Σ g among the active ones other than ``none``; among all if no other is left.
    """
    real = np.array([name != "none" for name in state.operations])
    usable = state.active & real
    usable = np.where(usable.any(axis=-1, keepdims=True), usable, state.active)
    sums = state.evidence.gradient_sum
    best = best_of(sums, usable)
    evidence = evidence_against(sums, state.evidence.gradient_products, best)
    return evidence, np.arange(len(real)) == best[..., None]


def edge_evidence(
    state: SearchState, live: Bool[ndarray, "levels nodes edges"]
) -> tuple[Float[ndarray, "levels nodes edges"], Bool[ndarray, "levels nodes edges"]]:
    """Return the evidence against every edge into a node, and the two edges that it would keep.

    Those two have the smallest Σ g of beta; evidence is held against the second of them.

    Args:
        state: The state.
        live: Edges into each node that carry something.
    """
    sums = np.broadcast_to(state.evidence.edge_gradient_sum[:, None, :], live.shape)
    order = np.where(live, sums, np.inf).argsort(axis=-1, kind="stable")
    kept = np.zeros(live.shape, dtype=bool)
    np.put_along_axis(kept, order[..., :EDGES_PER_NODE], True, axis=-1)
    products = state.evidence.edge_gradient_products[:, None]
    products = np.broadcast_to(products, (*live.shape, live.shape[-1]))
    evidence = evidence_against(sums, products, order[..., EDGES_PER_NODE - 1])
    return evidence, kept & live


@dataclass(slots=True)
class _Patience:
    """Settled epochs in a row of edges or nodes, and the leaders that they had."""

    epochs: Int[ndarray, "levels n"]
    leaders: Bool[ndarray, "levels n m"]

    @classmethod
    def start(cls, like: Bool[ndarray, "levels n m"]) -> "_Patience":
        return cls(np.zeros(like.shape[:2], dtype=np.int64), np.zeros(like.shape, dtype=bool))

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "_Patience":
        return cls(np.array(state["epochs"]), np.array(state["leaders"]))

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs.tolist(), "leaders": self.leaders.tolist()}

    def count(
        self,
        settled: Bool[ndarray, "levels n"],
        leaders: Bool[ndarray, "levels n m"],
        patience_epochs: int,
    ) -> Bool[ndarray, "levels n"]:
        """Count an epoch; return what has been settled for long enough and starts anew."""
        goes_on = settled & (self.leaders == leaders).all(axis=-1)
        self.epochs = np.where(goes_on, self.epochs + 1, settled.astype(np.int64))
        self.leaders = leaders.copy()
        due: ndarray = settled & (self.epochs >= patience_epochs)
        self.epochs[due] = 0
        return due


def _reason(
    rule: str, value: float, level: int, edge: int, gone: list[int], state: SearchState
) -> Reason:
    return Reason(
        rule=rule,
        value=value,
        threshold=state.evidence.bound,
        level=level,
        edge=edge,
        operations=tuple(state.operations[index] for index in gone),
    )

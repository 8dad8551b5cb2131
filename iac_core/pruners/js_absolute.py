"""IAC-LTH with an absolute threshold: operations go once an edge's distribution stands still.

Source: the abstract of IAC-LTH (a Jensen–Shannon test of stability on each edge's operation
importances; low-importance operations go step by step). Window, threshold, patience, rank guard,
rate and stop rule are not stated in what could be read: they are our choice (rows 18 to 25). An
edge also stands still if its logits get no gradient or noise alone, so that by default only edges
that are alive are pruned. `iac_core.pruners.js_stability` asks for evidence instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from iac_core.cells.genotype import EDGES_PER_NODE, live_edges
from iac_core.config import SearchPace, require, require_at_least, require_positive
from iac_core.pruners.evidence import all_alive
from iac_core.pruners.ranking import weakest_edges
from iac_core.pruners.windows import (
    GenotypeAge,
    beta_divergence,
    stability_loops,
    window_divergence,
)
from iac_core.types import Decision, Reason, SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class JsAbsoluteSettings:
    """When an edge counts as settled, and how much it then loses.

    Attributes:
        window_epochs: W; the means of two adjacent windows of this length are compared (row 18).
        threshold: τ in bits, for the reference drift (row 20); see `resolved_threshold`.
        reference_drift: Learning rate of alpha × steps per epoch × W that τ is stated for: 0.75 is
            3e-3 × 50 × 5 (our choice).
        patience_epochs: P; an edge is pruned after so many settled epochs in a row.
        rank_guard: Whether a settled epoch also needs the same kept operations as the one before
            (row 21).
        first_check_epoch: First epoch, from 0, after which edges are tested; None is the end of
            the warm-up plus 2 W (row 24).
        weak_share: Operations under this share of the uniform importance go (row 23).
        max_share: At most this share of an edge's operations goes at once (row 23).
        min_operations: An edge keeps at least this many.
        stop_operations: The search may end once every edge has at most this many operations …
        stop_patience_epochs: … and the genotype has not changed for this many epochs.
        prune_edges: Whether a node whose beta has settled (the same test over its incoming edges)
            loses its weakest edges, until two are left. An edge that is lost keeps `none` alone,
            so until its node is down to two an edge never loses `none`. Beta is watched, and its
            divergence recorded, in any case (row 22).
        living_edges_only: Whether an edge must be alive to be pruned, and all edges into a node
            to lose one of them; false is the rule as it was before liveness was known.
        pace: How the epochs of the search are run.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    window_epochs: int = 5
    threshold: float = 2e-3
    reference_drift: float = 0.75
    patience_epochs: int = 3
    rank_guard: bool = True
    first_check_epoch: int | None = None
    weak_share: float = 0.5
    max_share: float = 0.5
    min_operations: int = 1
    stop_operations: int = 3
    stop_patience_epochs: int = 10
    prune_edges: bool = False
    living_edges_only: bool = True
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
        require_at_least(0, first_check_epoch=self.first_check_epoch)
        require_positive(threshold=self.threshold, reference_drift=self.reference_drift)
        require(0 <= self.weak_share <= 1, "weak_share must be within 0 to 1", self.weak_share)
        require(0 < self.max_share < 1, "max_share must be between 0 and 1", self.max_share)


def resolved_threshold(settings: JsAbsoluteSettings, max_alpha_step_per_epoch: float) -> float:
    """Return τ for a sweep's own rate and epoch length.

    For small moves the divergence grows with the square of the move (section 4.7 of the notes),
    and Adam moves a logit by at most about rate × steps × W within a window. A fixed τ would
    therefore always pass a slow alpha; scaled by the squared ratio to the reference drift it asks
    for the same relative standstill everywhere.

    Examples:
        >>> resolved_threshold(JsAbsoluteSettings(), 0.15)
        0.002
    """
    drift = max_alpha_step_per_epoch * settings.window_epochs
    return settings.threshold * (drift / settings.reference_drift) ** 2


class JsAbsolute:
    """The operation pruner of IAC-LTH (see the module docstring)."""

    Settings: ClassVar[type] = JsAbsoluteSettings

    def __init__(self, settings: JsAbsoluteSettings) -> None:
        self.settings = settings
        stability_loops()
        self._settling: Any = None
        self._settled_nodes: dict[str, int] = {}
        self._last_kept_edges: dict[str, list[int]] = {}
        self._genotype = GenotypeAge()

    @property
    def pace(self) -> SearchPace:
        """How the epochs of the search are to be run."""
        return self.settings.pace

    @property
    def needs_evidence(self) -> bool:
        """Whether dead edges are left alone."""
        return self.settings.living_edges_only

    def decide(self, state: SearchState) -> Decision:
        """Prune what has settled; stop when nothing is left to decide."""
        self._genotype.follow(state)
        if len(state.alpha_history) < 2 * self.settings.window_epochs:
            return Decision(keep=state.active)
        jsd, mean = window_divergence(
            state.alpha_history, state.active, self.settings.window_epochs
        )
        targets = np.array([target for _, target in state.edges])
        live = live_edges(state.active, state.operations)
        beta_jsd = beta_divergence(state.beta_history, live, targets, self.settings.window_epochs)
        measures = {"jsd": jsd, "beta_jsd": beta_jsd}
        if state.epoch < self._first_check(state):
            return Decision(keep=state.active, measures=measures)
        keep = state.active.copy()
        if self.settings.living_edges_only:
            # A divergence that no threshold lets pass: dead edges are never settled.
            jsd = np.where(state.evidence.is_alive, jsd, np.inf)
            beta_jsd = np.where(all_alive(state.evidence, live, targets), beta_jsd, np.inf)
        reasons = self._prune_operations(jsd, mean, targets, keep, state)
        if self.settings.prune_edges:
            reasons += self._prune_edges(beta_jsd, targets, keep, state)
        stop = self._genotype.stop_reason(
            int(keep.sum(axis=-1).max()),
            min_operations=self.settings.min_operations,
            stop_operations=self.settings.stop_operations,
            patience_epochs=self.settings.stop_patience_epochs,
        )
        if stop is not None:
            reasons.append(stop)
        return Decision(
            keep=keep, stop=stop is not None, reasons=tuple(reasons), measures=measures
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        settling = self._settling
        return {
            "settling": None if settling is None else [part.tolist() for part in settling],
            "settled_nodes": dict(self._settled_nodes),
            "last_kept_edges": {key: list(kept) for key, kept in self._last_kept_edges.items()},
            "last_genotype": self._genotype.genotype,
            "genotype_age": self._genotype.epochs,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the counters."""
        self._settling = None
        if state["settling"] is not None:
            self._settling = stability_loops().Settling(
                *(np.array(part) for part in state["settling"])
            )
        self._settled_nodes = dict(state["settled_nodes"])
        self._last_kept_edges = {k: list(kept) for k, kept in state["last_kept_edges"].items()}
        self._genotype = GenotypeAge(state["last_genotype"], state["genotype_age"])

    def _first_check(self, state: SearchState) -> int:
        """The first epoch whose windows both hold trained logits (row 24)."""
        if self.settings.first_check_epoch is not None:
            return self.settings.first_check_epoch
        return state.first_alpha_epoch + 2 * self.settings.window_epochs

    def _threshold(self, state: SearchState) -> float:
        return resolved_threshold(self.settings, state.max_alpha_step_per_epoch)

    def _prune_operations(
        self,
        jsd: Float[ndarray, "levels edges"],
        mean: Float[ndarray, "levels edges ops"],
        targets: Int[ndarray, " edges"],
        keep: Bool[ndarray, "levels edges ops"],
        state: SearchState,
    ) -> list[Reason]:
        """Take the weak operations of settled edges out of `keep`."""
        loops, settings = stability_loops(), self.settings
        if self._settling is None:
            self._settling = loops.Settling(
                epochs=np.zeros(jsd.shape, dtype=np.int64),
                kept=np.zeros(keep.shape, dtype=bool),
                has_kept=np.zeros(jsd.shape, dtype=bool),
            )
        rules = loops.SettlingRules(
            threshold=self._threshold(state),
            patience_epochs=settings.patience_epochs,
            rank_guard=settings.rank_guard,
            weak_share=settings.weak_share,
            max_share=settings.max_share,
            min_operations=settings.min_operations,
            keeps_none=settings.prune_edges,
            edges_per_node=EDGES_PER_NODE,
        )
        real = np.array([name != "none" for name in state.operations])
        pruned = np.empty(jsd.shape, dtype=bool)
        loops.prune_settled(jsd, mean, keep, targets, real, rules, self._settling, pruned)
        reasons = []
        for level, edge in np.argwhere(pruned).tolist():
            shares = mean[level, edge]
            gone = np.flatnonzero(state.active[level, edge] & ~keep[level, edge]).tolist()
            reasons.append(
                Reason(
                    rule="js_absolute",
                    value=float(jsd[level, edge]),
                    threshold=rules.threshold,
                    level=level,
                    edge=edge,
                    operations=tuple(
                        state.operations[index] for index in sorted(gone, key=shares.__getitem__)
                    ),
                )
            )
        return reasons

    def _prune_edges(
        self,
        beta_jsd: Float[ndarray, "levels edges"],
        targets: Int[ndarray, " edges"],
        keep: Bool[ndarray, "levels edges ops"],
        state: SearchState,
    ) -> list[Reason]:
        """Leave settled nodes fewer edges: the weakest keep `none` alone."""
        reasons = []
        none = state.operations.index("none") if "none" in state.operations else -1
        for level, node in np.ndindex(len(keep), int(targets.max()) + 1):
            into = np.flatnonzero(targets == node)
            if not len(into) or none < 0:
                continue
            gone = weakest_edges(state.beta[level], keep[level], into, state.operations)
            gone = gone[: max(1, int(len(gone) * self.settings.max_share))]
            kept = [int(edge) for edge in into if edge not in gone]
            divergence = float(beta_jsd[level, into[0]])
            if not self._settles(f"{level},node{node}", divergence, gone, kept, state):
                continue
            for edge in gone:
                lost = [int(index) for index in np.flatnonzero(keep[level, edge]) if index != none]
                keep[level, edge, lost] = False
                reasons.append(
                    Reason(
                        rule="edge_stability",
                        value=divergence,
                        threshold=self._threshold(state),
                        level=level,
                        edge=edge,
                        operations=tuple(state.operations[index] for index in lost),
                    )
                )
        return reasons

    def _settles(
        self, key: str, divergence: float, gone: list[int], kept: list[int], state: SearchState
    ) -> bool:
        """Count a settled epoch of a node; return whether it loses edges now."""
        same_ranking = self._last_kept_edges.get(key) == kept or not self.settings.rank_guard
        self._last_kept_edges[key] = kept
        if not gone or divergence > self._threshold(state) or not same_ranking:
            self._settled_nodes[key] = 0
            return False
        self._settled_nodes[key] = self._settled_nodes.get(key, 0) + 1
        if self._settled_nodes[key] < self.settings.patience_epochs:
            return False
        self._settled_nodes[key] = 0
        self._last_kept_edges.pop(key)
        return True

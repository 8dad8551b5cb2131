"""IAC-LTH: operations are removed once the distribution over an edge's operations stands still.

Source: the abstract of IAC-LTH (a Jensen–Shannon test of stability on each edge's operation
importances; low-importance operations go step by step). Window, threshold, patience, rank guard,
rate and stop rule are not stated in what could be read: they are our choice (rows 18 to 25).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from iac_core.cells.genotype import discretise, masked_softmax
from iac_core.config import require, require_at_least, require_positive
from iac_core.pruners.ranking import jensen_shannon, removable, weakest
from iac_core.types import Decision, Reason, SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class JsStabilitySettings:
    """When an edge counts as settled, and how much it then loses.

    Attributes:
        window_epochs: W; the means of two adjacent windows of this length are compared (row 18).
        threshold: τ in bits, for the reference drift (row 20); see `resolved_threshold`.
        reference_drift: Learning rate of alpha × steps per epoch × W that τ is stated for: 0.75 is
            3e-3 × 50 × 5 (our choice).
        patience_epochs: P; an edge is pruned after so many settled epochs in a row.
        first_check_epoch: First epoch, from 0, after which edges are tested; None is the end of
            the warm-up plus 2 W (row 24).
        weak_share: Operations under this share of the uniform importance go (row 23).
        max_share: At most this share of an edge's operations goes at once (row 23).
        min_operations: An edge keeps at least this many.
        stop_operations: The search may end once every edge has at most this many operations …
        stop_patience_epochs: … and the genotype has not changed for this many epochs.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    window_epochs: int = 5
    threshold: float = 2e-3
    reference_drift: float = 0.75
    patience_epochs: int = 3
    first_check_epoch: int | None = None
    weak_share: float = 0.5
    max_share: float = 0.5
    min_operations: int = 1
    stop_operations: int = 3
    stop_patience_epochs: int = 10

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


def resolved_threshold(settings: JsStabilitySettings, max_alpha_step_per_epoch: float) -> float:
    """Return τ for a sweep's own rate and epoch length.

    For small moves the divergence grows with the square of the move (section 4.7 of the notes),
    and Adam moves a logit by at most about rate × steps × W within a window. A fixed τ would
    therefore always pass a slow alpha; scaled by the squared ratio to the reference drift it asks
    for the same relative standstill everywhere.

    Examples:
        >>> resolved_threshold(JsStabilitySettings(), 0.15)
        0.002
    """
    drift = max_alpha_step_per_epoch * settings.window_epochs
    return settings.threshold * (drift / settings.reference_drift) ** 2


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
    recent = np.nan_to_num(alpha_history[-2 * window_epochs :])
    importance = masked_softmax(recent, np.broadcast_to(active, recent.shape))
    before = importance[:window_epochs].mean(axis=0)
    after = importance[window_epochs:].mean(axis=0)
    return jensen_shannon(before, after), after


class JsStability:
    """The operation pruner of IAC-LTH (see the module docstring)."""

    Settings: ClassVar[type] = JsStabilitySettings

    def __init__(self, settings: JsStabilitySettings) -> None:
        self.settings = settings
        self._settled: dict[str, int] = {}
        self._last_keep: dict[str, list[int]] = {}
        self._last_genotype = ""
        self._genotype_age = 0

    def decide(self, state: SearchState) -> Decision:
        """Prune the edges that have settled; stop when nothing is left to decide."""
        self._follow_genotype(state)
        if len(state.alpha_history) < 2 * self.settings.window_epochs:
            return Decision(keep=state.active)
        jsd, mean = window_divergence(
            state.alpha_history, state.active, self.settings.window_epochs
        )
        measures = {"jsd": jsd}
        if state.epoch < self._first_check(state):
            return Decision(keep=state.active, measures=measures)
        keep = state.active.copy()
        reasons = []
        threshold = resolved_threshold(self.settings, state.max_alpha_step_per_epoch)
        for level, edge in np.ndindex(jsd.shape):
            gone = self._settle(
                level, edge, float(jsd[level, edge]), mean[level, edge], keep, state
            )
            if gone:
                keep[level, edge, gone] = False
                reasons.append(
                    Reason(
                        rule="js_stability",
                        value=float(jsd[level, edge]),
                        threshold=threshold,
                        level=level,
                        edge=edge,
                        operations=tuple(state.operations[index] for index in gone),
                    )
                )
        stop = self._stop_reason(keep)
        if stop is not None:
            reasons.append(stop)
        return Decision(
            keep=keep, stop=stop is not None, reasons=tuple(reasons), measures=measures
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the counters."""
        return {
            "settled": dict(self._settled),
            "last_keep": {key: list(value) for key, value in self._last_keep.items()},
            "last_genotype": self._last_genotype,
            "genotype_age": self._genotype_age,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the counters."""
        self._settled = dict(state["settled"])
        self._last_keep = {key: list(value) for key, value in state["last_keep"].items()}
        self._last_genotype = state["last_genotype"]
        self._genotype_age = state["genotype_age"]

    def _first_check(self, state: SearchState) -> int:
        """The first epoch whose windows both hold trained logits (row 24)."""
        if self.settings.first_check_epoch is not None:
            return self.settings.first_check_epoch
        return state.first_alpha_epoch + 2 * self.settings.window_epochs

    def _settle(
        self,
        level: int,
        edge: int,
        divergence: float,
        mean: Float[ndarray, " ops"],
        keep: Bool[ndarray, "levels edges ops"],
        state: SearchState,
    ) -> list[int]:
        """Count a settled epoch of an edge; return the operations it loses now."""
        key = f"{level},{edge}"
        active = state.active[level, edge]
        gone = removable(
            weakest(mean, active, self._n_to_remove(mean, active)),
            keep[level],
            edge,
            state.edges,
            state.operations,
        )
        kept = [int(index) for index in np.flatnonzero(active) if index not in gone]
        same_ranking = self._last_keep.get(key) == kept
        self._last_keep[key] = kept
        threshold = resolved_threshold(self.settings, state.max_alpha_step_per_epoch)
        if not gone or divergence > threshold or not same_ranking:
            self._settled[key] = 0
            return []
        self._settled[key] = self._settled.get(key, 0) + 1
        if self._settled[key] < self.settings.patience_epochs:
            return []
        self._settled[key] = 0
        self._last_keep.pop(key)
        return gone

    def _n_to_remove(self, mean: Float[ndarray, " ops"], active: Bool[ndarray, " ops"]) -> int:
        """Those under a share of the uniform importance, at least 1, at most a share of all."""
        n_active = int(active.sum())
        n_weak = int((mean[active] < self.settings.weak_share / n_active).sum())
        n_most = min(
            int(n_active * self.settings.max_share), n_active - self.settings.min_operations
        )
        return max(0, min(max(1, n_weak), n_most))

    def _follow_genotype(self, state: SearchState) -> None:
        """Count for how many epochs the genotype has stayed the same."""
        n_nodes = state.edges[-1][1] - 1
        genotype = discretise(
            np.nan_to_num(state.alpha), state.beta, state.active, state.operations, n_nodes
        ).to_json()
        self._genotype_age = self._genotype_age + 1 if genotype == self._last_genotype else 0
        self._last_genotype = genotype

    def _stop_reason(self, keep: Bool[ndarray, "levels edges ops"]) -> Reason | None:
        """Say whether the search is over once `keep` is what is left."""
        most = int(keep.sum(axis=-1).max())
        if most <= self.settings.min_operations:
            return Reason(
                rule="every_edge_decided",
                value=float(most),
                threshold=float(self.settings.min_operations),
            )
        if (
            most <= self.settings.stop_operations
            and self._genotype_age >= self.settings.stop_patience_epochs
        ):
            return Reason(
                rule="genotype_unchanged",
                value=float(self._genotype_age),
                threshold=float(self.settings.stop_patience_epochs),
            )
        return None

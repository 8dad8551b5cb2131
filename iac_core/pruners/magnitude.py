"""Pruning by magnitude: an operation goes as soon as its importance is low, settled or not.

A control for stability tests, which look at the same importances but wait until they stand still.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iac_core.config import SearchPace, require, require_at_least
from iac_core.pruners.ranking import removable, weakest
from iac_core.types import Decision, Reason, SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class MagnitudeSettings:
    """How low is low.

    Attributes:
        weak_share: Operations under this share of the uniform importance go.
        min_operations: An edge keeps at least this many; the search ends once all are there.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    weak_share: float = 0.75
    min_operations: int = 1

    def __post_init__(self) -> None:
        require(0 < self.weak_share <= 1, "weak_share must be above 0, at most 1", self.weak_share)
        require_at_least(1, min_operations=self.min_operations)


class Magnitude:
    """Removes operations of low importance after every epoch that trained alpha."""

    Settings: ClassVar[type] = MagnitudeSettings

    def __init__(self, settings: MagnitudeSettings) -> None:
        self.settings = settings

    @property
    def pace(self) -> SearchPace:
        """The full search's own."""
        return SearchPace()

    @property
    def needs_evidence(self) -> bool:
        """Not at all."""
        return False

    def decide(self, state: SearchState) -> Decision:
        """Prune what is under the threshold."""
        if state.epoch < state.first_alpha_epoch:
            return Decision(keep=state.active)
        keep = state.active.copy()
        reasons = []
        for level, edge in np.ndindex(keep.shape[:2]):
            active, importance = state.active[level, edge], state.importance[level, edge]
            threshold = self.settings.weak_share / int(active.sum())
            n_weak = int((importance[active] < threshold).sum())
            n = min(n_weak, int(active.sum()) - self.settings.min_operations)
            candidates = weakest(importance, active, max(0, n))
            gone = removable(candidates, keep[level], edge, state.edges, state.operations)
            if gone:
                keep[level, edge, gone] = False
                reasons.append(
                    Reason(
                        rule="magnitude",
                        value=float(importance[gone[0]]),
                        threshold=threshold,
                        level=level,
                        edge=edge,
                        operations=tuple(state.operations[index] for index in gone),
                    )
                )
        most = int(keep.sum(axis=-1).max())
        is_over = most <= self.settings.min_operations
        if is_over:
            reasons.append(Reason(rule="every_edge_decided", value=float(most)))
        return Decision(keep=keep, stop=is_over, reasons=tuple(reasons))

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a decision depends on no earlier one."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""

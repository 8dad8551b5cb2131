"""Pruning on a fixed schedule: the weakest operations go every n epochs, settled or not.

A control for stability tests: if it does as well, watching the divergence bought nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iac_core.config import SearchPace, require_at_least
from iac_core.pruners.ranking import removable, weakest
from iac_core.types import Decision, Reason, SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedScheduleSettings:
    """The schedule.

    Attributes:
        every_epochs: Epochs between two prunings, counted from the end of the warm-up.
        n_operations: Operations that every edge loses at each.
        min_operations: An edge keeps at least this many; the search ends once all are there.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    every_epochs: int = 5
    n_operations: int = 1
    min_operations: int = 1

    def __post_init__(self) -> None:
        require_at_least(
            1,
            every_epochs=self.every_epochs,
            n_operations=self.n_operations,
            min_operations=self.min_operations,
        )


class FixedSchedule:
    """Removes each edge's operations of least importance at fixed epochs."""

    Settings: ClassVar[type] = FixedScheduleSettings

    def __init__(self, settings: FixedScheduleSettings) -> None:
        self.settings = settings

    @property
    def pace(self) -> SearchPace:
        """The full search's own."""
        return SearchPace()

    def decide(self, state: SearchState) -> Decision:
        """Prune if the epoch is one of the schedule's."""
        n_trained = state.epoch + 1 - state.first_alpha_epoch
        if n_trained <= 0 or n_trained % self.settings.every_epochs:
            return Decision(keep=state.active)
        keep = state.active.copy()
        reasons = []
        for level, edge in np.ndindex(keep.shape[:2]):
            active = state.active[level, edge]
            n = min(self.settings.n_operations, int(active.sum()) - self.settings.min_operations)
            candidates = weakest(state.importance[level, edge], active, max(0, n))
            gone = removable(candidates, keep[level], edge, state.edges, state.operations)
            if gone:
                keep[level, edge, gone] = False
                reasons.append(
                    Reason(
                        rule="fixed_schedule",
                        value=float(n_trained),
                        threshold=float(self.settings.every_epochs),
                        level=level,
                        edge=edge,
                        operations=tuple(state.operations[index] for index in gone),
                    )
                )
        most = int(keep.sum(axis=-1).max())
        is_over = most <= self.settings.min_operations or not reasons
        if is_over:
            reasons.append(Reason(rule="every_edge_decided", value=float(most)))
        return Decision(keep=keep, stop=is_over, reasons=tuple(reasons))

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a decision depends on no earlier one."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""

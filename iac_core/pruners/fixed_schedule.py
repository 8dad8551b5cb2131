"""Pruning on a fixed schedule: the weakest operations go every n epochs, settled or not.

A control for stability tests: if it does as well, watching the divergence bought nothing.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from iac_core.config import SearchPace, require_at_least
from iac_core.pruners.ranking import has_spare_edges, removable, weakest, weakest_edges
from iac_core.types import Decision, Reason, SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedScheduleSettings:
    """The schedule.

    Attributes:
        every_epochs: Epochs between two prunings, counted from the end of the warm-up.
        n_operations: Operations that every edge loses at each.
        min_operations: An edge keeps at least this many; the search ends once all are there.
        prune_edges: Whether every node also loses its weakest edge at each, until two are left.
            An edge that is lost keeps ``none`` alone, so until its node is down to two an edge
            never loses ``none``.
        pace: How the epochs of the search are run.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    every_epochs: int = 5
    n_operations: int = 1
    min_operations: int = 1
    prune_edges: bool = False
    pace: SearchPace = field(default_factory=SearchPace)

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
        """How the epochs of the search are to be run."""
        return self.settings.pace

    @property
    def needs_evidence(self) -> bool:
        """Not at all."""
        return False

    def decide(self, state: SearchState) -> Decision:
        """Prune if the epoch is one of the schedule's."""
        n_trained = state.epoch + 1 - state.first_alpha_epoch
        if n_trained <= 0 or n_trained % self.settings.every_epochs:
            return Decision(keep=state.active)
        keep = state.active.copy()
        reasons = []
        for level, edge in np.ndindex(keep.shape[:2]):
            if gone := self._weak_operations(level, edge, keep, state):
                keep[level, edge, gone] = False
                reasons.append(self._reason("fixed_schedule", level, edge, gone, state))
        if self.settings.prune_edges:
            for level, edge in self._weak_edges(keep, state):
                none = state.operations.index("none")
                gone = [int(k) for k in np.flatnonzero(keep[level, edge]) if k != none]
                keep[level, edge, gone] = False
                reasons.append(self._reason("fixed_schedule_edge", level, edge, gone, state))
        most = int(keep.sum(axis=-1).max())
        is_over = most <= self.settings.min_operations or not reasons
        if is_over:
            reasons.append(Reason(rule="every_edge_decided", value=float(most)))
        return Decision(keep=keep, stop=is_over, reasons=tuple(reasons))

    def _weak_operations(
        self, level: int, edge: int, keep: Bool[ndarray, "levels edges ops"], state: SearchState
    ) -> list[int]:
        """What one edge loses now."""
        active = state.active[level, edge]
        n = min(self.settings.n_operations, int(active.sum()) - self.settings.min_operations)
        candidates = weakest(state.importance[level, edge], active, max(0, n))
        if self.settings.prune_edges and has_spare_edges(
            keep[level], edge, state.edges, state.operations
        ):
            candidates = [k for k in candidates if state.operations[k] != "none"]
        return removable(candidates, keep[level], edge, state.edges, state.operations)

    def _weak_edges(
        self, keep: Bool[ndarray, "levels edges ops"], state: SearchState
    ) -> list[tuple[int, int]]:
        """Level and edge of what each node loses now: its weakest edge."""
        if "none" not in state.operations:
            return []
        targets = np.array([target for _, target in state.edges])
        found = []
        for level, node in itertools.product(range(len(keep)), np.unique(targets)):
            into = np.flatnonzero(targets == node)
            gone = weakest_edges(state.beta[level], keep[level], into, state.operations)
            found += [(level, edge) for edge in gone[:1]]
        return found

    def _reason(
        self, rule: str, level: int, edge: int, gone: list[int], state: SearchState
    ) -> Reason:
        return Reason(
            rule=rule,
            value=float(state.epoch + 1 - state.first_alpha_epoch),
            threshold=float(self.settings.every_epochs),
            level=level,
            edge=edge,
            operations=tuple(state.operations[index] for index in gone),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a decision depends on no earlier one."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""

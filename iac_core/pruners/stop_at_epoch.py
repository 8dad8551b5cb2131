"""The full search, ended after a given epoch: what its first epochs had found already.

A control for pruned searches: if the full search's own genotype at an early epoch does as well,
pruning bought nothing but what ending earlier buys. Nothing else changes, so that the cells are
those that the full search's trajectory shows after that epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from iac_core.config import SearchPace, require_at_least
from iac_core.types import Decision, Reason, SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class StopAtEpochSettings:
    """When the search ends.

    Attributes:
        epochs: Epochs to run, the warm-up included.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    epochs: int = 30

    def __post_init__(self) -> None:
        require_at_least(1, epochs=self.epochs)


class StopAtEpoch:
    """Keeps every operation and stops."""

    Settings: ClassVar[type] = StopAtEpochSettings

    def __init__(self, settings: StopAtEpochSettings) -> None:
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
        """Stop after the epoch."""
        n_run = state.epoch + 1
        if n_run < self.settings.epochs:
            return Decision(keep=state.active)
        reason = Reason(
            rule="epochs_run", value=float(n_run), threshold=float(self.settings.epochs)
        )
        return Decision(keep=state.active, stop=True, reasons=(reason,))

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a decision depends on no earlier one."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""

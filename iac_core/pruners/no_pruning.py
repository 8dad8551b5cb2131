"""The full search: nothing is removed, every epoch is run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from iac_core.config import SearchPace
from iac_core.types import Decision, SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPruningSettings:
    """The full search has no settings."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}


class NoPruning:
    """Keeps every operation (pruner ``none``, the search of the first IAC paper)."""

    Settings: ClassVar[type] = NoPruningSettings

    def __init__(self, settings: NoPruningSettings) -> None:
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
        """Keep everything."""
        return Decision(keep=state.active)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: a decision depends on no earlier one."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""

"""Early stopping: the search ends once its genotype has stood for a while; nothing is pruned.

In the spirit of DARTS+ (ranking of alpha unchanged for ten epochs), of which we could read the
abstract only; that the whole genotype is compared is our choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from iac_core.config import SearchPace, require, require_at_least
from iac_core.pruners.evidence import MIN_LIVE_EDGE_SHARE
from iac_core.pruners.ranking import genotype_of
from iac_core.types import Decision, Reason, SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class GenotypeStabilitySettings:
    """How long the genotype must stand.

    Attributes:
        patience_epochs: Epochs without a change, counted from the end of the warm-up …
        min_live_edge_share: … and only while at least this share of the edges is alive: the
            genotype of a dead search stands too.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    patience_epochs: int = 10
    min_live_edge_share: float = MIN_LIVE_EDGE_SHARE

    def __post_init__(self) -> None:
        require_at_least(1, patience_epochs=self.patience_epochs)
        require(
            0 <= self.min_live_edge_share <= 1,
            "min_live_edge_share must be within 0 to 1",
            self.min_live_edge_share,
        )


class GenotypeStability:
    """Stops a full search early."""

    Settings: ClassVar[type] = GenotypeStabilitySettings

    def __init__(self, settings: GenotypeStabilitySettings) -> None:
        self.settings = settings
        self._genotype = ""
        self._age = 0

    @property
    def pace(self) -> SearchPace:
        """The full search's own."""
        return SearchPace()

    @property
    def needs_evidence(self) -> bool:
        """Whether epochs count only while enough edges are alive."""
        return self.settings.min_live_edge_share > 0

    def decide(self, state: SearchState) -> Decision:
        """Stop if the genotype is old enough."""
        if state.epoch < state.first_alpha_epoch:
            return Decision(keep=state.active)
        genotype = genotype_of(state)
        share = self.settings.min_live_edge_share
        is_alive = share == 0 or state.evidence.live_edge_share >= share
        self._age = self._age + 1 if genotype == self._genotype and is_alive else 0
        self._genotype = genotype
        if self._age < self.settings.patience_epochs:
            return Decision(keep=state.active)
        reason = Reason(
            rule="genotype_unchanged",
            value=float(self._age),
            threshold=float(self.settings.patience_epochs),
        )
        return Decision(keep=state.active, stop=True, reasons=(reason,))

    def state_dict(self) -> dict[str, Any]:
        """Return the genotype and its age."""
        return {"genotype": self._genotype, "age": self._age}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up genotype and age."""
        self._genotype, self._age = state["genotype"], state["age"]

"""Early stopping by the Hessian (R-DARTS): a search whose minimum in alpha gets sharp is over.

Source: the reference code of RobustDARTS, whose numbers are the defaults: the dominant eigenvalue
of the Hessian of the validation loss in alpha, smoothed over 5 measurements; the search ends when
it exceeds 1.3 times its value 4 measurements ago, and goes back to the genotype of that time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from iac_core.config import SearchPace, require_at_least, require_positive
from iac_core.types import Decision, Reason, SearchState


@dataclass(frozen=True, slots=True, kw_only=True)
class HessianStopSettings:
    """When the curvature counts as risen.

    Attributes:
        every_epochs: Epochs between two measurements, from the end of the warm-up.
        smoothing: Measurements in the local mean.
        lag: Measurements that the mean is compared across.
        factor: Rise that ends the search.
        first_stop_measurement: No stop before this many measurements; the reference code has no
            stop before epoch 10.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    every_epochs: int = 1
    smoothing: int = 5
    lag: int = 4
    factor: float = 1.3
    first_stop_measurement: int = 10

    def __post_init__(self) -> None:
        require_at_least(1, every_epochs=self.every_epochs, smoothing=self.smoothing, lag=self.lag)
        require_at_least(1, first_stop_measurement=self.first_stop_measurement)
        require_positive(factor=self.factor)


class HessianStop:
    """Stops a full search early and goes back to an earlier genotype."""

    Settings: ClassVar[type] = HessianStopSettings

    def __init__(self, settings: HessianStopSettings) -> None:
        self.settings = settings
        self._eigenvalues: list[float] = []

    @property
    def pace(self) -> SearchPace:
        """The full search's own."""
        return SearchPace()

    @property
    def needs_evidence(self) -> bool:
        """Not at all."""
        return False

    def decide(self, state: SearchState) -> Decision:
        """Measure the curvature if it is time, and stop if it has risen."""
        n_trained = state.epoch + 1 - state.first_alpha_epoch
        if n_trained <= 0 or n_trained % self.settings.every_epochs:
            return Decision(keep=state.active)
        self._eigenvalues.append(abs(state.dominant_eigenvalue()))
        ratio = self._rise()
        if ratio <= self.settings.factor:
            return Decision(keep=state.active)
        reason = Reason(rule="hessian_eigenvalue", value=ratio, threshold=self.settings.factor)
        return Decision(
            keep=state.active,
            stop=True,
            reasons=(reason,),
            genotype_epoch=state.epoch - self.settings.lag * self.settings.every_epochs,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the measurements."""
        return {"eigenvalues": list(self._eigenvalues)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the measurements."""
        self._eigenvalues = list(state["eigenvalues"])

    def _rise(self) -> float:
        """Smoothed curvature now over that of `lag` measurements ago; 0 if it is too early."""
        values, width, lag = self._eigenvalues, self.settings.smoothing, self.settings.lag
        if len(values) < max(self.settings.first_stop_measurement, lag + 1):
            return 0.0
        now = float(np.mean(values[-width:]))
        then = float(np.mean(values[: len(values) - lag][-width:]))
        return now / then if then > 0 else 0.0

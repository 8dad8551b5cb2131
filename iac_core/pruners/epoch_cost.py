"""Seconds of a search's epochs from what is in its network: what a removal saves.

A step of the weights or of alpha costs a fixed part (the backbone, the decoder, the loss) and a
part for every operation in the network, by its name. Our choice; fitted on measured epochs of one
device, backbone and data set, and good for these alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.optimize import least_squares

from iac_core.config import require

_FEWEST_EPOCHS = 6
_EPOCHS_PER_UNKNOWN = 2
_TYPICAL_NOISE = 0.1
"""Relative error beyond which an epoch counts less: other work on the machine only adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredEpochs:
    """Epochs of one or more searches, in order.

    Attributes:
        seconds: Of each epoch, scoring and pruning included.
        counts: Operations in the network by name, summed over levels and edges, shape
            ``(epochs, ops)``.
        n_weight_steps: Weight steps of each epoch.
        n_architecture_steps: Steps of alpha and beta.
        is_first: Whether it is a search's first one, which also prepares (kept features).
    """

    seconds: Float[ndarray, " epochs"]
    counts: Int[ndarray, "epochs ops"]
    n_weight_steps: Int[ndarray, " epochs"]
    n_architecture_steps: Int[ndarray, " epochs"]
    is_first: Bool[ndarray, " epochs"]

    @staticmethod
    def of(
        active: Bool[ndarray, "epochs levels edges ops"],
        seconds: Float[ndarray, " epochs"],
        n_weight_steps: Int[ndarray, " epochs"],
        n_architecture_steps: Int[ndarray, " epochs"],
    ) -> "MeasuredEpochs":
        """Return the epochs of one search, from its first on."""
        return MeasuredEpochs(
            seconds=seconds,
            counts=active.sum(axis=(1, 2)),
            n_weight_steps=n_weight_steps,
            n_architecture_steps=n_architecture_steps,
            is_first=np.arange(len(seconds)) == 0,
        )

    @staticmethod
    def joined(parts: Sequence["MeasuredEpochs"]) -> "MeasuredEpochs":
        """Return the epochs of several searches."""
        return MeasuredEpochs(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in MeasuredEpochs.__dataclass_fields__
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochCost:
    """What steps and operations cost.

    Attributes:
        per_weight_step: Seconds of a weight step without any operation.
        per_architecture_step: The same of a step of alpha and beta.
        per_operation: Seconds that one operation adds to a step, by name in the cell's order.
        first_epoch_s: Seconds that the first epoch takes beside its steps.
        relative_error: Median of |predicted − measured| / measured over the epochs of the fit.
        n_epochs: Epochs of the fit.
    """

    per_weight_step: float
    per_architecture_step: float
    per_operation: tuple[float, ...]
    first_epoch_s: float
    relative_error: float
    n_epochs: int

    def seconds(
        self,
        active: Bool[ndarray, "epochs levels edges ops"],
        n_weight_steps: Int[ndarray, " epochs"],
        n_architecture_steps: Int[ndarray, " epochs"],
    ) -> Float[ndarray, " epochs"]:
        """Return the seconds of a search's epochs, from its first on."""
        rows = _design(active.sum(axis=(1, 2)), n_weight_steps, n_architecture_steps)
        predicted: ndarray = rows @ self._coefficients()
        predicted[:1] += self.first_epoch_s
        return predicted

    def _coefficients(self) -> Float[ndarray, " n"]:
        return np.array([self.per_weight_step, self.per_architecture_step, *self.per_operation])


def fit_epoch_cost(measured: MeasuredEpochs) -> EpochCost:
    """Fit what steps and operations cost: none less than nothing, slow outliers count little.

    Few epochs cannot tell the operations apart; all of them cost the same then.

    Raises:
        ConfigError: If there are fewer than six epochs.
    """
    n_epochs, n_operations = measured.counts.shape
    require(
        n_epochs >= _FEWEST_EPOCHS,
        f"a cost of epochs must be fitted on at least {_FEWEST_EPOCHS} of them",
        n_epochs,
    )
    tells_apart = n_epochs >= _EPOCHS_PER_UNKNOWN * (2 + n_operations)
    counts = measured.counts if tells_apart else measured.counts.sum(axis=1, keepdims=True)
    rows = _design(counts, measured.n_weight_steps, measured.n_architecture_steps)
    n_unknowns = rows.shape[1]
    regular = ~measured.is_first
    relative = rows[regular] / measured.seconds[regular, None]
    scale = np.maximum(relative.mean(axis=0), 1e-12)
    start = np.full(n_unknowns, 1.0 / n_unknowns)

    def errors_of(scaled: Float[ndarray, " n"]) -> Float[ndarray, " epochs"]:
        error: ndarray = relative / scale @ scaled - 1.0
        return error

    fitted = least_squares(
        errors_of,
        start,
        bounds=(0.0, np.inf),
        loss="soft_l1",
        f_scale=_TYPICAL_NOISE,
    )
    coefficients = fitted.x / scale
    predicted = rows @ coefficients
    extra = (measured.seconds - predicted)[measured.is_first]
    errors = np.abs(predicted - measured.seconds)[regular] / measured.seconds[regular]
    return EpochCost(
        per_weight_step=float(coefficients[0]),
        per_architecture_step=float(coefficients[1]),
        per_operation=tuple(np.broadcast_to(coefficients[2:], n_operations).tolist()),
        first_epoch_s=max(0.0, float(np.median(extra))) if len(extra) else 0.0,
        relative_error=float(np.median(errors)),
        n_epochs=n_epochs,
    )


def _design(
    counts: Int[ndarray, "epochs ops"],
    n_weight_steps: Int[ndarray, " epochs"],
    n_architecture_steps: Int[ndarray, " epochs"],
) -> Float[ndarray, "epochs n"]:
    steps = n_weight_steps + n_architecture_steps
    return np.column_stack([n_weight_steps, n_architecture_steps, counts * steps[:, None]]).astype(
        np.float64
    )

"""Operation pruners: what removes candidate operations inside a search."""

from collections.abc import Callable

from iac_core.pruners.fixed_schedule import FixedSchedule
from iac_core.pruners.genotype_stability import GenotypeStability
from iac_core.pruners.hessian_stop import HessianStop
from iac_core.pruners.js_absolute import JsAbsolute
from iac_core.pruners.js_stability import JsStability, JsStabilityFast
from iac_core.pruners.magnitude import Magnitude
from iac_core.pruners.no_pruning import NoPruning
from iac_core.pruners.shapley import Shapley, ShapleyFast
from iac_core.pruners.stop_at_epoch import StopAtEpoch
from iac_core.registry import entry_of
from iac_core.types import OperationPruner

OPERATION_PRUNERS: dict[str, type[OperationPruner]] = {
    "none": NoPruning,
    "js_stability": JsStability,
    "js_stability_fast": JsStabilityFast,
    "js_absolute": JsAbsolute,
    "shapley": Shapley,
    "shapley_fast": ShapleyFast,
    "fixed_schedule": FixedSchedule,
    "magnitude": Magnitude,
    "genotype_stability": GenotypeStability,
    "hessian_stop": HessianStop,
    "stop_at_epoch": StopAtEpoch,
}
"""Name → class; the class takes an instance of its ``Settings``."""


def build_pruner(settings: object) -> OperationPruner:
    """Return the operation pruner whose settings these are.

    Raises:
        UnknownNameError: If no pruner has such settings.
    """
    pruner_type: Callable[[object], OperationPruner] = entry_of(
        settings, OPERATION_PRUNERS, what="operation pruner"
    )
    return pruner_type(settings)

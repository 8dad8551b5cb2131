"""The table of searches that are no operation pruners: each finds a genotype in its own way."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from iac_core.cells.genotype import Genotype
from iac_core.searches.settings import OneShotSettings
from iac_core.training.one_shot import one_shot


class FoundCell(Protocol):
    """What every search leaves behind."""

    @property
    def genotype(self) -> Genotype:
        """The found cells."""
        ...

    @property
    def events(self) -> list[dict[str, Any]]:
        """What was removed and why, as in `iac_core.training.search.SearchRecord`."""
        ...

    @property
    def curve(self) -> list[dict[str, float]]:
        """One entry per epoch, as in `iac_core.training.search.SearchRecord`."""
        ...

    @property
    def n_steps(self) -> int:
        """Weight steps in an epoch."""
        ...

    @property
    def search_s(self) -> float:
        """Seconds of the search, checkpoints not counted."""
        ...

    def outcome(self) -> dict[str, Any]:
        """Return further plain values for the tables; None where one does not apply.

        At least ``search_is_alive``, ``live_edge_share`` and ``cell_contribution``.
        """
        ...

    def files(self) -> dict[str, Any]:
        """Return name of a JSON file → its content, beside genotype, events and curve."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchKind:
    """A search.

    Attributes:
        settings: Class of its settings in a sweep's ``pruners``.
        run: Called as ``run(backbone, settings, room, cell=, search=, seed=)``, see
            `iac_core.training.one_shot.one_shot`.
        n_slices: Settings of the search and of cell weights, as plain values, with the slices of
            the training patients → slices that pass forward and backward in the whole search; a
            slice that passes forward alone counts as a third. For the forecast.
    """

    settings: type
    run: Callable[..., FoundCell]
    n_slices: Callable[[dict[str, Any], dict[str, Any], float], float]


def _one_shot_slices(
    settings: dict[str, Any], search: dict[str, Any], n_training_slices: float
) -> float:
    n_scored = settings["n_scoring_slices"] or n_training_slices / 2
    n_finalists = settings["n_finalists"]
    n_steps = settings["n_steps"] + n_finalists * settings["finalist_steps"]
    n_scores = settings["n_evaluations"] + n_finalists
    return float(n_steps * search["batch_size"] + n_scores * n_scored / 3)


SEARCHES: dict[str, SearchKind] = {
    "one_shot": SearchKind(settings=OneShotSettings, run=one_shot, n_slices=_one_shot_slices),
}
"""Value of the pruner axis → search."""


def search_kind(settings: object) -> SearchKind | None:
    """Return the search whose settings these are; None for those of an operation pruner."""
    return next((kind for kind in SEARCHES.values() if kind.settings is type(settings)), None)

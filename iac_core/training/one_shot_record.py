"""What a one-shot search leaves behind, and whether it was alive."""

import math
from dataclasses import dataclass
from typing import Any

from iac_core.cells.genotype import Genotype
from iac_core.pruners.evidence import MIN_CONTRIBUTION

ERROR = 0.05
"""Probability that a ranking by chance alone is called reproducible."""


@dataclass(slots=True, kw_only=True)
class OneShotRecord:
    """Everything a one-shot search leaves behind.

    Attributes:
        genotype: The found cells.
        events: Eliminated operations, in order.
        curve: One entry per epoch of steps, then one per `population` scored genotypes, then one
            of the finalists, with the entries of `iac_core.training.search.SearchRecord.curve`;
            what does not apply is NaN.
        candidates: Every scored genotype, in order: ``order``, ``genotype`` (JSON), ``parent``
            (order of the genotype that it is a mutation of, or None), ``score``, the fields of
            `PathScore`, and ``finalist``: the same fields after its own steps, or None.
        n_steps: Weight steps in an epoch.
        agreement: Spearman correlation of the scores of the first population on two halves of the
            scoring patients; NaN if it cannot be computed.
        agreement_p: Probability of one as large by chance.
        contribution: Least share of a cell in what the decoder receives, over the levels.
    """

    genotype: Genotype
    events: list[dict[str, Any]]
    curve: list[dict[str, float]]
    candidates: list[dict[str, Any]]
    n_steps: int
    agreement: float
    agreement_p: float
    contribution: float

    @property
    def search_s(self) -> float:
        """Seconds of training and scoring; checkpoints are not counted."""
        return math.fsum(entry["seconds"] for entry in self.curve)

    @property
    def is_alive(self) -> bool:
        """Whether the ranking is reproducible and the cell contributes."""
        return self.agreement_p < ERROR and self.contribution >= MIN_CONTRIBUTION

    def outcome(self) -> dict[str, Any]:
        """Return what the tables take of the search beside times."""
        return {
            "search_is_alive": self.is_alive,
            "live_edge_share": None,  # there is no alpha whose edges could be alive
            "cell_contribution": self.contribution,
            "score_agreement": None if math.isnan(self.agreement) else self.agreement,
            "score_agreement_p": self.agreement_p,
            "n_candidates": len(self.candidates),
        }

    def files(self) -> dict[str, Any]:
        """Return name of a JSON file → its content, beside those of every search."""
        return {"candidates.json": self.candidates}

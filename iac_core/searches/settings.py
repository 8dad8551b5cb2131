"""Settings of the searches that are no operation pruners."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from iac_core.config import require, require_at_least, require_positive
from iac_core.searches.elimination import looks_until
from iac_core.searches.sampling import Sampling

Measure = Literal["dice", "negative_loss"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotSettings:
    """A single-path super-net whose paths are ranked by shared weights.

    Attributes:
        n_steps: Weight steps of the super-net, each on one path. With 600 the scores of 15 cells
            of ACDC rank uniform ``skip_connect`` before ``sep_conv_3x3``, which learns more slowly
            and retrains better; with 1800 they do not, and agree with scores after steps of each
            path's own (rank correlation 0.9).
        sampling: How paths are drawn, see `iac_core.searches.sampling.path_of_step`.
        learning_rate_factor: Factor on the search's learning rate of weights. That is meant for
            weights that every step trains; on a path an operation of the last node is trained in
            1 step of 18. With 4 the training loss of ACDC's paths after 600 steps is 0.56, with 1
            it is 0.82 (U-Net 16-128, 48 pixels), and shared weights that are trained too little
            rank operations by how fast they learn.
        n_evaluations: Genotypes that are scored.
        population: Members of the evolution; so many genotypes are drawn at random first, and
            their scores decide whether the search is alive.
        tournament: Members that a parent is the best of.
        lag: A genotype is decided from the scores of those up to so many before it.
        measure: What is scored: the negative training loss, or the mean foreground Dice of all
            slices together. Both are recorded.
        n_scoring_slices: Slices that a genotype is scored on; None is all slices of the patients
            that train no weights.
        n_finalists: Genotypes of the best scores, no two of them alike, that are scored again
            after some steps of their own from the shared weights; the best of these is found. 0
            takes the best of the shared weights. What distinguishes paths under shared weights is
            mostly how well each is trained: after 600 steps the losses of 10 random cells of
            ACDC range over 0.30, and over 0.10 after 40 more steps of each path's own.
        finalist_steps: These steps.
        eliminates: Whether operations leave the space while the super-net trains.
        eliminate_from_step: No operation goes before so many steps.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    n_steps: int = 1800
    sampling: Sampling = "uniform"
    learning_rate_factor: float = 4.0
    n_evaluations: int = 200
    population: int = 50
    tournament: int = 10
    lag: int = 1
    measure: Measure = "negative_loss"
    n_scoring_slices: int | None = None
    n_finalists: int = 16
    finalist_steps: int = 40
    eliminates: bool = False
    eliminate_from_step: int = 64

    def __post_init__(self) -> None:
        require_at_least(
            1,
            n_steps=self.n_steps,
            n_evaluations=self.n_evaluations,
            population=self.population,
            tournament=self.tournament,
            lag=self.lag,
        )
        require_at_least(
            0, eliminate_from_step=self.eliminate_from_step, n_finalists=self.n_finalists
        )
        require_at_least(1, finalist_steps=self.finalist_steps)
        require_at_least(2, n_scoring_slices=self.n_scoring_slices)
        require_positive(learning_rate_factor=self.learning_rate_factor)
        require(
            self.population <= self.n_evaluations,
            "population must not exceed n_evaluations",
            self.population,
        )

    @property
    def looks(self) -> list[int]:
        """Numbers of steps after which operations are tested."""
        return [look for look in looks_until(self.n_steps) if look >= self.eliminate_from_step]

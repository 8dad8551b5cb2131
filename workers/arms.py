"""Arms: what a value of the pruner axis makes of a job, as a graph of stages.

An arm is asked what it is; nobody compares its name. Its graph may depend on what its stages have
found: `Arm.steps` is asked again whenever a stage of the job is whole.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from iac_core.cells.genotype import (
    RandomCellSettings,
    UniformCellSettings,
    random_genotype,
    uniform_genotype,
)
from iac_core.config import CellSettings
from iac_core.pruners.no_pruning import NoPruningSettings
from iac_core.seeding import numpy_generator
from workers.job import Job
from workers.task import Outcome

Known = Mapping[str, Outcome]
"""Role of a stage of the job that is whole → what it returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A stage of a job's graph.

    Attributes:
        role: What it is to the job; each step has another.
        kind: Kind of stage.
        parents: What a stage is to this one → role of its step, for the stages that it builds on
            and that its key holds.
        implied: The same for stages that it builds on too, and that follow from those.
        waits_for: Roles of steps whose outcome its key is made of.
        genotype: JSON of the cells that it is about; empty without cells. None if it is not known
            yet: then the step has no key.
        job: The job with the settings of this step, where an outcome has changed them; None is
            the job itself.
    """

    role: str
    kind: str
    parents: Mapping[str, str] = field(default_factory=dict)
    implied: Mapping[str, str] = field(default_factory=dict)
    waits_for: tuple[str, ...] = ()
    genotype: str | None = ""
    job: Job | None = None

    @property
    def after(self) -> tuple[str, ...]:
        """Roles of every step that must be whole before this one can be computed."""
        return (*self.parents.values(), *self.implied.values(), *self.waits_for)


def named(*roles: str) -> dict[str, str]:
    """Return parents that are to a stage what they are to the job."""
    return {role: role for role in roles}


class Arm(Protocol):
    """What a value of the pruner axis makes of a job."""

    @property
    def name(self) -> str:
        """Its name in a sweep file; empty for the arm of every search."""
        ...

    @property
    def settings(self) -> type | None:
        """Class of its settings in a sweep file; None if it has none."""
        ...

    @property
    def searches(self) -> bool:
        """Whether it searches cells: its settings are those of a pruner or another search."""
        ...

    @property
    def has_cells(self) -> bool:
        """Whether its networks end with cells."""
        ...

    def steps(self, job: Job, known: Known) -> Sequence[Step]:
        """Return the graph of a job as far as it is known, every step after those it builds on.

        Args:
            job: The job.
            known: What its stages have returned so far.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingArm:
    """An arm that trains a backbone, perhaps finds cells, trains what there is, and scores it.

    Attributes:
        name: See `Arm`.
        settings: See `Arm`.
        searches: See `Arm`.
        cells: Called as ``cells(job, known)``: JSON of the cells, None if they are not known yet.
            None for an arm without cells.
        retrains: Whether there is a training after the pre-training.
    """

    name: str
    settings: type | None = None
    searches: bool = False
    cells: Callable[[Job, Known], str | None] | None = None
    retrains: bool = True

    @property
    def has_cells(self) -> bool:
        """See `Arm`."""
        return self.cells is not None

    def steps(self, job: Job, known: Known) -> Sequence[Step]:
        """See `Arm`."""
        genotype = "" if self.cells is None else self.cells(job, known)
        return _steps(genotype, searches=self.searches, retrains=self.retrains)


@functools.lru_cache(maxsize=1024)
def _steps(genotype: str | None, *, searches: bool, retrains: bool) -> tuple[Step, ...]:
    """The steps of a `TrainingArm`; ten thousand jobs share a few."""
    base = named("prepare", "pretrain")
    trained = base | named("retrain") if retrains else base
    found_by = ("search",) if searches else ()
    steps = [
        Step(role="prepare", kind="prepare"),
        Step(role="pretrain", kind="pretrain", parents=named("prepare")),
    ]
    if searches:
        steps.append(Step(role="search", kind="search", parents=base))
    if retrains:
        steps.append(
            Step(
                role="retrain",
                kind="retrain",
                parents=base,
                waits_for=found_by,
                genotype=genotype,
            )
        )
    steps += [
        Step(role="predict", kind="predict", parents=trained, genotype=genotype),
        Step(
            role="evaluate",
            kind="evaluate",
            parents=trained,
            implied=named("predict"),
            genotype=genotype,
        ),
    ]
    return tuple(steps)


def _found(job: Job, known: Known) -> str | None:
    """The cells that the search found."""
    return str(known["search"]["genotype"]) if "search" in known else None


def _uniform(job: Job, known: Known) -> str:
    """Cells with one operation on every edge."""
    settings = job.settings
    assert isinstance(settings.pruner, UniformCellSettings)
    return uniform_genotype(settings.cell, _n_skips(job), settings.pruner.operation).to_json()


def _random(job: Job, known: Known) -> str:
    """Cells drawn at random: by the job's seed, or as the settings say."""
    settings, drawn = job.settings, job.settings.pruner
    if not isinstance(drawn, RandomCellSettings):
        return _random_genotype(settings.cell, _n_skips(job), job.seed)
    cell = settings.cell
    if drawn.operations is not None:
        cell = replace(cell, operations=drawn.operations)
    return _random_genotype(cell, _n_skips(job), job.seed if drawn.draw is None else drawn.draw)


@functools.lru_cache(maxsize=1024)
def _random_genotype(cell: CellSettings, n_skips: int, seed: int) -> str:
    """JSON of the random cells of a seed: every data set and augmentation asks for the same."""
    return random_genotype(cell, n_skips, numpy_generator(seed, "random_genotype")).to_json()


def _n_skips(job: Job) -> int:
    n_skips: int = job.settings.backbone.n_skips  # type: ignore[attr-defined]
    return n_skips


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        TrainingArm(name="", searches=True, cells=_found),
        TrainingArm(name="random", settings=RandomCellSettings, cells=_random),
        TrainingArm(name="uniform", settings=UniformCellSettings, cells=_uniform),
        TrainingArm(name="no_cell", retrains=False),
        TrainingArm(name="no_cell_longer"),
    )
}
"""Name → arm: every search; then the controls, which search nothing.

``random`` retrains a random genotype, ``uniform`` one with the same operation on every edge,
``no_cell`` is the backbone as it is, ``no_cell_longer`` the backbone trained for the retraining's
epochs.
"""


def arm_of(job: Job) -> Arm:
    """Return the arm of a job."""
    return ARMS[job.control]


def is_full_search(job: Job) -> bool:
    """Whether a job searches without pruning: what every other search is compared with."""
    return arm_of(job).searches and isinstance(job.settings.pruner, NoPruningSettings)

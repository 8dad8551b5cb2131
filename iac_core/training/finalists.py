"""Scores of a few genotypes after some steps of their own from the shared weights."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool
from numpy import ndarray

from iac_core.cells.genotype import Genotype
from iac_core.seeding import numpy_generator
from iac_core.training.batches import epoch_order
from iac_core.training.path_scoring import PathScore, PathScorer
from iac_core.training.path_training import PathTraining

_APART = 3
"""Kept edges in which finalists differ: neighbours tell little of each other's rivals."""


def choose_finalists(genotypes: Sequence[Genotype], scores: Sequence[float], n: int) -> list[int]:
    """Return the places of the best genotypes, no two of which differ in fewer than 3 kept edges.

    If there are too few of these, the best of the others follow.

    Args:
        genotypes: Scored genotypes, each once.
        scores: Their scores; the first of equal ones is the better.
        n: Finalists, at most.
    """
    ranked = sorted(range(len(genotypes)), key=lambda place: (-scores[place], place))
    edges = [
        {(level, edge) for level, kept in enumerate(one.levels) for edge in kept}
        for one in genotypes
    ]
    chosen: list[int] = []
    for place in ranked:
        if all(len(edges[place] - edges[other]) >= _APART for other in chosen):
            chosen.append(place)
    rest = [place for place in ranked if place not in chosen]
    return (chosen + rest)[:n]


class Finalists:
    """Trains each path on its own, from the shared weights, on the same slices; scores it.

    The shared weights are put back after each.

    Args:
        training: The super-net, trained.
        n_steps: Steps of each path, with a cosine of their own.
    """

    def __init__(self, training: PathTraining, n_steps: int) -> None:
        self.training, self.n_steps = training, n_steps

    def score(
        self,
        path: Bool[ndarray, "levels edges ops"],
        scorer: PathScorer,
        should_stop: Callable[[], bool],
    ) -> PathScore | None:
        """Return the scores of a path after its steps; None if it is to stop before one of them.

        Args:
            path: The path.
            scorer: Scores it.
            should_stop: Asked before every step.
        """
        training, n_steps = self.training, self.n_steps
        generator = numpy_generator(training.seed, "one_shot", "finalists")
        batch_size = training.search.batch_size
        order = epoch_order(training.slices, batch_size, n_steps, generator)
        shared = [weight.detach().clone() for weight in training.weights]
        optimiser = training.new_optimiser()
        try:
            for step, indices in enumerate(order):
                if should_stop():
                    return None
                training.descend(
                    optimiser,
                    indices,
                    path,
                    step=training.settings.n_steps + step,
                    share_done=step / n_steps,
                )
            return scorer.score(path)
        finally:
            with torch.no_grad():
                for weight, value in zip(training.weights, shared, strict=True):
                    weight.copy_(value)

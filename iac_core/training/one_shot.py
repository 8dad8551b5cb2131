"""A single-path super-net, and the best of its paths by regularised evolution.

Weights are trained on one half of the training patients, one path a step; genotypes are scored
with these shared weights on the other half (Guo et al. 2020, single path one-shot). No alpha is
trained. While it searches the cell stands in the skip's place and operations see all channels
(K = 1), whatever retraining does.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from iac_core.backbones.interface import Backbone
from iac_core.cells.genotype import Genotype
from iac_core.checkpoint import load_checkpoint, save_checkpoint
from iac_core.config import CellSettings, SearchSettings
from iac_core.errors import StopRequested
from iac_core.searches.elimination import Elimination
from iac_core.searches.evolution import RegularisedEvolution
from iac_core.searches.rank_correlation import rank_correlation
from iac_core.searches.settings import OneShotSettings
from iac_core.training.fit import TrainingRoom, check_finite
from iac_core.training.path_scoring import PathScore, PathScorer
from iac_core.training.path_training import PathTraining
from iac_core.training.search import compile_kernels

ERROR = 0.05
"""Probability that a ranking by chance alone is called reproducible."""
MIN_CONTRIBUTION = 0.2
"""A cell that gives less of what the decoder receives is not searched for."""


@dataclass(slots=True, kw_only=True)
class OneShotRecord:
    """Everything a one-shot search leaves behind.

    Attributes:
        genotype: The found cells.
        events: Eliminated operations, in order.
        curve: One entry per epoch of steps, then one per `population` scored genotypes, with the
            entries of `iac_core.training.search.SearchRecord.curve`; what does not apply is NaN.
        candidates: Every scored genotype, in order: ``order``, ``genotype`` (JSON), ``parent``
            (order of the genotype that it is a mutation of, or None), ``score`` and the fields of
            `PathScore`.
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


def one_shot(
    backbone: Backbone,
    settings: OneShotSettings,
    room: TrainingRoom,
    *,
    cell: CellSettings,
    search: SearchSettings,
    seed: int,
) -> OneShotRecord:
    """Search a cell for a trained backbone.

    Args:
        backbone: Trained, on the device of the room; neither its weights nor its buffers move.
        settings: The search.
        room: Data, split, device, checkpoint and reporter.
        cell: The cell; its form and K concern other searches and retraining.
        search: Batch size, rate, momentum, decay and clip of the weights, length of an epoch.
        seed: The job's seed.

    Raises:
        ConfigError: If the split has fewer than two training patients, or too few slices.
        SearchError: If a loss is not finite.
        StopRequested: If the user asked to stop; the checkpoint is written.
    """
    run = OneShot(backbone, settings, room, cell, search, seed)
    run.load()
    while not run.training.is_done:
        run.run_epoch()
    run.score_all()
    return run.record()


@dataclass(slots=True)
class _Progress:
    """Where a search stands: what its checkpoint holds beside the training of the weights."""

    seconds: float = 0.0
    scores: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)


class OneShot:
    """State of one search; `one_shot` runs it to its end."""

    def __init__(
        self,
        backbone: Backbone,
        settings: OneShotSettings,
        room: TrainingRoom,
        cell: CellSettings,
        search: SearchSettings,
        seed: int,
    ) -> None:
        self.settings, self.room, self.search, self.seed = settings, room, search, seed
        self.training = PathTraining(backbone, settings, room, cell, search, seed)
        self.progress = _Progress()
        self._scorer: PathScorer | None = None
        compile_kernels()

    @property
    def n_epochs(self) -> int:
        """Entries of the whole curve, as the reporter is told."""
        settings = self.settings
        return self.training.n_epochs + math.ceil(settings.n_evaluations / settings.population)

    def run_epoch(self) -> None:
        """Run the remaining steps of an epoch of the weights."""
        started = time.perf_counter()
        progress, training = self.progress, self.training
        epoch, first = divmod(training.step, training.n_steps_per_epoch)
        n_steps = training.steps_of_epoch(epoch)
        for indices in training.order(epoch)[first:n_steps]:
            if self.room.reporter.should_stop():
                progress.seconds += time.perf_counter() - started
                self.save()
                raise StopRequested(f"search stopped in epoch {epoch}")
            gone = training.weight_step(indices)
            progress.events += [self._event(one, epoch) for one in gone]
        loss = float(np.mean(training.losses[-n_steps:]))
        check_finite(loss, epoch=epoch)
        progress.seconds += time.perf_counter() - started
        self._close_epoch(loss=loss, n_weight_steps=n_steps)

    def score_all(self) -> None:
        """Score genotypes until the budget is used; those of the checkpoint are not repeated."""
        started = time.perf_counter()
        evolution, progress = self.replayed_evolution(), self.progress
        scorer, space = self.scorer(), self.training.space
        while proposals := evolution.ask(1):
            if self.room.reporter.should_stop():
                progress.seconds += time.perf_counter() - started
                self.save()
                raise StopRequested(f"search stopped at candidate {proposals[0].order}")
            score = scorer.score(space.mask(proposals[0].candidate))
            evolution.tell(proposals[0].order, score.value(self.settings.measure))
            progress.scores.append(asdict(score))
            if len(progress.scores) % self.settings.population == 0:
                progress.seconds += time.perf_counter() - started
                self._close_scoring()
                started = time.perf_counter()
        progress.seconds += time.perf_counter() - started
        self._close_scoring()

    def replayed_evolution(self) -> RegularisedEvolution[Genotype]:
        """Return the evolution, told the scores that are known."""
        settings = self.settings
        evolution = RegularisedEvolution(
            self.training.space,
            population=settings.population,
            tournament=settings.tournament,
            n_evaluations=settings.n_evaluations,
            seed=self.seed,
            lag=settings.lag,
        )
        for raw in self.progress.scores:
            (proposal,) = evolution.ask(1)
            evolution.tell(proposal.order, PathScore.of(raw).value(settings.measure))
        return evolution

    def record(self) -> OneShotRecord:
        """Return what the search leaves behind."""
        evolution = self.replayed_evolution()
        scores = [PathScore.of(raw) for raw in self.progress.scores]
        best = evolution.best().candidate
        measure = self.settings.measure
        first = [score.of_halves(measure) for score in scores[: self.settings.population]]
        agreement, p = rank_correlation([one for one, _ in first], [two for _, two in first])
        return OneShotRecord(
            genotype=best,
            events=self.progress.events,
            curve=self.progress.curve,
            candidates=[
                {
                    "order": proposal.order,
                    "genotype": proposal.candidate.to_json(),
                    "parent": proposal.parent,
                    "score": value,
                    **asdict(score),
                }
                for (proposal, value), score in zip(evolution.history, scores, strict=True)
            ],
            n_steps=self.training.n_steps_per_epoch,
            agreement=agreement,
            agreement_p=p,
            contribution=self.scorer().contribution(self.training.space.mask(best)),
        )

    def scorer(self) -> PathScorer:
        """Return the scorer of genotypes on the patients that train no weights."""
        if self._scorer is None:
            self._scorer = PathScorer(
                self.training.supernet,
                self.room.data,
                self.training.scoring_half,
                seed=self.seed,
                batch_size=self.search.batch_size,
                n_slices=self.settings.n_scoring_slices,
                device=self.room.device,
                precision=self.search.precision,
                features=self.training.features(for_training=False),
            )
        return self._scorer

    def load(self) -> None:
        """Go on from the checkpoint if there is one."""
        if not self.room.checkpoint_path.exists():
            return
        saved = load_checkpoint(self.room.checkpoint_path)
        self.training.load_state_dict(saved["training"])
        self.progress = _Progress(**saved["progress"])

    def save(self) -> None:
        """Write everything the rest of the search depends on."""
        save_checkpoint(
            self.room.checkpoint_path,
            {"training": self.training.state_dict(), "progress": asdict(self.progress)},
        )

    def _event(self, gone: Elimination, epoch: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "level": gone.level,
            "edge": gone.edge,
            "operations": [self.training.cell.operations[gone.operation]],
            "rule": "sampled_losses",
            "value": gone.evidence,
            "threshold": gone.bound,
            "seconds": math.nan,
        }

    def _close_scoring(self) -> None:
        """Close the epoch of the latest scores, unless that is done."""
        n_closed = (len(self.progress.curve) - self.training.n_epochs) * self.settings.population
        n_open = len(self.progress.scores) - n_closed
        if n_open > 0:
            self._close_epoch(n_scored_slices=n_open * self.scorer().n_slices)

    def _close_epoch(
        self, *, loss: float = math.nan, n_weight_steps: int = 0, n_scored_slices: int = 0
    ) -> None:
        progress = self.progress
        epoch = len(progress.curve)
        n_operations = int(self.training.space.allowed.sum())
        progress.curve.append(
            {
                "epoch": epoch,
                "train_loss": loss,
                "architecture_loss": math.nan,
                "validation_dice": math.nan,
                "n_operations": n_operations,
                "n_weight_steps": n_weight_steps,
                "n_architecture_steps": 0,
                "n_scored_slices": n_scored_slices,
                "seconds": progress.seconds,
                "ended_at": time.time(),
            }
        )
        counted = math.fsum(row["seconds"] for row in progress.curve)
        for event in progress.events:
            if event["epoch"] == epoch:
                event["seconds"] = counted
        progress.seconds = 0.0
        shown = {} if math.isnan(loss) else {"loss": loss}
        self.room.reporter.progress(
            epoch=epoch + 1, n_epochs=self.n_epochs, n_operations=n_operations, **shown
        )
        if (epoch + 1) % self.search.checkpoint_every_epochs == 0:
            self.save()

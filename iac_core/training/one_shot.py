"""A single-path super-net, and the best of its paths by regularised evolution.

Weights are trained on one half of the training patients, one path a step; genotypes are scored
with these shared weights on the other half (Guo et al. 2020, single path one-shot). The best few
are then trained a little on their own and scored again (our choice: under shared weights a path
that learns fast passes for a good one). No alpha is trained. While it searches the cell stands in
the skip's place and operations see all channels (K = 1), whatever retraining does.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from iac_core.backbones.interface import Backbone
from iac_core.cells.genotype import Genotype
from iac_core.checkpoint import resume_from, save_checkpoint
from iac_core.config import CellSettings, SearchSettings
from iac_core.errors import StopRequested
from iac_core.searches.elimination import Elimination
from iac_core.searches.evolution import RegularisedEvolution
from iac_core.searches.interface import ask_one
from iac_core.searches.rank_correlation import rank_correlation
from iac_core.searches.settings import OneShotSettings
from iac_core.training.finalists import Finalists, choose_finalists
from iac_core.training.fit import TrainingRoom, check_finite
from iac_core.training.one_shot_record import OneShotRecord
from iac_core.training.path_scoring import PathScore, PathScorer
from iac_core.training.path_training import PathTraining
from iac_core.training.search import compile_kernels


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
        NotFiniteError: If a loss is not finite.
        StopRequested: If the user asked to stop; the checkpoint is written.
    """
    run = OneShot(backbone, settings, room, cell, search, seed)
    run.load()
    while not run.training.is_done:
        run.run_epoch()
    run.score_all()
    run.score_finalists()
    return run.record()


@dataclass(slots=True)
class _Progress:
    """Where a search stands: what its checkpoint holds beside the training of the weights."""

    seconds: float = 0.0
    scores: list[dict[str, Any]] = field(default_factory=list)
    finals: list[dict[str, Any]] = field(default_factory=list)
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
        return self.training.n_epochs + self._n_scoring_epochs + bool(self.settings.n_finalists)

    @property
    def _n_scoring_epochs(self) -> int:
        return math.ceil(self.settings.n_evaluations / self.settings.population)

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
        while (proposal := ask_one(evolution)) is not None:
            if self.room.reporter.should_stop():
                progress.seconds += time.perf_counter() - started
                self.save()
                raise StopRequested(f"search stopped at candidate {proposal.order}")
            score = scorer.score(space.mask(proposal.candidate))
            evolution.tell(proposal, score.value(self.settings.measure))
            progress.scores.append(asdict(score))
            if len(progress.scores) % self.settings.population == 0:
                progress.seconds += time.perf_counter() - started
                self._close_scoring()
                started = time.perf_counter()
        progress.seconds += time.perf_counter() - started
        self._close_scoring()

    def score_finalists(self) -> None:
        """Train and score the best genotypes on their own; those of the checkpoint are done."""
        started = time.perf_counter()
        progress, settings = self.progress, self.settings
        history = self.replayed_evolution().record.history
        tuning = Finalists(self.training, settings.finalist_steps)
        for place in self._finalists()[len(progress.finals) :]:
            path = self.training.space.mask(history[place][0].candidate)
            score = tuning.score(path, self.scorer(), self.room.reporter.should_stop)
            if score is None:
                progress.seconds += time.perf_counter() - started
                self.save()
                raise StopRequested(f"search stopped at finalist {len(progress.finals)}")
            progress.finals.append(asdict(score))
        progress.seconds += time.perf_counter() - started
        n = len(progress.finals)
        if n and len(progress.curve) == self.training.n_epochs + self._n_closed_scorings():
            n_slices = self.scorer().n_slices
            self._close_epoch(
                n_weight_steps=n * settings.finalist_steps, n_scored_slices=n * n_slices
            )

    def _finalists(self) -> list[int]:
        """Numbers of the genotypes that are scored again, the best first."""
        history = self.replayed_evolution().record.history
        return choose_finalists(
            [proposal.candidate for proposal, _ in history],
            [score for _, score in history],
            self.settings.n_finalists,
        )

    def _n_closed_scorings(self) -> int:
        return math.ceil(len(self.progress.scores) / self.settings.population)

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
            proposal = ask_one(evolution)
            assert proposal is not None
            evolution.tell(proposal, PathScore.of(raw).value(settings.measure))
        return evolution

    def record(self) -> OneShotRecord:
        """Return what the search leaves behind."""
        known = self.replayed_evolution().record
        scores = [PathScore.of(raw) for raw in self.progress.scores]
        measure = self.settings.measure
        finals = {
            place: PathScore.of(raw)
            for place, raw in zip(self._finalists(), self.progress.finals, strict=True)
        }
        best = known.best().candidate
        if finals:
            found = max(finals, key=lambda place: finals[place].value(measure))
            best = known.proposals[found].candidate
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
                    "finalist": asdict(finals[order]) if order in finals else None,
                }
                for order, ((proposal, value), score) in enumerate(
                    zip(known.history, scores, strict=True)
                )
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
        saved = resume_from(self.room.checkpoint_path)
        if saved is None:
            return
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

"""A single-path super-net, and the best of its paths by regularised evolution.

Weights are trained on one half of the training patients, one path a step; genotypes are scored
with these shared weights on the other half (Guo et al. 2020, single path one-shot). No alpha is
trained. While it searches the cell stands in the skip's place and operations see all channels
(K = 1), whatever retraining does.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from iac_core.backbones.interface import Backbone
from iac_core.cells.genotype import Genotype
from iac_core.cells.implant import Supernet
from iac_core.checkpoint import load_checkpoint, save_checkpoint
from iac_core.config import CellSettings, SearchSettings
from iac_core.errors import StopRequested
from iac_core.searches.elimination import eliminations
from iac_core.searches.evolution import RegularisedEvolution
from iac_core.searches.rank_correlation import rank_correlation
from iac_core.searches.sampling import path_of_step
from iac_core.searches.settings import OneShotSettings
from iac_core.searches.space import CellSpace
from iac_core.seeding import numpy_generator
from iac_core.training.batches import (
    autocast,
    epoch_order,
    load_labels,
    load_view,
    micro_batches,
    n_steps_per_epoch,
)
from iac_core.training.fit import TrainingRoom, check_finite, cosine
from iac_core.training.kept_features import KeptFeatures
from iac_core.training.losses import segmentation_loss
from iac_core.training.path_scoring import PathScore, PathScorer
from iac_core.training.search import compile_kernels, halves

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
    while not run.is_trained:
        run.run_epoch()
    run.score_all()
    return run.record()


@dataclass(slots=True)
class _Progress:
    """Where a search stands: what its checkpoint holds beside weights and their optimiser."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    gone: list[list[int]] = field(default_factory=list)
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
        self.cell = replace(cell, partial_channels=1, form="replace")
        self.supernet = Supernet(backbone, self.cell, seed).to(room.device)
        self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.n_levels = len(self.supernet.implant.cells)
        self.weights = list(self.supernet.implant.cell_parameters())
        self.optimiser = torch.optim.SGD(
            self.weights,
            lr=search.resolved_weight_learning_rate,
            momentum=search.momentum,
            weight_decay=search.weight_decay,
        )
        weight_half, self.scoring_half = halves(room.split.train, seed)
        self.slices = room.data.slice_indices(weight_half, for_training=True)
        n_steps = n_steps_per_epoch(len(self.slices), search.batch_size, search.steps_per_epoch)
        self.n_steps = min(n_steps, settings.n_steps)
        self.progress = _Progress()
        self.paths: list[ndarray] = []
        self.space = CellSpace(self.cell, self.n_levels)
        self.scorer: PathScorer | None = None
        self._features: KeptFeatures | None = None
        compile_kernels()

    @property
    def is_trained(self) -> bool:
        """Whether all weight steps are done."""
        return self.progress.step >= self.settings.n_steps

    @property
    def n_epochs(self) -> int:
        """Entries of the whole curve, as the reporter is told."""
        settings = self.settings
        return math.ceil(settings.n_steps / self.n_steps) + math.ceil(
            settings.n_evaluations / settings.population
        )

    def run_epoch(self) -> None:
        """Run the remaining steps of an epoch."""
        started = time.perf_counter()
        progress = self.progress
        epoch, first = divmod(progress.step, self.n_steps)
        last = min(self.n_steps, self.settings.n_steps - epoch * self.n_steps)
        generator = numpy_generator(self.seed, "one_shot", "weights", epoch)
        order = epoch_order(self.slices, self.search.batch_size, self.n_steps, generator)
        for place in range(first, last):
            if self.room.reporter.should_stop():
                progress.seconds += time.perf_counter() - started
                self.save()
                raise StopRequested(f"search stopped in epoch {epoch}")
            self.weight_step(order[place])
        loss = float(np.mean(progress.losses[-last:]))
        check_finite(loss, epoch=epoch)
        progress.seconds += time.perf_counter() - started
        self._close_epoch(loss=loss, n_weight_steps=last)

    def weight_step(self, indices: ndarray) -> None:
        """One SGD step of the weights on this step's path; then a look, if it is due."""
        settings, progress = self.settings, self.progress
        path = self.space.mask(self._path(progress.step))
        rate = settings.learning_rate_factor * self.search.resolved_weight_learning_rate
        for group in self.optimiser.param_groups:
            group["lr"] = cosine(rate, 0.0, progress.step / settings.n_steps)
        self.optimiser.zero_grad()
        total = 0.0
        for loss in self._losses(indices, path):
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.weights, self.search.gradient_clip)
        self.optimiser.step()
        progress.step += 1
        progress.losses.append(total)
        self.paths.append(path)
        if settings.eliminates and progress.step in settings.looks:
            self._eliminate()

    def score_all(self) -> None:
        """Score genotypes until the budget is used; those of the checkpoint are not repeated."""
        started = time.perf_counter()
        evolution, progress = self.replayed_evolution(), self.progress
        scorer = self.path_scorer()
        while proposals := evolution.ask(1):
            if self.room.reporter.should_stop():
                progress.seconds += time.perf_counter() - started
                self.save()
                raise StopRequested(f"search stopped at candidate {proposals[0].order}")
            score = scorer.score(self.space.mask(proposals[0].candidate))
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
            self.space,
            population=settings.population,
            tournament=settings.tournament,
            n_evaluations=settings.n_evaluations,
            seed=self.seed,
            lag=settings.lag,
        )
        for raw in self.progress.scores:
            (proposal,) = evolution.ask(1)
            evolution.tell(proposal.order, _score(raw).value(settings.measure))
        return evolution

    def record(self) -> OneShotRecord:
        """Return what the search leaves behind."""
        evolution = self.replayed_evolution()
        scores = [_score(raw) for raw in self.progress.scores]
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
            n_steps=self.n_steps,
            agreement=agreement,
            agreement_p=p,
            contribution=self.path_scorer().contribution(self.space.mask(best)),
        )

    def path_scorer(self) -> PathScorer:
        """Return the scorer of genotypes on the patients that train no weights."""
        if self.scorer is None:
            self.scorer = PathScorer(
                self.supernet,
                self.room.data,
                self.scoring_half,
                seed=self.seed,
                batch_size=self.search.batch_size,
                n_slices=self.settings.n_scoring_slices,
                device=self.room.device,
                precision=self.search.precision,
                features=self.features(for_training=False),
            )
        return self.scorer

    def load(self) -> None:
        """Go on from the checkpoint if there is one."""
        if not self.room.checkpoint_path.exists():
            return
        saved = load_checkpoint(self.room.checkpoint_path)
        self.supernet.implant.cells.load_state_dict(saved["cells"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.progress = _Progress(**saved["progress"])
        self._rebuild_space()

    def save(self) -> None:
        """Write everything the rest of the search depends on."""
        save_checkpoint(
            self.room.checkpoint_path,
            {
                "cells": self.supernet.implant.cells.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "progress": asdict(self.progress),
            },
        )

    def features(self, *, for_training: bool) -> KeptFeatures | None:
        """Return the encoder features of all slices, if they are kept; encoded when first asked.

        Args:
            for_training: Random views have features of their own; scoring sees no views.
        """
        has_encoder = next(self.supernet.implant.backbone.encoder.parameters(), None) is not None
        views = self.room.augmentation.enabled
        if not (self.search.keep_features and has_encoder) or (for_training and views):
            return None
        if self._features is None:
            scored = self.room.data.slice_indices(self.scoring_half, for_training=True)
            self._features = KeptFeatures(
                self._encode,
                self.room.data,
                scored if views else np.sort(np.concatenate([self.slices, scored])),
                batch_size=max(1, self.search.batch_size // self.room.n_micro_batches),
                device=self.room.device,
            )
        return self._features

    def _encode(self, images: Tensor) -> list[Tensor]:
        with autocast(self.room.device, self.search.precision):
            return self.supernet.implant.encode(images)

    def _path(self, step: int) -> Genotype:
        return path_of_step(self.space, self.settings.sampling, step=step, seed=self.seed)

    def _losses(self, indices: ndarray, path: ndarray) -> Iterator[Tensor]:
        """Loss of each micro-batch of slices, weighted by its share."""
        data, device = self.room.data, self.room.device
        kept = self.features(for_training=True)
        if kept is None:
            generator = numpy_generator(self.seed, "one_shot", "views", self.progress.step)
            images, labels = load_view(data, indices, device, self.room.augmentation, generator)
        else:
            labels = load_labels(data, indices, device)
        for part in micro_batches(len(indices), self.room.n_micro_batches):
            with autocast(device, self.search.precision):
                encoded = (
                    self.supernet.implant.encode(images[part])
                    if kept is None
                    else kept.load(indices[part])
                )
                logits = self.supernet.path_from_features(encoded, labels.shape[-2:], path)
            share = (part.stop - part.start) / len(indices)
            yield share * segmentation_loss(logits, labels[part])

    def _eliminate(self) -> None:
        """Take from the space what the losses so far speak against."""
        settings, progress = self.settings, self.progress
        found = eliminations(
            np.array(self.paths),
            np.array(progress.losses),
            self.space.allowed,
            n_looks=len(settings.looks),
        )
        for one in found:
            progress.gone.append([progress.step, one.level, one.edge, one.operation])
            progress.events.append(
                {
                    "epoch": (progress.step - 1) // self.n_steps,
                    "level": one.level,
                    "edge": one.edge,
                    "operations": [self.cell.operations[one.operation]],
                    "rule": "sampled_losses",
                    "value": one.evidence,
                    "threshold": one.bound,
                    "seconds": math.nan,
                }
            )
        self._shrink_space()

    def _shrink_space(self, before_step: float = math.inf) -> None:
        """Make the space that is left once what went up to a step is gone."""
        allowed = CellSpace(self.cell, self.n_levels).allowed
        for step, level, edge, operation in self.progress.gone:
            if step <= before_step:
                allowed[level, edge, operation] = False
        self.space = CellSpace(self.cell, self.n_levels, allowed)

    def _rebuild_space(self) -> None:
        """Draw the paths of a checkpoint's steps again, each from the space of its time."""
        last_shrink = {step for step, *_ in self.progress.gone}
        self._shrink_space(before_step=0)
        self.paths = []
        for step in range(self.progress.step):
            if step in last_shrink:
                self._shrink_space(before_step=step)
            self.paths.append(self.space.mask(self._path(step)))
        self._shrink_space()

    def _close_scoring(self) -> None:
        """Close the epoch of the latest scores, unless that is done."""
        n_scores, n_trained = len(self.progress.scores), math.ceil(
            self.settings.n_steps / self.n_steps
        )
        n_closed = (len(self.progress.curve) - n_trained) * self.settings.population
        if n_closed < n_scores:
            n_slices = self.path_scorer().n_slices
            self._close_epoch(n_scored_slices=(n_scores - n_closed) * n_slices)

    def _close_epoch(
        self, *, loss: float = math.nan, n_weight_steps: int = 0, n_scored_slices: int = 0
    ) -> None:
        progress = self.progress
        epoch = len(progress.curve)
        n_operations = int(self.space.allowed.sum())
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


def _score(raw: dict[str, Any]) -> PathScore:
    """A score as a checkpoint has it: tuples may have become lists."""
    return PathScore(
        **{
            name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()
        }
    )

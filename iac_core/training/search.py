"""The bilevel search: cell weights on one half of the training patients, alpha on the other.

First order, as PC-DARTS: every weight step is preceded, once the warm-up is over, by an
architecture step on a batch of the other half. After every epoch the operation pruner decides;
what it prunes leaves the graph, the parameters and the optimisers' state before the next step.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from numpy import ndarray
from torch import Tensor, nn

from iac_core.backbones.interface import Backbone
from iac_core.cells.genotype import Genotype, discretise
from iac_core.cells.implant import Supernet
from iac_core.cells.search_cell import SearchCell
from iac_core.checkpoint import resume_from, save_checkpoint
from iac_core.config import CellSettings, SearchSettings
from iac_core.errors import ConfigError, StopRequested
from iac_core.pruners.contract import check_decision
from iac_core.pruners.evidence import GRADIENT_SUMS, MIN_CONTRIBUTION, MIN_LIVE_EDGE_SHARE
from iac_core.seeding import numpy_generator
from iac_core.training.batches import (
    autocast,
    epoch_order,
    load_batch,
    load_labels,
    load_view,
    micro_batches,
    n_steps_per_epoch,
)
from iac_core.training.contribution import contribution
from iac_core.training.curvature import dominant_eigenvalue
from iac_core.training.evidence import EvidenceMeter, entropy_bits
from iac_core.training.fit import TrainingRoom, check_finite, cosine
from iac_core.training.kept_features import KeptFeatures
from iac_core.training.losses import segmentation_loss
from iac_core.training.scoring import MaskScorer
from iac_core.training.validation import validation_dice
from iac_core.types import AlphaEvidence, OperationPruner, Reason, Scoring, SearchState

ArchitecturePenalty = Callable[[Tensor], Tensor]
"""Importance ``(levels, edges, ops)`` → a term of the architecture step's loss."""


@dataclass(slots=True, kw_only=True)
class SearchRecord:
    """Everything a search leaves behind.

    Attributes:
        genotype: The found cells.
        alpha: Logits after every epoch, shape ``(epochs, levels, edges, ops)``, NaN where gone.
        beta: Edge logits, shape ``(epochs, levels, edges)``.
        importance: Softmax of alpha as the pruner saw it, 0 where gone, shape like alpha.
        active: Operations in the graph during the epoch, bool, shape like alpha.
        jsd: Divergence of each edge in bits, NaN where the pruner computed none, shape like beta.
        beta_jsd: The same of the edge weights into an edge's node.
        events: What was removed and why, and the stop, in order.
        curve: One entry per epoch: ``epoch``, ``train_loss``, ``architecture_loss``,
            ``validation_dice``, ``n_operations``, ``n_weight_steps``, ``n_architecture_steps``,
            ``n_scored_slices`` (slices × masks that a pruner had scored), ``seconds``,
            ``ended_at``.
        looks: One row per look for life, level and edge: ``look`` from 0, ``alpha_step``,
            ``epoch``, ``level``, ``edge``, ``evidence`` (largest |Σ g| / √Σ g² of an operation
            other than ``none``), ``bound``, ``is_alive``, and ``entropy_bits`` of the edge at the
            epoch's end, which decides nothing.
        evidence: The sums of gradients at the end.
        gradient_sum: Σ g of alpha after every epoch, shape like alpha.
        gradient_products: Σ g_o g_p after every epoch, ``(epochs, levels, edges, ops, ops)``.
        edge_gradient_sum: Σ g of beta after every epoch, shape like beta.
        edge_gradient_products: Σ g_e g_f after every epoch, ``(epochs, levels, edges, edges)``.
        n_alpha_steps: Architecture steps up to the end of every epoch, int64, ``(epochs,)``.
        contribution: Rms of what each skip level's cell adds over rms of what the decoder
            receives, on a fixed batch of the slices that train alpha, at the end.
        edges: ``(source, target)`` of every edge.
        operations: Names along the last axis of alpha.
        n_steps: Weight steps in an epoch.
        alpha_learning_rate: The resolved rate of alpha.
    """

    genotype: Genotype
    alpha: Float[ndarray, "epochs levels edges ops"]
    beta: Float[ndarray, "epochs levels edges"]
    importance: Float[ndarray, "epochs levels edges ops"]
    active: Bool[ndarray, "epochs levels edges ops"]
    jsd: Float[ndarray, "epochs levels edges"]
    beta_jsd: Float[ndarray, "epochs levels edges"]
    events: list[dict[str, Any]]
    curve: list[dict[str, float]]
    looks: list[dict[str, Any]]
    evidence: AlphaEvidence
    gradient_sum: Float[ndarray, "epochs levels edges ops"]
    gradient_products: Float[ndarray, "epochs levels edges ops ops"]
    edge_gradient_sum: Float[ndarray, "epochs levels edges"]
    edge_gradient_products: Float[ndarray, "epochs levels edges edges"]
    n_alpha_steps: Integer[ndarray, " epochs"]
    contribution: Float[ndarray, " skip_levels"]
    edges: tuple[tuple[int, int], ...]
    operations: tuple[str, ...]
    n_steps: int
    alpha_learning_rate: float

    @property
    def search_s(self) -> float:
        """Seconds of all counted epochs, scoring and pruning included, checkpoints not."""
        return math.fsum(entry["seconds"] for entry in self.curve)

    @property
    def live_edge_share(self) -> float:
        """Share of the edges that were alive before they were first pruned, or at the end."""
        return self.evidence.live_edge_share

    @property
    def is_alive(self) -> bool:
        """Whether enough edges were alive and every level's cell contributes enough."""
        return (
            self.live_edge_share >= MIN_LIVE_EDGE_SHARE
            and float(self.contribution.min(initial=math.inf)) >= MIN_CONTRIBUTION
        )


def halves(patient_ids: tuple[str, ...], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Deal the training patients into those that train weights and those that train alpha.

    Raises:
        ConfigError: If there are fewer than two patients.
    """
    if len(patient_ids) < 2:
        raise ConfigError(
            "a search must have at least 2 training patients",
            value=len(patient_ids),
            way_out="give the split more of them",
        )
    order = numpy_generator(seed, "search", "halves").permutation(len(patient_ids))
    shuffled = [patient_ids[index] for index in order]
    middle = (len(shuffled) + 1) // 2
    return tuple(sorted(shuffled[:middle])), tuple(sorted(shuffled[middle:]))


def search(
    backbone: Backbone,
    pruner: OperationPruner,
    room: TrainingRoom,
    *,
    cell: CellSettings,
    settings: SearchSettings,
    seed: int,
    architecture_penalty: ArchitecturePenalty | None = None,
) -> SearchRecord:
    """Search a cell for a trained backbone.

    Args:
        backbone: Trained, on the device of the room; neither its weights nor its buffers move.
        pruner: Decides after every epoch.
        room: Data, split, device, checkpoint and reporter.
        cell: The cell.
        settings: The search.
        seed: The job's seed.
        architecture_penalty: A term that every architecture step's loss gets on top, by which
            tests plant a truth that the search should find; None in any real search.

    Raises:
        ConfigError: If the split has fewer than two training patients.
        SearchError: If a loss is not finite, or the pruner breaks its contract.
        StopRequested: If the user asked to stop; the checkpoint is written.
    """
    run = Search(backbone, pruner, room, cell, settings, seed, architecture_penalty)
    run.load()
    while not run.is_over:
        run.run_epoch()
    return run.record()


@dataclass(slots=True)
class _Progress:
    """Where a search stands: what its checkpoint holds beside networks and optimisers."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    stopped: bool = False
    genotype_epoch: int | None = None
    n_slices_trained: int = 0
    trajectory: dict[str, list[Any]] = field(
        default_factory=lambda: {
            name: [] for name in ("alpha", "beta", "importance", "active", "jsd", "beta_jsd")
        }
    )
    events: list[dict[str, Any]] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    looks: list[dict[str, Any]] = field(default_factory=list)
    gradients: dict[str, list[Any]] = field(
        default_factory=lambda: {name: [] for name in (*GRADIENT_SUMS, "n_alpha_steps")}
    )


class Search:
    """State of one search; `search` runs it to its end."""

    def __init__(
        self,
        backbone: Backbone,
        pruner: OperationPruner,
        room: TrainingRoom,
        cell: CellSettings,
        settings: SearchSettings,
        seed: int,
        architecture_penalty: ArchitecturePenalty | None = None,
    ) -> None:
        self.pruner, self.room, self.settings, self.seed = pruner, room, settings, seed
        self.architecture_penalty = architecture_penalty
        self.supernet = Supernet(backbone, cell, seed, settings.join).to(room.device)
        self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.architecture = self.supernet.architecture
        weight_half, alpha_half = halves(room.split.train, seed)
        self.weight_slices = room.data.slice_indices(weight_half, for_training=True)
        self.alpha_slices = room.data.slice_indices(alpha_half, for_training=True)
        # A network that is run whole (an external one) has an encoder without weights.
        has_encoder = next(self.supernet.implant.backbone.encoder.parameters(), None) is not None
        self.keeps_features = settings.keep_features and has_encoder
        self.features: KeptFeatures | None = None
        self.n_steps = n_steps_per_epoch(
            len(self.weight_slices), settings.batch_size, settings.steps_per_epoch
        )
        pace = pruner.pace
        self.alpha_rate = (
            settings.resolved_alpha_learning_rate(self.n_steps) * pace.alpha_rate_factor
        )
        self.alpha_warmup_epochs = (
            settings.alpha_warmup_epochs
            if pace.alpha_warmup_epochs is None
            else pace.alpha_warmup_epochs
        )
        self.scorer = MaskScorer(
            self.supernet,
            room.data,
            room.split.validation,
            seed=seed,
            batch_size=settings.batch_size,
            device=room.device,
            precision=settings.precision,
            keep_features=self.keeps_features,
            n_micro_batches=room.n_micro_batches,
        )
        self._make_optimisers()
        n_alpha_epochs = max(0, settings.epochs - self.alpha_warmup_epochs)
        self.evidence = EvidenceMeter(self.architecture, n_alpha_epochs * self.n_steps)
        self.progress = _Progress()
        self.losses = torch.zeros(2, device=room.device)
        compile_kernels()

    @property
    def is_over(self) -> bool:
        """Whether all epochs were run or the pruner ended the search."""
        return self.progress.stopped or self.progress.epoch >= self.settings.epochs

    def run_epoch(self) -> None:
        """Run the remaining steps of an epoch, then let the pruner decide."""
        started = time.perf_counter()
        self.keep_features()
        epoch, progress = self.progress.epoch, self.progress
        trains_alpha = epoch >= self.alpha_warmup_epochs
        n_steps = self.steps_of_epoch()
        weight_order = self._order("weights", self.weight_slices, n_steps)
        alpha_order = self._order("alpha", self.alpha_slices, n_steps)
        for step in range(progress.step, n_steps):
            if self.room.reporter.should_stop():
                progress.seconds += time.perf_counter() - started
                self.save()
                raise StopRequested(f"search stopped in epoch {epoch}")
            if trains_alpha:
                self.architecture_step(alpha_order[step])
            self.weight_step(
                weight_order[step], (epoch * n_steps + step) / (self.settings.epochs * n_steps)
            )
            progress.step += 1
            progress.n_slices_trained += self.settings.batch_size * (1 + trains_alpha)
        weight_loss, alpha_loss = (self.losses / n_steps).tolist()
        check_finite(weight_loss + alpha_loss, epoch=epoch)
        n_scored = self.scorer.n_slices_scored
        progress.curve.append(
            {
                "epoch": epoch,
                "train_loss": weight_loss,
                "architecture_loss": alpha_loss if trains_alpha else math.nan,
                "validation_dice": self._validate(),
                "n_operations": int(self.architecture.active.sum()),
                "n_weight_steps": n_steps,
                "n_architecture_steps": n_steps * trains_alpha,
            }
        )
        self._decide()
        progress.curve[-1]["n_scored_slices"] = self.scorer.n_slices_scored - n_scored
        progress.seconds += time.perf_counter() - started
        self._close_epoch()

    @property
    def kept_bytes(self) -> int:
        """Size of the kept encoder features."""
        return 0 if self.features is None else self.features.n_bytes

    def steps_of_epoch(self) -> int:
        """Weight steps of the current epoch: the pruner may want fewer while much is open."""
        active = self.architecture.active
        n_removable = active.numel() - active[..., 0].numel()
        gone = 0.0 if n_removable == 0 else float((~active).sum()) / n_removable
        return max(1, round(self.n_steps * self.pruner.pace.share(min(1.0, gone))))

    def _order(self, purpose: str, slices: ndarray, n_steps: int) -> ndarray:
        """Slices of each step; shorter epochs draw from a fixed share of them."""
        if n_steps < self.n_steps:
            fixed = numpy_generator(self.seed, "search", purpose, "subset").permutation(slices)
            n_kept = round(len(slices) * n_steps / self.n_steps)
            slices = np.sort(fixed[: max(n_kept, min(self.settings.batch_size, len(slices)))])
        generator = numpy_generator(self.seed, "search", purpose, self.progress.epoch)
        return epoch_order(slices, self.settings.batch_size, n_steps, generator)

    def record(self) -> SearchRecord:
        """Return what the search leaves behind."""
        arrays = {
            name: np.asarray(values, dtype=bool if name == "active" else np.float64)
            for name, values in self.progress.trajectory.items()
        }
        return SearchRecord(
            genotype=self._genotype(arrays),
            **arrays,
            events=self.progress.events,
            curve=self.progress.curve,
            looks=self.progress.looks,
            evidence=self.evidence.read(),
            **{
                name: np.stack([part.numpy() for part in self.progress.gradients[name]])
                for name in GRADIENT_SUMS
            },
            n_alpha_steps=np.array(self.progress.gradients["n_alpha_steps"], dtype=np.int64),
            contribution=self._contribution(),
            edges=self.architecture.edges,
            operations=self.architecture.operations,
            n_steps=self.n_steps,
            alpha_learning_rate=self.alpha_rate,
        )

    def _contribution(self) -> Float[ndarray, " skip_levels"]:
        """What the cells add to what the decoder receives, on a fixed batch."""
        places = np.linspace(0, len(self.alpha_slices) - 1, self.settings.batch_size)
        indices = self.alpha_slices[np.unique(places.round().astype(int))]
        images, _ = load_batch(self.room.data, indices, self.room.device)
        with autocast(self.room.device, self.settings.precision):
            return contribution(self.supernet, images, replaces=self.settings.join == "replace")

    def _genotype(self, arrays: Mapping[str, ndarray]) -> Genotype:
        """The last genotype, or that of the epoch the pruner went back to."""
        epoch = self.progress.genotype_epoch
        if epoch is None:
            return self.architecture.genotype()
        return discretise(
            np.nan_to_num(arrays["alpha"][epoch]),
            arrays["beta"][epoch],
            arrays["active"][epoch],
            self.architecture.operations,
            self.architecture.n_nodes,
        )

    def load(self) -> None:
        """Go on from the checkpoint if there is one."""
        saved = resume_from(self.room.checkpoint_path)
        if saved is None:
            return
        active = saved["active"].numpy()
        self.remove_operations(active)
        self.architecture.load_state_dict(saved["architecture"])
        self.supernet.implant.cells.load_state_dict(saved["cells"])
        self.supernet.implant.gates.load_state_dict(saved["gates"])
        self._make_optimisers()
        self.weight_optimiser.load_state_dict(saved["weight_optimiser"])
        self.alpha_optimiser.load_state_dict(saved["alpha_optimiser"])
        self.pruner.load_state_dict(saved["pruner"])
        self.evidence.load_state_dict(saved["evidence"])
        self.losses = saved["losses"].to(self.room.device)
        self.progress = _Progress(**saved["progress"])

    def save(self) -> None:
        """Write everything the rest of the search depends on."""
        save_checkpoint(
            self.room.checkpoint_path,
            {
                "active": self.architecture.active.cpu(),
                "architecture": self.architecture.state_dict(),
                "cells": self.supernet.implant.cells.state_dict(),
                "gates": self.supernet.implant.gates.state_dict(),
                "weight_optimiser": self.weight_optimiser.state_dict(),
                "alpha_optimiser": self.alpha_optimiser.state_dict(),
                "pruner": self.pruner.state_dict(),
                "evidence": self.evidence.state_dict(),
                "losses": self.losses.cpu(),
                "progress": {
                    name: getattr(self.progress, name) for name in _Progress.__dataclass_fields__
                },
            },
        )

    def _make_optimisers(self) -> None:
        settings = self.settings
        self.weights = list(self.supernet.implant.cell_parameters())
        self.weight_optimiser = torch.optim.SGD(
            self.weights,
            lr=settings.resolved_weight_learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        adam = torch.optim.AdamW if settings.alpha_optimiser == "adamw" else torch.optim.Adam
        self.alpha_optimiser = adam(
            self.architecture.parameters(),
            lr=self.alpha_rate,
            betas=settings.alpha_betas,
            weight_decay=settings.resolved_alpha_weight_decay,
        )

    def keep_features(self) -> None:
        """Encode the training slices once, if the settings say so."""
        if not self.keeps_features or self.features is not None:
            return
        if self.room.augmentation.enabled:
            return  # every view has features of its own
        self.features = KeptFeatures(
            self._encode,
            self.room.data,
            np.sort(np.concatenate([self.weight_slices, self.alpha_slices])),
            batch_size=max(1, self.settings.batch_size // self.room.n_micro_batches),
            device=self.room.device,
        )

    def _encode(self, images: Tensor) -> list[Tensor]:
        with autocast(self.room.device, self.settings.precision):
            return self.supernet.implant.encode(images)

    def architecture_step(self, indices: ndarray) -> None:
        """One Adam step of alpha and beta; no gradient of any weight is formed."""
        for weight in self.weights:
            weight.requires_grad_(False)
        parameters = list(self.architecture.parameters())
        self.losses[1] += self._accumulate(parameters, self._architecture_losses(indices))
        for weight in self.weights:
            weight.requires_grad_(True)
        self.evidence.add(self.architecture)
        self.alpha_optimiser.step()

    def _architecture_losses(self, indices: ndarray) -> Iterator[Tensor]:
        """The losses of an architecture step, with the penalty added to the first."""
        penalty = self.architecture_penalty
        for loss in self._losses(indices, view="alpha"):
            yield loss if penalty is None else loss + penalty(self.architecture.importance())
            penalty = None

    def weight_step(self, indices: ndarray, share_done: float) -> None:
        """One SGD step of the cell weights with clipped gradients, alpha and beta held.

        Args:
            indices: Slices.
            share_done: Of the full search; it gives the learning rate.
        """
        rate = cosine(self.settings.resolved_weight_learning_rate, 0.0, share_done)
        for group in self.weight_optimiser.param_groups:
            group["lr"] = rate
        loss = self._accumulate(
            self.weights, self._losses(indices, view="weights"), allow_unused=True
        )
        torch.nn.utils.clip_grad_norm_(self.weights, self.settings.gradient_clip)
        self.weight_optimiser.step()
        self.losses[0] += loss

    @staticmethod
    def _accumulate(
        parameters: Sequence[nn.Parameter],
        losses: Iterable[Tensor],
        *,
        allow_unused: bool = False,
    ) -> Tensor:
        """Give parameters the summed gradients of losses, one graph at a time; return the sum."""
        for parameter in parameters:
            parameter.grad = None
        total: Tensor | None = None
        for loss in losses:
            found = torch.autograd.grad(loss, parameters, allow_unused=allow_unused)
            for parameter, gradient in zip(parameters, found, strict=True):
                if parameter.grad is None or gradient is None:
                    parameter.grad = gradient if gradient is not None else parameter.grad
                else:
                    parameter.grad += gradient
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def _losses(self, indices: ndarray, *, view: str = "") -> Iterator[Tensor]:
        """Loss of each micro-batch of slices, weighted by its share.

        The slices are in this step's random view of a name, or as they are.
        """
        data, device = self.room.data, self.room.device
        images: Tensor | None = None
        if self.features is None:
            images, labels = self._images(indices, view)
        else:
            labels = load_labels(data, indices, device)
        for part in micro_batches(len(indices), self.room.n_micro_batches):
            with autocast(device, self.settings.precision):
                if images is not None:
                    logits = self.supernet(images[part])
                else:
                    assert self.features is not None
                    logits = self.supernet.from_features(
                        self.features.load(indices[part]), labels.shape[-2:]
                    )
            share = (part.stop - part.start) / len(indices)
            yield share * segmentation_loss(logits, labels[part])

    def _images(self, indices: ndarray, view: str) -> tuple[Tensor, Tensor]:
        data, device = self.room.data, self.room.device
        if not view:
            return load_batch(data, indices, device)
        generator = numpy_generator(
            self.seed, "search", "views", view, self.progress.epoch, self.progress.step
        )
        return load_view(data, indices, device, self.room.augmentation, generator)

    def _decide(self) -> None:
        """Record the epoch, ask the pruner, and remove what it gives up."""
        state = self._state()
        decision = self.pruner.decide(state)
        check_decision(decision, state)
        unknown = np.full(state.beta.shape, np.nan)
        for name, value in (
            ("alpha", state.alpha),
            ("beta", state.beta),
            ("importance", state.importance),
            ("active", state.active),
            ("jsd", decision.measures.get("jsd", unknown)),
            ("beta_jsd", decision.measures.get("beta_jsd", unknown)),
        ):
            self.progress.trajectory[name].append(value.tolist())
        self._record_evidence(state)
        for reason in decision.reasons:
            self.progress.events.append(_event(reason, state.epoch))
        if (decision.keep != state.active).any():
            self.remove_operations(decision.keep)
        self.progress.stopped = decision.stop
        self.progress.genotype_epoch = decision.genotype_epoch

    def _record_evidence(self, state: SearchState) -> None:
        """Keep the sums of gradients, and the rows of the epoch's looks."""
        kept = self.progress.gradients
        for name in GRADIENT_SUMS:
            values = getattr(state.evidence, name).astype(np.float32)
            kept[name].append(torch.from_numpy(values))
        kept["n_alpha_steps"].append(state.evidence.n_steps)
        self.progress.looks += self.evidence.rows_of_looks(
            state.epoch, entropy_bits(state.importance)
        )

    def remove_operations(self, keep: Bool[ndarray, "levels edges ops"]) -> None:
        """Delete operations from every level's cell, from the logits and from both optimisers."""
        for level, cell in enumerate(self.supernet.implant.cells):
            assert isinstance(cell, SearchCell)
            cell.prune(keep[0 if len(keep) == 1 else level], self.weight_optimiser)
        self.architecture.prune(keep, self.alpha_optimiser)
        self.weights = list(self.supernet.implant.cell_parameters())

    def _close_epoch(self) -> None:
        progress = self.progress
        entry = progress.curve[-1]
        entry["seconds"] = progress.seconds
        entry["ended_at"] = time.time()
        counted = math.fsum(row["seconds"] for row in progress.curve)
        for event in progress.events:
            if event["epoch"] == progress.epoch:
                event["seconds"] = counted
        progress.epoch, progress.step, progress.seconds = progress.epoch + 1, 0, 0.0
        self.losses.zero_()
        self.room.reporter.progress(
            epoch=progress.epoch,
            n_epochs=self.settings.epochs,
            loss=entry["train_loss"],
            n_operations=int(self.architecture.active.sum()),
            live_edges=self.evidence.live_edge_share,
        )
        if progress.epoch % self.settings.checkpoint_every_epochs == 0:
            self.save()

    def _state(self) -> SearchState:
        alpha, beta = self.architecture.as_arrays()
        trajectory = self.progress.trajectory
        return SearchState(
            epoch=self.progress.epoch,
            n_epochs=self.settings.epochs,
            alpha=_read_only(alpha),
            beta=_read_only(beta),
            importance=_read_only(
                self.architecture.importance().detach().cpu().numpy().astype(np.float64)
            ),
            active=_read_only(self.architecture.active_mask()),
            operations=self.architecture.operations,
            edges=self.architecture.edges,
            alpha_history=_read_only(np.asarray([*trajectory["alpha"], alpha.tolist()])),
            beta_history=_read_only(np.asarray([*trajectory["beta"], beta.tolist()])),
            evidence=self.evidence.read(),
            first_alpha_epoch=self.alpha_warmup_epochs,
            max_alpha_step_per_epoch=self.alpha_rate * self.steps_of_epoch(),
            seed=self.seed,
            n_slices_trained=self.progress.n_slices_trained,
            n_scoring_slices=self.scorer.n_available,
            values_of=self._values_of,
            dominant_eigenvalue=self._dominant_eigenvalue,
        )

    def _values_of(
        self, masks: Bool[ndarray, "n levels edges ops"], scoring: Scoring
    ) -> Float[ndarray, " n"]:
        return self.scorer.values(self.architecture.importance().detach(), masks, scoring)

    def _dominant_eigenvalue(self) -> float:
        """Of the Hessian in alpha, on the first batch of the slices that train alpha."""
        alpha = self.architecture.alpha
        kept = alpha.detach().clone()
        indices = self.alpha_slices[: self.settings.batch_size]

        def gradient_at(point: ndarray) -> ndarray:
            with torch.no_grad():
                alpha.copy_(torch.from_numpy(point))
            self._accumulate([alpha], self._losses(indices))
            gradient = alpha.grad
            assert gradient is not None
            return gradient.double().cpu().numpy()

        value = dominant_eigenvalue(gradient_at, kept.double().cpu().numpy())
        with torch.no_grad():
            alpha.copy_(kept)
        return value

    def _validate(self) -> float:
        every = self.settings.validate_every_epochs
        if every == 0 or (self.progress.epoch + 1) % every:
            return math.nan
        return validation_dice(
            self.supernet,
            self.room.data,
            self.room.split.validation,
            batch_size=self.settings.batch_size,
            device=self.room.device,
        )


def compile_kernels() -> None:
    """Have the CPU's kernels compiled before seconds are counted; once on a machine, then cached.

    A tiny cell passes through all of them.
    """
    cell = SearchCell(8, 8, CellSettings(n_nodes=1, partial_channels=1))
    importance = torch.full((2, len(cell.operation_names)), 0.1)
    out = cell(torch.zeros(1, 8, 4, 4), torch.zeros(1, 8, 4, 4), importance, torch.ones(2))
    torch.autograd.grad(out.sum(), cell.weights)
    every = np.ones((1, 2, len(cell.operation_names)), dtype=bool)
    discretise(np.zeros(every.shape), np.zeros((1, 2)), every, cell.operation_names, 1)


def _read_only(array: ndarray) -> ndarray:
    array.flags.writeable = False
    return array


def _event(reason: Reason, epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "level": reason.level,
        "edge": reason.edge,
        "operations": list(reason.operations),
        "rule": reason.rule,
        "value": reason.value,
        "threshold": reason.threshold,
        "seconds": math.nan,
    }

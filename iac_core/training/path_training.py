"""Weights of a single-path super-net: each step trains the weights of one path alone."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Integer
from numpy import ndarray
from torch import Tensor

from iac_core.backbones.interface import Backbone
from iac_core.cells.implant import Supernet
from iac_core.config import CellSettings, SearchSettings
from iac_core.searches.cell_space import CellSpace
from iac_core.searches.elimination import Elimination, eliminations
from iac_core.searches.sampling import path_of_step
from iac_core.searches.settings import OneShotSettings
from iac_core.seeding import numpy_generator
from iac_core.training.batches import (
    autocast,
    epoch_order,
    load_labels,
    load_view,
    micro_batches,
    n_steps_per_epoch,
)
from iac_core.training.fit import TrainingRoom, cosine
from iac_core.training.kept_features import KeptFeatures
from iac_core.training.losses import segmentation_loss
from iac_core.training.search import halves


class PathTraining:
    """The super-net, its weights and what is left of the space while they train.

    The cell stands in the skip's place and operations see all channels (K = 1), whatever
    retraining does.

    Args:
        backbone: Trained; neither its weights nor its buffers move.
        settings: Steps, sampling and elimination.
        room: Data, split and device.
        cell: The cell.
        search: Batch size, rate, momentum, decay and clip of the weights, length of an epoch.
        seed: The job's seed.

    Attributes:
        scoring_half: Training patients that train no weights.
        space: Genotypes that are left.
        losses: Of each step so far.
    """

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
        self.cell = replace(cell, partial_channels=1)
        self.supernet = Supernet(backbone, self.cell, seed, join="replace").to(room.device)
        self.supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weights = list(self.supernet.implant.cell_parameters())
        self.optimiser = self.new_optimiser()
        weight_half, self.scoring_half = halves(room.split.train, seed)
        self.slices = room.data.slice_indices(weight_half, for_training=True)
        self.n_steps_per_epoch = min(
            n_steps_per_epoch(len(self.slices), search.batch_size, search.steps_per_epoch),
            settings.n_steps,
        )
        self.losses: list[float] = []
        self._paths: list[ndarray] = []
        self._gone: list[list[int]] = []
        self._features: KeptFeatures | None = None
        self._shrink_space(before_step=0)

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    @property
    def is_done(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.settings.n_steps

    @property
    def n_epochs(self) -> int:
        """Epochs of the whole training; the last may be shorter."""
        return math.ceil(self.settings.n_steps / self.n_steps_per_epoch)

    def steps_of_epoch(self, epoch: int) -> int:
        """Return the steps of an epoch."""
        n = self.n_steps_per_epoch
        return min(n, self.settings.n_steps - epoch * n)

    def order(self, epoch: int) -> Integer[ndarray, "n_steps batch_size"]:
        """Return the slices of an epoch's steps."""
        generator = numpy_generator(self.seed, "one_shot", "weights", epoch)
        n_steps = self.n_steps_per_epoch
        return epoch_order(self.slices, self.search.batch_size, n_steps, generator)

    def weight_step(self, indices: Integer[ndarray, " b"]) -> list[Elimination]:
        """One SGD step of the weights on this step's path; then a look, if it is due.

        Args:
            indices: Slices.

        Returns:
            What the look eliminated.
        """
        path = self._path(self.step)
        share_done = self.step / self.settings.n_steps
        loss = self.descend(self.optimiser, indices, path, step=self.step, share_done=share_done)
        self.losses.append(loss)
        self._paths.append(path)
        if self.settings.eliminates and self.step in self.settings.looks:
            return self._eliminate()
        return []

    def new_optimiser(self) -> torch.optim.SGD:
        """Return an optimiser of the weights without a past."""
        return torch.optim.SGD(
            self.weights,
            lr=self.search.resolved_weight_learning_rate,
            momentum=self.search.momentum,
            weight_decay=self.search.weight_decay,
        )

    def descend(
        self,
        optimiser: torch.optim.SGD,
        indices: Integer[ndarray, " b"],
        path: Bool[ndarray, "levels edges ops"],
        *,
        step: int,
        share_done: float,
    ) -> float:
        """Take one step of an optimiser with clipped gradients; return the loss before it.

        Args:
            optimiser: Of the weights.
            indices: Slices.
            path: The path.
            step: Number of the step; it fixes the random views.
            share_done: Of the training; it gives the learning rate.
        """
        rate = self.settings.learning_rate_factor * self.search.resolved_weight_learning_rate
        for group in optimiser.param_groups:
            group["lr"] = cosine(rate, 0.0, share_done)
        optimiser.zero_grad()
        total = 0.0
        for loss in self._losses_of(indices, path, step):
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.weights, self.search.gradient_clip)
        optimiser.step()
        return total

    def _losses_of(
        self,
        indices: Integer[ndarray, " b"],
        path: Bool[ndarray, "levels edges ops"],
        step: int,
    ) -> Iterator[Tensor]:
        """Yield the loss of each micro-batch of slices on a path, weighted by its share."""
        data, device = self.room.data, self.room.device
        kept = self.features(for_training=True)
        if kept is None:
            generator = numpy_generator(self.seed, "one_shot", "views", step)
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

    def state_dict(self) -> dict[str, Any]:
        """Return what the rest of the training depends on: tensors and plain values."""
        return {
            "cells": self.supernet.implant.cells.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "losses": self.losses,
            "gone": self._gone,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `state_dict` returned; paths are drawn again."""
        self.supernet.implant.cells.load_state_dict(state["cells"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.losses, self._gone, self._paths = state["losses"], state["gone"], []
        shrunk = {step for step, *_ in self._gone}
        self._shrink_space(before_step=0)
        for step in range(self.step):
            if step in shrunk:
                self._shrink_space(before_step=step)
            self._paths.append(self._path(step))
        self._shrink_space(before_step=self.step)

    def _encode(self, images: Tensor) -> list[Tensor]:
        with autocast(self.room.device, self.search.precision):
            return self.supernet.implant.encode(images)

    def _path(self, step: int) -> Bool[ndarray, "levels edges ops"]:
        drawn = path_of_step(self.space, self.settings.sampling, step=step, seed=self.seed)
        return self.space.mask(drawn)

    def _eliminate(self) -> list[Elimination]:
        """Take from the space what the losses so far speak against."""
        found = eliminations(
            np.array(self._paths),
            np.array(self.losses),
            self.space.allowed,
            n_looks=len(self.settings.looks),
        )
        self._gone += [[self.step, one.level, one.edge, one.operation] for one in found]
        self._shrink_space(before_step=self.step)
        return found

    def _shrink_space(self, *, before_step: int) -> None:
        """Make the space that is left once what went up to a step is gone."""
        n_levels = len(self.supernet.implant.cells)
        allowed = CellSpace(self.cell, n_levels).allowed
        for step, level, edge, operation in self._gone:
            if step <= before_step:
                allowed[level, edge, operation] = False
        self.space = CellSpace(self.cell, n_levels, allowed)

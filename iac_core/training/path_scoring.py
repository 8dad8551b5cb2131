"""Scores of many genotypes by the shared weights of a super-net."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from numpy import ndarray
from torch import Tensor

from iac_core.cells.genotype import Genotype
from iac_core.cells.implant import Supernet
from iac_core.config import Precision, require
from iac_core.data.slices import PreparedData
from iac_core.searches.cell_space import genotype_mask
from iac_core.searches.settings import Measure
from iac_core.seeding import numpy_generator
from iac_core.training.batches import autocast, load_batch, load_labels
from iac_core.training.contribution import contribution
from iac_core.training.kept_features import KeptFeatures
from iac_core.training.losses import segmentation_loss

N_HALVES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PathScore:
    """How good a path is on slices that trained no weights; higher is better.

    Attributes:
        dice: Mean foreground Dice of all slices together, over the classes that occur.
        negative_loss: Negative training loss, mean over slices.
        dice_of_halves: The same on the slices of each half of the patients.
        negative_loss_of_halves: Likewise.
    """

    dice: float
    negative_loss: float
    dice_of_halves: tuple[float, float]
    negative_loss_of_halves: tuple[float, float]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> "PathScore":
        """Return the score of plain values, as ``dataclasses.asdict`` makes them."""
        return cls(
            dice=raw["dice"],
            negative_loss=raw["negative_loss"],
            dice_of_halves=tuple(raw["dice_of_halves"]),
            negative_loss_of_halves=tuple(raw["negative_loss_of_halves"]),
        )

    def value(self, measure: Measure) -> float:
        """Return one of the two."""
        return self.dice if measure == "dice" else self.negative_loss

    def of_halves(self, measure: Measure) -> tuple[float, float]:
        """Return one of the two on each half."""
        return self.dice_of_halves if measure == "dice" else self.negative_loss_of_halves


class PathScorer:
    """Scores paths of a super-net, each on the same slices in the same batches.

    Batch norms have the statistics of the scored batch. Batches are drawn over all patients of a
    half and are of about the size of a training batch, so that their statistics are like those
    that the weights were trained with; none has patients of both halves, so that the scores of
    the halves are independent given the weights.

    Args:
        supernet: The super-net.
        data: Prepared slices.
        patients: Patients that train no weights; one alone is halved by slices.
        seed: The job's seed; it fixes halves and batches.
        batch_size: Slices that share batch statistics, about.
        n_slices: Slices to score on, at most; None is all that training would take of them.
        device: Device of the super-net.
        precision: Of forward passes.
        features: Kept encoder features of the slices; None encodes them each time.

    Raises:
        ConfigError: If the patients have fewer than two slices.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: PreparedData,
        patients: tuple[str, ...],
        *,
        seed: int,
        batch_size: int,
        n_slices: int | None,
        device: torch.device,
        precision: Precision,
        features: KeptFeatures | None,
    ) -> None:
        self.supernet, self.data, self.device = supernet, data, device
        self.precision, self.features = precision, features
        generator = numpy_generator(seed, "one_shot", "scoring")
        self.batches = [
            _batches(slices, batch_size, n_slices, generator)
            for slices in _halves(data, patients, generator)
        ]

    @property
    def n_slices(self) -> int:
        """Slices that each path is scored on."""
        return sum(len(batch) for half in self.batches for batch in half)

    def values(self, genotypes: Sequence[Genotype], measure: Measure) -> Float[ndarray, " n"]:
        """Return the score of every genotype."""
        operations = self.supernet.architecture.operations
        scores = (self.score(genotype_mask(genotype, operations)) for genotype in genotypes)
        return np.array([score.value(measure) for score in scores])

    def score(self, path: Bool[ndarray, "levels edges ops"]) -> PathScore:
        """Return the scores of a path."""
        n_classes = self.data.n_classes
        counts = np.zeros((N_HALVES, 2, n_classes))
        losses, n_slices = np.zeros(N_HALVES), np.zeros(N_HALVES)
        for half, batches in enumerate(self.batches):
            for logits, labels in self._logits(path, batches):
                losses[half] += float(segmentation_loss(logits, labels)) * len(labels)
                n_slices[half] += len(labels)
                counts[half] += _dice_counts(logits, labels, n_classes)
        of_halves = [_dice(half) for half in counts]
        return PathScore(
            dice=_dice(counts.sum(axis=0)),
            negative_loss=-float(losses.sum() / n_slices.sum()),
            dice_of_halves=(of_halves[0], of_halves[1]),
            negative_loss_of_halves=(
                -float(losses[0] / n_slices[0]),
                -float(losses[1] / n_slices[1]),
            ),
        )

    def contribution(self, path: Bool[ndarray, "levels edges ops"]) -> float:
        """Return the least share of a cell in what the decoder receives, over the levels.

        See `iac_core.training.contribution.contribution`; the cell stands in the skip's place.
        """
        images, _ = load_batch(self.data, self.batches[0][0], self.device)
        apply_cell = self.supernet.path_function(path)
        with autocast(self.device, self.precision):
            found = contribution(self.supernet, images, replaces=True, apply_cell=apply_cell)
        return float(found.min())

    def _logits(
        self, path: ndarray, batches: Sequence[ndarray]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits ``(B, K, H, W)`` and labels ``(B, H, W)`` of every batch."""
        with torch.no_grad(), autocast(self.device, self.precision):
            for batch in batches:
                features, size = self._encoded(batch)
                logits = self.supernet.path_from_features(features, size, path)
                yield logits, load_labels(self.data, batch, self.device)

    def _encoded(self, batch: Integer[ndarray, " b"]) -> tuple[list[Tensor], tuple[int, int]]:
        height, width = self.data.slice_shape
        if self.features is not None:
            return self.features.load(batch), (height, width)
        images, _ = load_batch(self.data, batch, self.device)
        return self.supernet.implant.encode(images), (height, width)


def _halves(
    data: PreparedData, patients: tuple[str, ...], generator: np.random.Generator
) -> list[Integer[ndarray, " n"]]:
    """Slices of each half of the patients, or halves of the slices if one has none."""
    every = data.slice_indices(patients, for_training=True)
    require(len(every) >= N_HALVES, f"scoring needs at least {N_HALVES} slices", len(every))
    order = generator.permutation(len(patients))
    found = [
        data.slice_indices([patients[index] for index in part], for_training=True)
        for part in np.array_split(order, N_HALVES)
    ]
    if all(len(half) for half in found):
        return found
    return list(np.array_split(generator.permutation(every), N_HALVES))


def _batches(
    slices: Integer[ndarray, " n"],
    batch_size: int,
    n_slices: int | None,
    generator: np.random.Generator,
) -> list[Integer[ndarray, " b"]]:
    """Slices in random order, cut into batches of equal size but for one slice."""
    drawn = generator.permutation(slices)
    if n_slices is not None:
        drawn = drawn[: max(1, n_slices // N_HALVES)]
    return list(np.array_split(drawn, max(1, len(drawn) // batch_size)))


def _dice_counts(
    logits: Float[Tensor, "b k h w"], labels: Integer[Tensor, "b h w"], n_classes: int
) -> Float[ndarray, "2 k"]:
    """Twice the pixels that agree, and the pixels of prediction and reference, by class."""
    predicted = logits.argmax(dim=1)
    both = torch.bincount(predicted[predicted == labels], minlength=n_classes)
    sizes = torch.bincount(predicted.flatten(), minlength=n_classes)
    sizes = sizes + torch.bincount(labels.flatten(), minlength=n_classes)
    found: ndarray = torch.stack([2 * both, sizes]).cpu().numpy()
    return found


def _dice(counts: Float[ndarray, "2 k"]) -> float:
    """Mean Dice of the foreground classes that prediction or reference shows; 0 without any."""
    overlap, sizes = counts[:, 1:]
    shown = sizes > 0
    return float((overlap[shown] / sizes[shown]).mean()) if shown.any() else 0.0

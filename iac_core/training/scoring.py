"""Values of masks of operations: how good the supernet is with some of them left out."""

from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer
from numpy import ndarray
from torch import Tensor

from iac_core.cells.implant import Supernet
from iac_core.config import Precision
from iac_core.data.slices import PreparedData
from iac_core.seeding import numpy_generator
from iac_core.training.batches import autocast, load_batch, load_labels
from iac_core.training.kept_features import KeptFeatures
from iac_core.training.losses import segmentation_loss
from iac_core.types import Scoring

_POOL = 1024
"""Slices that draws are made from, at most."""
_TOGETHER = 64
"""Slices in a forward pass, over all masks that share it."""


class MaskScorer:
    """Scores masks on validation slices; many masks in one forward pass.

    The weights of operations outside a mask are 0 and the others not renormalised (Shapley-NAS).
    Every mask has batch statistics of its own slices alone, so that a value does not depend on
    which masks are scored beside it (row 30: batch statistics, our choice).

    Args:
        supernet: The supernet.
        data: Prepared slices.
        patients: Validation patients.
        seed: The job's seed; it fixes what each draw is.
        batch_size: Slices that share batch statistics, at most.
        device: Device of the supernet.
        precision: Of forward passes.
        keep_features: Whether to encode the slices once.
        n_micro_batches: As in `iac_core.training.fit.TrainingRoom`: fewer masks share a forward
            pass. Batch statistics stay those of `batch_size` slices, so values do not change.
    """

    def __init__(
        self,
        supernet: Supernet,
        data: PreparedData,
        patients: tuple[str, ...],
        *,
        seed: int,
        batch_size: int,
        device: torch.device,
        precision: Precision,
        keep_features: bool,
        n_micro_batches: int = 1,
    ) -> None:
        self.supernet, self.data, self.patients, self.seed = supernet, data, patients, seed
        self.batch_size, self.device, self.precision = batch_size, device, precision
        self.keeps_features = keep_features
        self.n_micro_batches = n_micro_batches
        self._features: KeptFeatures | None = None
        self.n_slices_scored = 0
        self.n_available = min(_POOL, len(data_slices(data, patients)))

    @cached_property
    def _groups(self) -> list[Integer[ndarray, " n"]]:
        """Slices to draw from, by patient and classes shown; found when first asked for."""
        found = strata(self.data, self.patients)
        pool = draw_evenly(found, _POOL, numpy_generator(self.seed, "scoring", "pool"))
        return [np.intersect1d(group, pool) for group in found]

    @property
    def pool(self) -> Integer[ndarray, " n"]:
        """All slices that draws are made from."""
        return np.sort(np.concatenate(self._groups))

    def values(
        self,
        importance: Float[Tensor, "levels edges ops"],
        masks: Bool[ndarray, "n levels edges ops"],
        scoring: Scoring,
    ) -> Float[ndarray, " n"]:
        """Return the value of every mask.

        Args:
            importance: Softmax of alpha.
            masks: Operations that contribute.
            scoring: Slices and measure.
        """
        generator = numpy_generator(self.seed, "scoring", scoring.draw)
        indices = draw_evenly(self._groups, scoring.n_slices, generator)
        self.n_slices_scored += len(masks) * len(indices)
        together = _TOGETHER // self.n_micro_batches
        n_together = max(1, together // min(len(indices), self.batch_size))
        found = []
        for start in range(0, len(masks), n_together):
            chosen = torch.from_numpy(masks[start : start + n_together]).to(self.device)
            mixing = importance[None] * chosen
            score = self._dice if scoring.measure == "dice" else self._negative_loss
            found.append(score(mixing, indices))
        return np.concatenate(found)

    def _dice(
        self, importance: Tensor, indices: Integer[ndarray, " s"]
    ) -> Float[ndarray, " groups"]:
        """Mean foreground Dice over all slices together; classes that neither shows left out."""
        n_classes, n_groups = self.data.n_classes, len(importance)
        counts = torch.zeros(n_groups, 2, n_classes, dtype=torch.float64, device=self.device)
        classes = torch.arange(n_classes, device=self.device)[:, None, None]
        for logits, labels in self._logits(importance, indices):
            predicted = logits.argmax(dim=2)[:, :, None] == classes
            reference = labels[:, None] == classes
            counts[:, 0] += (predicted & reference).sum(dim=(1, 3, 4))
            counts[:, 1] += predicted.sum(dim=(1, 3, 4)) + reference.sum(dim=(0, 2, 3))
        overlap, sizes = counts[:, 0, 1:], counts[:, 1, 1:]
        dice = torch.where(sizes > 0, 2 * overlap / sizes.clamp_min(1), torch.nan)
        values: ndarray = dice.nanmean(dim=1).nan_to_num(0.0).cpu().numpy()
        return values

    def _negative_loss(
        self, importance: Tensor, indices: Integer[ndarray, " s"]
    ) -> Float[ndarray, " groups"]:
        """Negative loss, mean over batches weighted by their slices."""
        total = torch.zeros(len(importance), dtype=torch.float64, device=self.device)
        for logits, labels in self._logits(importance, indices):
            losses = torch.stack([segmentation_loss(part, labels) for part in logits])
            total -= losses * (len(labels) / len(indices))
        values: ndarray = total.cpu().numpy()
        return values

    def _logits(
        self, importance: Tensor, indices: Integer[ndarray, " s"]
    ) -> list[tuple[Tensor, Tensor]]:
        """Logits ``(groups, B, K, H, W)`` and labels ``(B, H, W)`` of every batch."""
        results = []
        n_groups = len(importance)
        with torch.no_grad(), autocast(self.device, self.precision):
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                labels = load_labels(self.data, batch, self.device)
                features = [torch.cat([level] * n_groups) for level in self._encoded(batch)]
                logits = self.supernet.from_features(features, labels.shape[-2:], importance)
                results.append((logits.view(n_groups, len(batch), *logits.shape[1:]), labels))
        return results

    def _encoded(self, indices: Integer[ndarray, " b"]) -> list[Tensor]:
        if not self.keeps_features:
            images, _ = load_batch(self.data, indices, self.device)
            return self.supernet.implant.encode(images)
        if self._features is None:
            self._features = KeptFeatures(
                self._encode,
                self.data,
                self.pool,
                batch_size=self.batch_size,
                device=self.device,
            )
        return self._features.load(indices)

    def _encode(self, images: Tensor) -> list[Tensor]:
        with autocast(self.device, self.precision):
            return self.supernet.implant.encode(images)


def data_slices(data: PreparedData, patients: tuple[str, ...]) -> Integer[ndarray, " n"]:
    """Return all slices of some patients, those without foreground too."""
    return data.slice_indices(patients, for_training=False)


def strata(data: PreparedData, patients: tuple[str, ...]) -> list[Integer[ndarray, " n"]]:
    """Return the slices of each patient that show the same classes, richest classes first."""
    found: list[tuple[int, str, ndarray]] = []
    for patient in patients:
        by_classes: dict[tuple[int, ...], list[int]] = {}
        for index in data_slices(data, (patient,)):
            shown = tuple(int(value) for value in np.unique(data.labels[index]))
            by_classes.setdefault(shown, []).append(int(index))
        found += [(len(shown), patient, np.array(rows)) for shown, rows in by_classes.items()]
    return [rows for _, _, rows in sorted(found, key=lambda entry: (-entry[0], entry[1]))]


def draw_evenly(
    groups: list[Integer[ndarray, " n"]], n: int, generator: np.random.Generator
) -> Integer[ndarray, " m"]:
    """Draw up to n of all entries without repeats: one of each group in turn; sorted.

    Examples:
        >>> groups = [np.arange(0, 9), np.arange(9, 11)]
        >>> drawn = draw_evenly(groups, 4, np.random.default_rng(0))
        >>> len(drawn), int((drawn >= 9).sum())
        (4, 2)
    """
    shuffled = [list(generator.permutation(group)) for group in groups]
    drawn: list[int] = []
    while len(drawn) < n and any(shuffled):
        for group in shuffled:
            if group and len(drawn) < n:
                drawn.append(int(group.pop()))
    return np.array(sorted(drawn), dtype=np.int64)

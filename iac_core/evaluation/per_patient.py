"""From a trained network to one row per patient, volume and class on the original grid."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iac_core.config import EvaluateSettings
from iac_core.data.slices import PreparedData, PreparedVolume
from iac_core.data.splits import Split
from iac_core.errors import StopRequested
from iac_core.evaluation.metrics import score_volume
from iac_core.training.batches import batches
from iac_core.types import Reporter

Segment = Callable[[PreparedVolume], np.ndarray]
"""A volume → its predicted label values on the original grid, shape ``(X, Y, Z)``, uint8."""


def segment_slices(
    predict: Callable[[Tensor], Tensor],
    data: PreparedData,
    *,
    batch_size: int,
    device: torch.device,
) -> Segment:
    """Return what predicts a volume slice by slice; arguments as in `predict_probabilities`."""

    def segment(volume: PreparedVolume) -> np.ndarray:
        slices = np.arange(volume.first_slice, volume.first_slice + volume.n_slices)
        probabilities = predict_probabilities(
            predict, data, slices, batch_size=batch_size, device=device
        )
        return data.to_original(volume, probabilities)

    return segment


def predict_probabilities(
    predict: Callable[[Tensor], Tensor],
    data: PreparedData,
    indices: np.ndarray,
    *,
    batch_size: int,
    device: torch.device,
) -> np.ndarray:
    """Return class probabilities of slices, shape ``(D, K, H, W)``, float32.

    Args:
        predict: Images → logits, in evaluation mode.
        data: Prepared slices.
        indices: Slices, in the order of the result.
        batch_size: Slices in a forward pass.
        device: Where `predict` runs.
    """
    parts = []
    with torch.no_grad():
        for images, _ in batches(data, indices, batch_size, device):
            parts.append(predict(images).float().softmax(dim=1).cpu().numpy())
    return np.concatenate(parts)


def volumes_to_score(
    data: PreparedData, split: Split, settings: EvaluateSettings
) -> tuple[tuple[str, PreparedVolume], ...]:
    """Return subset and volume of everything that is to be scored, in this order.

    Args:
        data: The volumes.
        split: Patients of each part.
        settings: Which subsets.
    """
    parts: dict[str, Sequence[str]] = {"validation": split.validation, "test": split.test}
    return tuple(
        (subset, volume)
        for subset in settings.subsets
        for volume in data.volumes_of(parts[subset])
    )


def score_patients(
    segment: Segment,
    data: PreparedData,
    split: Split,
    settings: EvaluateSettings,
    reporter: Reporter,
) -> list[dict[str, Any]]:
    """Score every volume of the subsets.

    Args:
        segment: Predicts a volume.
        data: Reference labels.
        split: Patients of each part.
        settings: Which subsets, tolerance.
        reporter: Told of every volume; asked whether to stop before each.

    Returns:
        Rows with ``subset``, ``patient_id``, ``volume_id``, ``class_name`` and the fields of
        `iac_core.evaluation.metrics.ClassScore`.

    Raises:
        StopRequested: If the user asked to stop; the stage starts again.
    """
    volumes = volumes_to_score(data, split, settings)
    rows: list[dict[str, Any]] = []
    for index, (subset, volume) in enumerate(volumes):
        if reporter.should_stop():
            raise StopRequested("evaluation stopped")
        scores = score_volume(
            data.reference_labels(volume),
            segment(volume),
            spacing_mm=volume.spacing_mm,
            classes=data.classes,
            tolerance_mm=settings.surface_tolerance_mm,
        )
        rows += [
            {
                "subset": subset,
                "patient_id": volume.patient_id,
                "volume_id": volume.volume_id,
                "class_name": class_name,
                **asdict(score),
            }
            for class_name, score in scores.items()
        ]
        reporter.progress(epoch=index + 1, n_epochs=len(volumes))
    return rows

"""Validation Dice on the prepared grid: cheap enough for every epoch; chooses checkpoints only."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from iac_core.data.slices import PreparedData
from iac_core.training.batches import batches


def validation_dice(
    predict: Callable[[Tensor], Tensor],
    data: PreparedData,
    patient_ids: Sequence[str],
    *,
    batch_size: int,
    device: torch.device,
) -> float:
    """Return the mean Dice of the foreground labels: per volume, then patient, then label.

    Scores of tables come from the original grid (`iac_core.evaluation.per_patient`); this one only
    ranks the epochs of one training.

    Args:
        predict: Images ``(B, C, H, W)`` → logits ``(B, K, H, W)``; in the mode that it should
            have.
        data: Prepared slices.
        patient_ids: Patients to score.
        batch_size: Slices in a forward pass.
        device: Where `predict` runs.

    Returns:
        A number in [0, 1]; labels that are absent from reference and prediction of a volume are
        left out of its patient's mean. NaN if nothing could be scored.
    """
    volumes = data.volumes_of(patient_ids)
    indices = np.concatenate(
        [np.arange(volume.first_slice, volume.first_slice + volume.n_slices) for volume in volumes]
    )
    n_classes = data.n_classes
    counts = []
    with torch.no_grad():
        for images, labels in batches(data, indices, batch_size, device):
            predicted = predict(images).argmax(dim=1)
            counts.append(_confusion_per_slice(labels, predicted, n_classes))
    per_slice = torch.cat(counts).cpu().numpy()
    dice: dict[str, list[np.ndarray]] = {}
    start = 0
    for volume in volumes:
        overlap, sizes = per_slice[start : start + volume.n_slices].sum(axis=0)
        start += volume.n_slices
        score = np.divide(2 * overlap, sizes, out=np.full(n_classes, np.nan), where=sizes > 0)
        dice.setdefault(volume.patient_id, []).append(score[1:])
    per_patient = np.stack([_mean_where_defined(np.stack(scores)) for scores in dice.values()])
    per_label = _mean_where_defined(per_patient)
    return float(_mean_where_defined(per_label[:, None])[0])


def _confusion_per_slice(labels: Tensor, predicted: Tensor, n_classes: int) -> Tensor:
    """Overlap and summed sizes of every class in every slice, shape ``(B, 2, K)``, float64."""
    classes = torch.arange(n_classes, device=labels.device)[:, None, None]
    reference = labels[:, None] == classes
    prediction = predicted[:, None] == classes
    overlap = (reference & prediction).sum(dim=(2, 3))
    sizes = reference.sum(dim=(2, 3)) + prediction.sum(dim=(2, 3))
    return torch.stack([overlap, sizes], dim=1).double()


def _mean_where_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis without NaN; NaN where nothing is defined."""
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=0)
    count = defined.sum(axis=0)
    mean: np.ndarray = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean

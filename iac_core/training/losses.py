"""The one loss of backbones, cells and architecture parameters."""

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float, Int
from torch import Tensor

_SMOOTH = 1.0
"""Added to both parts of the soft Dice, so that a class absent from batch and prediction costs
0."""


def soft_dice_loss(
    logits: Float[Tensor, "b k h w"], labels: Int[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Return 1 − mean soft Dice of the foreground classes, each over the whole batch."""
    probabilities = logits.softmax(dim=1)
    one_hot = torch.zeros_like(probabilities).scatter_(1, labels[:, None], 1.0)
    overlap = (probabilities * one_hot).sum(dim=(0, 2, 3))
    sizes = (probabilities + one_hot).sum(dim=(0, 2, 3))
    dice = (2 * overlap + _SMOOTH) / (sizes + _SMOOTH)
    return 1 - dice[1:].mean()


def segmentation_loss(
    logits: Float[Tensor, "b k h w"], labels: Int[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    """Return soft Dice loss + cross-entropy, equally weighted (row 11, our choice).

    Args:
        logits: Any float type; computed in float32.
        labels: Class indices, int64, background 0.
    """
    logits = logits.float()
    return soft_dice_loss(logits, labels) + F.cross_entropy(logits, labels)

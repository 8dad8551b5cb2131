"""The start of a fresh cell whose output has the statistics of the skip it stands in for.

A fresh cell's output has two to three times the deviation of a skip and negative values where the
skip has none, so that a frozen decoder sees features it was never trained on. Our choice; the
papers say nothing of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.cells.implant import ImplantedNetwork

_LEAST_SHARE = 1e-2
"""Least deviation that a channel is given, as a share of its level's mean: through a scale of zero
nothing would pass back to the cell."""


def match_start(network: ImplantedNetwork, images: Float[Tensor, "b c h w"]) -> None:
    """Set each cell's scale and shift so that its output has its skip's mean and deviation.

    Channel by channel, over one batch. Levels are matched in the order in which the decoder asks
    for them, so that every cell sees inputs whose own levels are matched already. Running
    statistics of the cells' batch norms become those of the batch, so that evaluation mode shows
    the same output.

    Args:
        network: With ``start: matched``, on the device of the images.
        images: Training slices.
    """
    implant = network.implant

    def matched(level: int, skip: Tensor, second: Tensor) -> Tensor:
        out = network.apply_cell(level, skip, second)
        mean, deviation = _statistics(out)
        wanted_mean, wanted = _statistics(skip)
        wanted = wanted.clamp_min(_LEAST_SHARE * float(wanted.mean()))
        scale = torch.where(deviation > 0, wanted / deviation, torch.ones_like(wanted))
        implant.scales[level].copy_(scale)
        implant.shifts[level].copy_(wanted_mean - scale * mean)
        return out

    was_training = implant.training
    implant.eval()
    implant.cells.train()
    with torch.no_grad(), _whole_batch_statistics(implant.cells):
        implant.decode(implant.encode(images), images.shape[-2:], matched)
    implant.train(was_training)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every channel, each ``(C, 1, 1)``."""
    deviation, mean = torch.std_mean(x, dim=(0, 2, 3), correction=0)
    return mean[:, None, None], deviation[:, None, None]


@contextmanager
def _whole_batch_statistics(cells: nn.Module) -> Iterator[None]:
    """Let running statistics become those of the one batch that follows."""
    norms = [part for part in cells.modules() if isinstance(part, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    yield
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum

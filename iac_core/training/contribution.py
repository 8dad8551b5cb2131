"""How much of what a decoder receives comes from the searched cells."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from iac_core.cells.implant import Supernet

ApplyCell = Callable[[int, Tensor, Tensor], Tensor]
"""Level, skip and second input → what the level's cell gives."""


def contribution(
    supernet: Supernet,
    images: Float[Tensor, "b c h w"],
    *,
    replaces: bool,
    apply_cell: ApplyCell | None = None,
) -> Float[ndarray, " levels"]:
    """Return, per skip level, the rms of what the cell adds over that of what the decoder takes.

    Args:
        supernet: With the mixing that its logits stand for.
        images: A batch of slices.
        replaces: Whether the cell is in the skip's place, so that everything comes from it.
        apply_cell: The cells; None mixes all operations as the logits say.

    Returns:
        Ratios, float64; 0 where the decoder takes zeros alone.
    """
    implant = supernet.implant
    ratios = torch.zeros(len(implant.cells), dtype=torch.float64, device=images.device)

    def watched(level: int, skip: Tensor, upsampled: Tensor) -> Tensor:
        received = join(level, skip, upsampled)
        added = received if replaces else received - skip
        ratio = added.double().square().mean().sqrt() / received.double().square().mean().sqrt()
        ratios[level] = ratio.nan_to_num(0.0)
        return received

    with torch.no_grad():
        join = implant.adapter(apply_cell or supernet.cell_function())
        implant.backbone.decode(implant.encode(images), watched)
    found: ndarray = ratios.cpu().numpy()
    return found

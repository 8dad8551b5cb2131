"""Backbones: U-shaped networks that host cells in their skip connections."""

from typing import Any

from iac_core.backbones.flexible_unet import FlexibleUNet
from iac_core.backbones.interface import Backbone
from iac_core.backbones.unet import UNet
from iac_core.registry import entry_of
from iac_core.seeding import derive_seed

BACKBONES: dict[str, type[Any]] = {
    "unet": UNet,
    "resnet18_unet": FlexibleUNet,
}
"""Name → class; the class takes its ``Settings``, ``n_channels`` and ``n_classes``."""


def build_backbone(settings: object, *, n_channels: int, n_classes: int, seed: int) -> Backbone:
    """Return a backbone with fresh weights that depend on the seed alone.

    Args:
        settings: An instance of the ``Settings`` of one of `BACKBONES`.
        n_channels: Image channels.
        n_classes: Classes, background included.
        seed: The job's seed.

    Raises:
        UnknownNameError: If no backbone has such settings.
    """
    import torch

    backbone_type = entry_of(settings, BACKBONES, what="backbone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "backbone"))
        backbone: Backbone = backbone_type(settings, n_channels=n_channels, n_classes=n_classes)
    return backbone

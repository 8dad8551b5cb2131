"""Backbones: U-shaped networks that host cells in their skip connections, and their rivals."""

from collections.abc import Callable
from dataclasses import dataclass

from iac_core.backbones.dyn_unet import DynUNet, DynUNetSettings
from iac_core.backbones.encoder_unet import (
    MobileNetV2UNetSettings,
    ResidualUNetSettings,
    VggUNetSettings,
    mobile_net_v2_unet,
    residual_unet,
    vgg_unet,
)
from iac_core.backbones.external import ExternalSettings, external
from iac_core.backbones.flexible_unet import (
    EfficientNetB0UNetSettings,
    FlexibleUNet,
    FlexibleUNetSettings,
    ResNet34UNetSettings,
    ResNet50UNetSettings,
)
from iac_core.backbones.interface import Backbone
from iac_core.backbones.mixed_block.network import MixedBlockSettings, mixed_block
from iac_core.backbones.nnunet_unet import NnunetSettings, needs_plans
from iac_core.backbones.rivals import (
    AttentionUNetSettings,
    SegResNetSettings,
    SwinUNETRSettings,
    UNet3PlusSettings,
    UNetPlusPlusSettings,
    UNETRSettings,
    attention_unet,
    seg_res_net,
    swin_unetr,
    unet_3_plus,
    unet_plus_plus,
    unetr,
)
from iac_core.backbones.smp_unet import (
    SmpResNet50UNetSettings,
    SmpVgg13UNetSettings,
    smp_resnet50_unet,
    smp_vgg13_unet,
)
from iac_core.backbones.unet import UNet, UNetSettings
from iac_core.registry import entry_of
from iac_core.seeding import derive_seed


@dataclass(frozen=True, slots=True)
class BackboneEntry:
    """A backbone of the table.

    Attributes:
        build: Takes the settings, ``n_channels`` and ``n_classes``; returns fresh weights.
        Settings: Class of its settings, one for each entry; ``n_skips`` says how many cells it
            hosts.
    """

    build: Callable[..., Backbone]
    Settings: type


BACKBONES: dict[str, BackboneEntry] = {
    "unet": BackboneEntry(UNet, UNetSettings),
    "residual_unet": BackboneEntry(residual_unet, ResidualUNetSettings),
    "resnet18_unet": BackboneEntry(FlexibleUNet, FlexibleUNetSettings),
    "resnet34_unet": BackboneEntry(FlexibleUNet, ResNet34UNetSettings),
    "resnet50_unet": BackboneEntry(FlexibleUNet, ResNet50UNetSettings),
    "efficientnet_b0_unet": BackboneEntry(FlexibleUNet, EfficientNetB0UNetSettings),
    "dyn_unet": BackboneEntry(DynUNet, DynUNetSettings),
    "vgg_unet": BackboneEntry(vgg_unet, VggUNetSettings),
    "mobilenet_v2_unet": BackboneEntry(mobile_net_v2_unet, MobileNetV2UNetSettings),
    "smp_vgg13_unet": BackboneEntry(smp_vgg13_unet, SmpVgg13UNetSettings),
    "smp_resnet50_unet": BackboneEntry(smp_resnet50_unet, SmpResNet50UNetSettings),
    "external": BackboneEntry(external, ExternalSettings),
    "nnunet": BackboneEntry(needs_plans, NnunetSettings),
    "attention_unet": BackboneEntry(attention_unet, AttentionUNetSettings),
    "unet_plus_plus": BackboneEntry(unet_plus_plus, UNetPlusPlusSettings),
    "unet_3_plus": BackboneEntry(unet_3_plus, UNet3PlusSettings),
    "seg_res_net": BackboneEntry(seg_res_net, SegResNetSettings),
    "swin_unetr": BackboneEntry(swin_unetr, SwinUNETRSettings),
    "unetr": BackboneEntry(unetr, UNETRSettings),
    "mixed_block": BackboneEntry(mixed_block, MixedBlockSettings),
}
"""Name → backbone; those from ``attention_unet`` on host no cells."""


def build_backbone(settings: object, *, n_channels: int, n_classes: int, seed: int) -> Backbone:
    """Return a backbone with fresh weights that depend on the seed alone.

    Args:
        settings: An instance of the ``Settings`` of one of `BACKBONES`.
        n_channels: Image channels.
        n_classes: Classes, background included.
        seed: The job's seed.

    Raises:
        UnknownNameError: If no backbone has such settings.
        ConfigError: If an external network cannot be built.
    """
    import torch

    entry = entry_of(settings, BACKBONES, what="backbone")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "backbone"))
        return entry.build(settings, n_channels=n_channels, n_classes=n_classes)

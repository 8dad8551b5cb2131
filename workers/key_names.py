"""What keys call a backbone, a pruner, a search or a control: strings that never change.

Keys held the names of Python classes once. Those names are frozen here, so that a class can be
renamed; what is added later is called by its name in the registry.
"""

import functools

from iac_core.backbones import BACKBONES
from iac_core.cells.genotype import RandomCellSettings, UniformCellSettings
from iac_core.pruners import OPERATION_PRUNERS
from iac_core.training.searches import SEARCHES

FROZEN_NAMES: dict[str, str] = {
    "unet": "UNetSettings",
    "residual_unet": "ResidualUNetSettings",
    "resnet18_unet": "FlexibleUNetSettings",
    "resnet34_unet": "ResNet34UNetSettings",
    "resnet50_unet": "ResNet50UNetSettings",
    "efficientnet_b0_unet": "EfficientNetB0UNetSettings",
    "dyn_unet": "DynUNetSettings",
    "vgg_unet": "VggUNetSettings",
    "mobilenet_v2_unet": "MobileNetV2UNetSettings",
    "smp_vgg13_unet": "SmpVgg13UNetSettings",
    "smp_resnet50_unet": "SmpResNet50UNetSettings",
    "external": "ExternalSettings",
    "nnunet": "NnunetSettings",
    "attention_unet": "AttentionUNetSettings",
    "unet_plus_plus": "UNetPlusPlusSettings",
    "unet_3_plus": "UNet3PlusSettings",
    "seg_res_net": "SegResNetSettings",
    "swin_unetr": "SwinUNETRSettings",
    "unetr": "UNETRSettings",
    "mixed_block": "MixedBlockSettings",
    "none": "NoPruningSettings",
    "js_stability": "JsStabilitySettings",
    "js_stability_fast": "JsStabilityFastSettings",
    "js_absolute": "JsAbsoluteSettings",
    "shapley": "ShapleySettings",
    "shapley_fast": "ShapleyFastSettings",
    "fixed_schedule": "FixedScheduleSettings",
    "magnitude": "MagnitudeSettings",
    "genotype_stability": "GenotypeStabilitySettings",
    "hessian_stop": "HessianStopSettings",
    "stop_at_epoch": "StopAtEpochSettings",
    "one_shot": "OneShotSettings",
    "random": "RandomCellSettings",
    "uniform": "UniformCellSettings",
    "no_settings": "NoneType",
}
"""Name in its registry → what keys call it."""


def key_name(settings: object) -> str:
    """Return what keys call whatever has these settings; None is a control without any."""
    return key_name_of_class(type(settings))


def registry_name(settings: object) -> str:
    """Return the name in its registry of whatever has these settings."""
    return _registry_names().get(type(settings), type(settings).__name__)


def key_name_of_class(settings: type) -> str:
    """Return what keys call whatever has settings of a class."""
    return _names().get(settings, settings.__name__)


@functools.cache
def _names() -> dict[type, str]:
    """Class of settings → what keys call it."""
    return {settings: FROZEN_NAMES.get(name, name) for settings, name in _registry_names().items()}


@functools.cache
def _registry_names() -> dict[type, str]:
    """Class of settings → name in its registry."""
    registries: dict[str, type] = {
        **{name: entry.Settings for name, entry in BACKBONES.items()},
        **{name: pruner.Settings for name, pruner in OPERATION_PRUNERS.items()},
        **{name: search.settings for name, search in SEARCHES.items()},
        "random": RandomCellSettings,
        "uniform": UniformCellSettings,
        "no_settings": type(None),
    }
    return {settings: name for name, settings in registries.items()}

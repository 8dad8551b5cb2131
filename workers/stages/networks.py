"""The networks that stages train and score, with the weights of the stages before them."""

from typing import Any

import torch
from torch import nn

from iac_core.backbones.interface import Backbone
from iac_core.cells.genotype import Genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.checkpoint import save_checkpoint
from iac_core.data.slices import PreparedData
from iac_core.errors import ConfigError
from iac_core.training.fit import FitResult
from workers.recipes import on_device, recipe_of
from workers.stages.context import StageContext
from workers.stages.files import CURVE, WEIGHTS, write_values


def trained_backbone(context: StageContext, data: PreparedData) -> Backbone:
    """Return the backbone with the weights of its pre-training, on the context's device."""
    recipe = recipe_of(context.task.job.settings.backbone)
    backbone = on_device(recipe.network(context, data), context.device)
    _as_module(backbone).load_state_dict(context.weights("pretrain"))
    return backbone


def network_to_train(context: StageContext, data: PreparedData) -> Backbone | ImplantedNetwork:
    """Return the trained backbone, with fresh cells in it if the task has a genotype."""
    job, backbone = context.task.job, trained_backbone(context, data)
    if not context.task.genotype:
        return backbone
    network = ImplantedNetwork(
        backbone,
        Genotype.from_json(context.task.genotype),
        job.settings.cell,
        scope=job.settings.retrain.scope,
        seed=job.retrain_seed,
    )
    network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def final_network(context: StageContext, data: PreparedData) -> nn.Module:
    """Return the network that is scored, with all its trained weights.

    Args:
        context: That of a stage that builds on all of the job's trainings.
        data: The prepared slices.

    Raises:
        ConfigError: If retrained weights do not fit.
    """
    module = _as_module(network_to_train(context, data))
    if context.task.parent("retrain") is None:
        return module
    state = context.weights("retrain")
    missing, unexpected = module.load_state_dict(state, strict=False)
    if unexpected or any(not name.startswith("implant.backbone.") for name in missing):
        raise ConfigError(
            "retrained weights must fit the network",
            value=f"{unexpected} {missing}",
        )
    return module


def keep_training(context: StageContext, result: FitResult) -> dict[str, Any]:
    """Write weights and curve of a training; return its outcome."""
    save_checkpoint(context.folder / WEIGHTS, result.state)
    write_values(context.folder, CURVE, result.curve)
    return {
        "seconds": sum(entry["seconds"] for entry in result.curve),
        "best_epoch": result.best_epoch,
        "best_validation_dice": result.best_dice,
        **({} if result.start_dice is None else {"start_validation_dice": result.start_dice}),
    }


def _as_module(network: Backbone | nn.Module) -> nn.Module:
    assert isinstance(network, nn.Module)
    return network

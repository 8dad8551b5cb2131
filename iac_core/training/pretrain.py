"""Pre-training of a backbone, and the control that trains it for longer."""

from torch import nn

from iac_core.backbones.interface import Backbone
from iac_core.config import PretrainSettings, RetrainSettings
from iac_core.training.fit import FitResult, ParameterGroup, TrainingRoom, fit


def pretrain(
    backbone: Backbone, room: TrainingRoom, settings: PretrainSettings, *, seed: int
) -> FitResult:
    """Train a fresh backbone (row 35, without downloaded encoder weights: our choice)."""
    assert isinstance(backbone, nn.Module)
    group = ParameterGroup(
        parameters=list(backbone.parameters()), learning_rate=settings.learning_rate
    )
    return fit(backbone, [group], room, settings, seed=seed, purpose="pretrain")


def train_longer(
    backbone: Backbone, room: TrainingRoom, settings: RetrainSettings, *, seed: int
) -> FitResult:
    """Train a trained backbone for the retraining's epochs: the control ``no_cell_longer``.

    The rate is `RetrainSettings.backbone_learning_rate`, the one that a backbone gets beside a
    cell.
    """
    assert isinstance(backbone, nn.Module)
    group = ParameterGroup(
        parameters=list(backbone.parameters()), learning_rate=settings.backbone_learning_rate
    )
    return fit(backbone, [group], room, settings, seed=seed, purpose="retrain", scores_start=True)

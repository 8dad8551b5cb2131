"""What the benchmarks of whole searches share: a search that is ready to step."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.flexible_unet import FlexibleUNetSettings
from iac_core.backbones.unet import UNetSettings
from iac_core.config import (
    CellSettings,
    PrepareSettings,
    PretrainSettings,
    SearchSettings,
    SplitSettings,
)
from iac_core.data.acdc import Acdc
from iac_core.data.phantom import PhantomSettings, write_phantom
from iac_core.data.prepare import prepare
from iac_core.data.slices import PreparedData
from iac_core.data.splits import make_split
from iac_core.pruners.no_pruning import NoPruning, NoPruningSettings
from iac_core.training.fit import TrainingRoom
from iac_core.training.pretrain import pretrain
from iac_core.training.search import Search
from iac_core.types import SilentReporter

WIDTHS = (16, 32, 64, 128)
"""Of the U-Net of the claims sweep."""


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with what all of them take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="a minute at most")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--backbone", default="unet", choices=["unet", "resnet18_unet"])
    parser.add_argument("--size", type=int, default=48, help="rows and columns of a slice")
    parser.add_argument(
        "--data", type=Path, help="folder in the ACDC layout; without it a generated one"
    )
    return parser


def prepared(folder: Path | None, size: int, into: Path) -> PreparedData:
    """Prepare a data folder, or a generated one, at 3 mm."""
    if folder is None:
        folder = into / "phantom"
        write_phantom(folder, PhantomSettings(n_patients=12))
    settings = PrepareSettings(size=size, spacing_mm=3.0 * 48 / size)
    (into / "prepared").mkdir()
    prepare(Acdc(folder), settings, into / "prepared", SilentReporter())
    return PreparedData.open(into / "prepared")


def backbone_settings(name: str) -> object:
    """Return settings as narrow as those of the claims sweep."""
    if name == "unet":
        return UNetSettings(widths=WIDTHS)
    return FlexibleUNetSettings(decoder_channels=(128, 64, 32, 16, 16))


def make_search(
    data: PreparedData,
    backbone: object,
    device: torch.device,
    *,
    batch_size: int = 16,
    keep_features: bool = True,
    n_steps: int | None = 4,
    cell: CellSettings | None = None,
    pretrain_epochs: int = 0,
    seed: int = 0,
) -> Search:
    """Return a full search, by default over an untrained backbone, which costs as much.

    Args:
        data: Prepared slices.
        backbone: Settings of the backbone.
        device: Where the search steps.
        batch_size: Slices in a step.
        keep_features: Whether encoder features are computed once.
        n_steps: Steps of an epoch.
        cell: The cell; None is the default one.
        pretrain_epochs: Epochs of 20 steps that the backbone is trained for first.
        seed: Of everything.
    """
    network = build_backbone(
        backbone, n_channels=data.n_channels, n_classes=data.n_classes, seed=seed
    )
    assert isinstance(network, torch.nn.Module)
    network.to(device, memory_format=torch.channels_last)
    room = TrainingRoom(
        data=data,
        split=make_split(data.patients, SplitSettings()),
        device=device,
        checkpoint_path=Path(tempfile.mkdtemp()) / "none.pt",
        reporter=SilentReporter(),
    )
    if pretrain_epochs:
        settings = PretrainSettings(
            epochs=pretrain_epochs, batch_size=batch_size, steps_per_epoch=20
        )
        pretrain(network, room, settings, seed=seed)
        room.checkpoint_path.unlink(missing_ok=True)
    return Search(
        network,
        NoPruning(NoPruningSettings()),
        room,
        cell or CellSettings(),
        SearchSettings(
            batch_size=batch_size,
            steps_per_epoch=n_steps,
            alpha_warmup_epochs=0,
            keep_features=keep_features,
        ),
        seed,
    )


def double_step(search: Search, *, with_alpha: bool = True) -> None:
    """Run one architecture step and one weight step on fixed slices."""
    search.keep_features()
    batch = search.settings.batch_size
    if with_alpha:
        search.architecture_step(np.resize(search.alpha_slices, batch))
    search.weight_step(np.resize(search.weight_slices, batch), 0.0)

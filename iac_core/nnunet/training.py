"""Pre-training by nnU-Net's own trainer."""

import json
import shutil
from pathlib import Path

from iac_core.backbones.nnunet_unet import NnunetSettings
from iac_core.checkpoint import load_checkpoint
from iac_core.nnunet.cases import PlannedCases
from iac_core.nnunet.run_apart import PROGRESS, run_apart
from iac_core.training.fit import FitResult, TrainingRoom, check_finite

_RESULTS = "nnunet_results"
_WEIGHTS = "nnunet_weights.pt"
_CURVE = "nnunet_curve.json"


def pretrain_by_nnunet(
    prepared: Path,
    settings: NnunetSettings,
    room: TrainingRoom,
    *,
    seed: int,
    checkpoint_every_epochs: int,
    n_processes: int,
) -> FitResult:
    """Train the planned network on the split's patients with nnU-Net's loss and augmentation.

    The seed fixes initialisation and, where augmentation has no processes of its own, every draw
    of an epoch; with processes nnU-Net's order is theirs. The last epoch counts, as in nnU-Net.

    Args:
        prepared: Folder of the preparation, whose split file nnU-Net reads.
        settings: Trainer and length.
        room: Device, reporter, checkpoint; its folder gets nnU-Net's log.
        seed: The job's seed.
        checkpoint_every_epochs: A stopped training loses at most this many epochs.
        n_processes: How many processes may augment.

    Returns:
        State and curve; validation Dice is nnU-Net's pseudo Dice over patches.

    Raises:
        NnunetError: If nnU-Net fails.
        NotFiniteError: If its loss is not finite.
        StopRequested: If the user asked to stop.
    """
    folder = room.checkpoint_path.parent
    cases = PlannedCases(prepared)
    run_apart(
        "train",
        {
            "dataset": cases.dataset,
            "plans": cases.plans_name,
            "trainer": settings.trainer,
            "epochs": settings.epochs,
            "steps_per_epoch": settings.steps_per_epoch,
            "validation_steps": settings.validation_steps,
            "batch_size": settings.batch_size,
            "seed": seed,
            "device": room.device.type,
            "n_channels": room.data.n_channels,
            "checkpoint": str(room.checkpoint_path),
            "checkpoint_every_epochs": checkpoint_every_epochs,
            "progress": str(folder / PROGRESS),
            "weights": str(folder / _WEIGHTS),
            "curve": str(folder / _CURVE),
        },
        folder,
        places={
            "raw": folder / _RESULTS,
            "preprocessed": cases.root,
            "results": folder / _RESULTS,
        },
        n_processes=n_processes,
        reporter=room.reporter,
    )
    curve = json.loads((folder / _CURVE).read_text(encoding="utf-8"))
    check_finite(curve[-1]["train_loss"], epoch=len(curve) - 1)
    state = load_checkpoint(folder / _WEIGHTS)
    for name in (_WEIGHTS, _CURVE, PROGRESS):
        (folder / name).unlink()
    shutil.rmtree(folder / _RESULTS)
    return FitResult(
        state=state,
        best_epoch=len(curve) - 1,
        best_dice=curve[-1]["validation_dice"],
        curve=curve,
    )

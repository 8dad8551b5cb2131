"""nnU-Net's planning and training, in the process that `iac_core.nnunet.run_apart` starts.

python -m iac_core.nnunet.commands ORDER.json
"""

import json
import os
import random
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from files.encoding import from_json
from files.writing import write_text
from iac_core.backbones.nnunet_unet import NnunetUNet
from iac_core.checkpoint import resume_from, save_checkpoint
from iac_core.nnunet import CONFIGURATION, N_DATASET
from iac_core.seeding import derive_seed

_INPUT_CLOSED = 3


def plan(order: dict[str, Any]) -> None:
    """Fingerprint and plans from the training cases; preprocessing of all cases.

    Args:
        order: ``header`` (dataset.json without its cases), ``cases`` (name → images and label),
            ``training`` (names), ``planner``, ``gpu_memory_gb``, ``n_processes``, ``result``.
    """
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    raw, preprocessed = (
        Path(os.environ[f"nnUNet_{name}"]) / order["header"]["name"]
        for name in ("raw", "preprocessed")
    )
    n_processes = order["n_processes"]
    training = {name: order["cases"][name] for name in order["training"]}
    header = {**order["header"], "numTraining": len(training)}
    _write(raw / "dataset.json", {**header, "dataset": training})
    api.extract_fingerprints([N_DATASET], num_processes=n_processes)
    plans = api.plan_experiments([N_DATASET], order["planner"], order["gpu_memory_gb"])
    for folder in (raw, preprocessed):
        _write(folder / "dataset.json", {**header, "dataset": order["cases"]})
    api.preprocess(
        [N_DATASET], plans, configurations=(CONFIGURATION,), num_processes=(n_processes,)
    )
    shutil.rmtree(preprocessed / "gt_segmentations", ignore_errors=True)
    _write(preprocessed / "dataset.json", header)
    _write(Path(order["result"]), {"plans": plans})


def train(order: dict[str, Any]) -> None:
    """Train the planned network on the first entry of the split file.

    Args:
        order: ``dataset``, ``plans``, ``trainer``, ``epochs``, ``steps_per_epoch``,
            ``validation_steps``, ``batch_size``, ``seed``, ``device``, ``n_channels``,
            ``checkpoint`` (goes on from it), ``checkpoint_every_epochs``, ``progress``,
            ``weights`` and ``curve`` (to be written).
    """
    import nnunetv2
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    trainers = str(Path(nnunetv2.__path__[0]) / "training" / "nnUNetTrainer")
    base = recursive_find_python_class(
        trainers, order["trainer"], "nnunetv2.training.nnUNetTrainer"
    )
    if base is None:
        raise SystemExit(f"trainer must be one of nnU-Net's, got {order['trainer']}")
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / order["dataset"]
    plans = json.loads((preprocessed / f"{order['plans']}.json").read_text(encoding="utf-8"))
    if order["batch_size"] is not None:
        plans["configurations"][CONFIGURATION]["batch_size"] = order["batch_size"]
    dataset = json.loads((preprocessed / "dataset.json").read_text(encoding="utf-8"))
    torch.manual_seed(derive_seed(order["seed"], "backbone"))
    kind = _stage_trainer(base, order)
    trainer = kind(plans, CONFIGURATION, 0, dataset, torch.device(order["device"]))
    state = resume_from(Path(order["checkpoint"]))
    if state is not None:
        trainer.go_on(state)
    trainer.run_training()
    network: Any = getattr(trainer.network, "_orig_mod", trainer.network)
    host = NnunetUNet(network.cpu(), n_channels=order["n_channels"])
    save_checkpoint(Path(order["weights"]), host.state_dict())
    _write(Path(order["curve"]), _curve(trainer))


def _stage_trainer(base: type, order: dict[str, Any]) -> Any:  # noqa: ANN401 - nnU-Net has no types
    """A trainer of nnU-Net with the stage's length, seed, checkpoint and progress."""
    checkpoint = Path(order["checkpoint"])

    class StageTrainer(base):  # type: ignore[misc]
        # The base reads the names of these arguments.
        def __init__(  # type: ignore[no-untyped-def]
            self,
            plans,  # noqa: ANN001
            configuration,  # noqa: ANN001
            fold,  # noqa: ANN001
            dataset_json,  # noqa: ANN001
            device,  # noqa: ANN001
        ) -> None:
            super().__init__(plans, configuration, fold, dataset_json, device)
            self.num_epochs = order["epochs"]
            self.num_iterations_per_epoch = order["steps_per_epoch"]
            self.num_val_iterations_per_epoch = order["validation_steps"]
            self.save_every = order["checkpoint_every_epochs"]
            self.logger.plot_progress_png = _plot_nothing

        def on_epoch_start(self) -> None:
            """Draw from the seed and the epoch alone, where augmentation has no processes."""
            seed = derive_seed(order["seed"], "nnunet", self.current_epoch)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - what batchgenerators draws from
            torch.manual_seed(seed)
            super().on_epoch_start()

        def on_epoch_end(self) -> None:
            """Report the epoch."""
            super().on_epoch_end()
            entry = _curve(self)[-1]
            line = {
                "epoch": self.current_epoch,
                "n_epochs": self.num_epochs,
                "loss": entry["train_loss"],
                "validation_dice": entry["validation_dice"],
            }
            with Path(order["progress"]).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

        def save_checkpoint(self, filename: str) -> None:
            """Keep the newest checkpoint alone, without pickle, where the next attempt looks."""
            if Path(filename).name != "checkpoint_latest.pth":
                return
            scaler = self.grad_scaler
            network, optimiser = self._stateful()
            state = {
                "network": network.state_dict(),
                "optimiser": optimiser.state_dict(),
                "scaler": {} if scaler is None else scaler.state_dict(),
                "log": _plain(self.logger.get_checkpoint()),
                "best_ema": _plain(self._best_ema),
                "epoch": self.current_epoch + 1,
            }
            save_checkpoint(checkpoint, state)

        def _stateful(self) -> tuple[Any, Any]:
            return getattr(self.network, "_orig_mod", self.network), self.optimizer

        def go_on(self, state: dict[str, Any]) -> None:
            """Take up the checkpoint."""
            self.initialize()
            network, optimiser = self._stateful()
            network.load_state_dict(state["network"])
            optimiser.load_state_dict(state["optimiser"])
            if self.grad_scaler is not None and state["scaler"]:
                self.grad_scaler.load_state_dict(state["scaler"])
            self.logger.load_checkpoint(state["log"])
            self._best_ema, self.current_epoch = state["best_ema"], state["epoch"]

    return StageTrainer


def _curve(trainer: Any) -> list[dict[str, float]]:  # noqa: ANN401 - nnU-Net has no types
    """One entry per epoch; validation Dice is nnU-Net's, over patches of validation patients."""
    logged = trainer.logger.my_fantastic_logging
    rows = zip(
        logged["train_losses"],
        logged["mean_fg_dice"],
        logged["lrs"],
        logged["epoch_start_timestamps"],
        logged["epoch_end_timestamps"],
        strict=False,
    )
    return [
        {
            "epoch": epoch,
            "train_loss": float(loss),
            "validation_dice": float(dice),
            "learning_rate": float(rate),
            "seconds": float(end - start),
            "ended_at": float(end),
        }
        for epoch, (loss, dice, rate, start, end) in enumerate(rows)
    ]


def _plot_nothing(folder: str) -> None:
    """In the place of a picture of every epoch that takes seconds; the stage keeps the curve."""


def _plain(value: Any) -> Any:  # noqa: ANN401 - a log of nnU-Net
    """NumPy's numbers as Python's."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def _write(path: Path, value: object) -> None:
    # nnU-Net reads most of these, and knows nothing of checksums.
    write_text(path, json.dumps(value, indent=1))


def _end_with_the_input() -> None:
    """End this process when the one that started it closes the input, or is gone."""

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(_INPUT_CLOSED)

    threading.Thread(target=watch, daemon=True).start()


def main(path: Path) -> None:
    """Run the command of an order."""
    order = from_json(path.read_bytes(), dict)
    _end_with_the_input()
    torch.set_num_threads(max(1, int(os.environ["nnUNet_def_n_proc"])))
    {"plan": plan, "train": train}[order["command"]](order)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

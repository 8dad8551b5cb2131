"""The one training loop of backbones and discrete cells: Adam, cosine, best validation checkpoint.

It can be stopped after any step and goes on from its checkpoint with the same result, bit for bit
on a CPU: the order of slices follows from seed and epoch, and everything else is in the
checkpoint.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iac_core.checkpoint import resume_from, save_checkpoint
from iac_core.config import AugmentationSettings, PretrainSettings, RetrainSettings
from iac_core.data.slices import PreparedData
from iac_core.data.splits import Split
from iac_core.errors import NotFiniteError, StopRequested
from iac_core.seeding import derive_seed, numpy_generator
from iac_core.training.batches import (
    autocast,
    epoch_order,
    load_view,
    micro_batches,
    n_steps_per_epoch,
)
from iac_core.training.losses import segmentation_loss
from iac_core.training.validation import validation_dice
from iac_core.types import Reporter


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRoom:
    """Where a training stage works.

    Attributes:
        data: Prepared slices.
        split: Patients of each part.
        device: Device of the network.
        checkpoint_path: Checkpoint to go on from if it exists, and to write.
        reporter: Told of every epoch, asked at every step whether to stop.
        augmentation: Random views of the training slices.
        n_micro_batches: Parts that each batch is cut into where a whole one does not fit into the
            device's memory: gradients of the parts, each weighted by its share of the slices, are
            added up before the one step. Number of steps, order of slices and learning rates stay.
            The gradient is that of the whole batch, to rounding, only for losses that are means
            over slices and networks that treat slices one by one; soft Dice sums over the part
            instead of the batch, and batch norm sees the part's statistics (and moves its running
            ones once per part), so that a training that was cut is a slightly different one.
    """

    data: PreparedData
    split: Split
    device: torch.device
    checkpoint_path: Path
    reporter: Reporter
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    n_micro_batches: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterGroup:
    """Parameters that share a learning rate at the start of the cosine."""

    parameters: Sequence[nn.Parameter]
    learning_rate: float


@dataclass(slots=True, kw_only=True)
class FitResult:
    """What a training leaves.

    Attributes:
        state: State of the network at its best validation epoch, on the CPU.
        best_epoch: That epoch, from 0; -1 is the starting state.
        best_dice: Its validation Dice.
        start_dice: Validation Dice of the starting state; None where it was not asked for.
        curve: One entry per epoch: ``epoch``, ``train_loss``, ``validation_dice`` (NaN where not
            computed), ``learning_rate``, ``seconds``, ``ended_at`` (seconds since 1970).
    """

    state: dict[str, Tensor]
    best_epoch: int
    best_dice: float
    start_dice: float | None = None
    curve: list[dict[str, float]] = field(default_factory=list)


def cosine(start: float, end: float, share_done: float) -> float:
    """Return the learning rate when a share of the training is done.

    Examples:
        >>> round(cosine(1.0, 0.0, 0.5), 3)
        0.5
    """
    return end + (start - end) * (1 + math.cos(math.pi * share_done)) / 2


def trained_state(network: nn.Module, frozen_prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Return a CPU copy of the state without its frozen parts."""
    return {
        name: value.detach().cpu().clone()
        for name, value in network.state_dict().items()
        if not name.startswith(frozen_prefixes)
    }


def check_finite(loss: float, *, epoch: int) -> None:
    """Stop a training whose loss is no longer a number.

    Raises:
        NotFiniteError: If the loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise NotFiniteError(
            f"the mean loss of an epoch must be finite, got {loss} in epoch {epoch}; "
            "lower the learning rate, or let doctor look at the data"
        )


def evaluation_mode(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Return a predictor that runs the network in evaluation mode and puts its mode back."""

    def predict(images: Tensor) -> Tensor:
        was_training = network.training
        network.eval()
        try:
            logits: Tensor = network(images)
        finally:
            network.train(was_training)
        return logits

    return predict


def fit(
    network: nn.Module,
    groups: Iterable[ParameterGroup],
    room: TrainingRoom,
    settings: PretrainSettings | RetrainSettings,
    *,
    seed: int,
    purpose: str,
    frozen_prefixes: tuple[str, ...] = (),
    scores_start: bool = False,
) -> FitResult:
    """Train all epochs and return the state of the best validation epoch.

    Args:
        network: The network, on the device of the room; its `train` keeps frozen parts as they
            are.
        groups: What is trained, at which rates.
        room: Data, split, device, checkpoint and reporter.
        settings: Epochs, batch size and rates.
        seed: The job's seed.
        purpose: Name of the stage; it separates the random orders of stages.
        frozen_prefixes: Names in the state dict that start so are not kept.
        scores_start: Whether the starting state is scored, and kept if no epoch is better.

    Raises:
        NotFiniteError: If the loss is not finite.
        StopRequested: If the user asked to stop; the checkpoint is written.
    """
    run = _Fit(network, list(groups), room, settings, seed, purpose, frozen_prefixes)
    run.load()
    if scores_start and run.result.start_dice is None:
        run.score_start()
    for epoch in range(run.epoch, settings.epochs):
        run.train_epoch(epoch)
    return run.result


class _Fit:
    """State of one training; see `fit`."""

    def __init__(
        self,
        network: nn.Module,
        groups: list[ParameterGroup],
        room: TrainingRoom,
        settings: PretrainSettings | RetrainSettings,
        seed: int,
        purpose: str,
        frozen_prefixes: tuple[str, ...],
    ) -> None:
        self.network = network
        self.room = room
        self.settings = settings
        self.seed = seed
        self.purpose = purpose
        self.frozen_prefixes = frozen_prefixes
        self.rates = [group.learning_rate for group in groups]
        self.optimiser = torch.optim.Adam(
            [{"params": list(group.parameters)} for group in groups], lr=0.0
        )
        self.indices = room.data.slice_indices(room.split.train, for_training=True)
        self.n_steps = n_steps_per_epoch(
            len(self.indices), settings.batch_size, settings.steps_per_epoch
        )
        self.epoch, self.step, self.seconds = 0, 0, 0.0
        self.loss_sum = torch.zeros((), device=room.device)
        self.result = FitResult(state={}, best_epoch=-1, best_dice=-1.0)

    def score_start(self) -> None:
        """Score the starting state: the first candidate for what is kept."""
        self.result.start_dice = self._score(-1)

    def train_epoch(self, epoch: int) -> None:
        """Run the remaining steps of an epoch, validate, and keep the best state."""
        devices = [self.room.device] if self.room.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            self._train_epoch(epoch)

    def _train_epoch(self, epoch: int) -> None:
        started = time.perf_counter()
        self.epoch = epoch
        self.network.train()
        for images, labels in self._remaining_batches(started):
            rate = self._set_learning_rates()
            # Of dropout and its kin, which draw from torch's own generators.
            torch.manual_seed(derive_seed(self.seed, self.purpose, "dropout", epoch, self.step))
            self.optimiser.zero_grad(set_to_none=True)
            for part in micro_batches(len(labels), self.room.n_micro_batches):
                with autocast(self.room.device, self.settings.precision):
                    logits = self.network(images[part])
                share = (part.stop - part.start) / len(labels)
                loss = share * segmentation_loss(logits, labels[part])
                loss.backward()
                self.loss_sum += loss.detach()
            self.optimiser.step()
            self.step += 1
        train_loss = float(self.loss_sum) / self.n_steps
        check_finite(train_loss, epoch=epoch)
        dice = self._validate(epoch)
        self.seconds += time.perf_counter() - started
        self.result.curve.append(
            {
                "epoch": epoch,
                "train_loss": train_loss,
                "validation_dice": dice,
                "learning_rate": rate,
                "seconds": self.seconds,
                "ended_at": time.time(),
            }
        )
        self.epoch, self.step, self.seconds = epoch + 1, 0, 0.0
        self.loss_sum.zero_()
        self.room.reporter.progress(
            epoch=epoch + 1,
            n_epochs=self.settings.epochs,
            loss=train_loss,
            validation_dice=dice,
            validation_curve=[
                (int(entry["epoch"]) + 1, entry["validation_dice"])
                for entry in self.result.curve
                if not math.isnan(entry["validation_dice"])
            ],
        )
        if (epoch + 1) % self.settings.checkpoint_every_epochs == 0:
            self.save()

    def load(self) -> None:
        """Go on from the checkpoint if there is one."""
        saved = resume_from(self.room.checkpoint_path)
        if saved is None:
            return
        self.network.load_state_dict(saved["network"], strict=not self.frozen_prefixes)
        self.optimiser.load_state_dict(saved["optimiser"])
        self.epoch, self.step, self.seconds = saved["epoch"], saved["step"], saved["seconds"]
        self.loss_sum = saved["loss_sum"].to(self.room.device)
        self.result = FitResult(**saved["result"])

    def save(self) -> None:
        """Write everything the rest of the training depends on."""
        result: dict[str, Any] = {
            name: getattr(self.result, name)
            for name in ("state", "best_epoch", "best_dice", "start_dice", "curve")
        }
        save_checkpoint(
            self.room.checkpoint_path,
            {
                "network": trained_state(self.network, self.frozen_prefixes),
                "optimiser": self.optimiser.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds,
                "loss_sum": self.loss_sum.cpu(),
                "result": result,
            },
        )

    def _remaining_batches(self, started: float) -> Iterator[tuple[Tensor, Tensor]]:
        generator = numpy_generator(self.seed, self.purpose, "order", self.epoch)
        order = epoch_order(self.indices, self.settings.batch_size, self.n_steps, generator)
        for step in range(self.step, self.n_steps):
            if self.room.reporter.should_stop():
                self.seconds += time.perf_counter() - started
                self.save()
                raise StopRequested(f"{self.purpose} stopped in epoch {self.epoch}")
            yield load_view(
                self.room.data,
                order[step],
                self.room.device,
                self.room.augmentation,
                numpy_generator(self.seed, self.purpose, "views", self.epoch, step),
            )

    def _set_learning_rates(self) -> float:
        total = self.settings.epochs * self.n_steps
        share_done = (self.epoch * self.n_steps + self.step) / total
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            end = min(rate, self.settings.min_learning_rate)
            group["lr"] = cosine(rate, end, share_done)
        return float(self.optimiser.param_groups[0]["lr"])

    def _validate(self, epoch: int) -> float:
        is_last = epoch + 1 == self.settings.epochs
        if not is_last and (epoch + 1) % self.settings.validate_every_epochs:
            return math.nan
        return self._score(epoch)

    def _score(self, epoch: int) -> float:
        """Validation Dice of the network as it is; it is kept if it is the best so far."""
        dice = validation_dice(
            evaluation_mode(self.network),
            self.room.data,
            self.room.split.validation,
            batch_size=max(1, self.settings.batch_size // self.room.n_micro_batches),
            device=self.room.device,
        )
        if dice > self.result.best_dice or not self.result.state:
            self.result.best_dice, self.result.best_epoch = dice, epoch
            self.result.state = trained_state(self.network, self.frozen_prefixes)
        return dice

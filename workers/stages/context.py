"""What a stage gets to work with: its task, its folder, the stages it builds on, its device."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from iac_core.checkpoint import load_checkpoint
from iac_core.data.slices import PreparedData
from iac_core.data.splits import Split, SplitFileError, make_split
from iac_core.errors import DataError
from iac_core.training.fit import TrainingRoom
from iac_core.types import Reporter
from workers.stage_record import DamagedStageError, StageRecord
from workers.stage_store import CHECKPOINT, StageStore
from workers.stages.files import SPLIT, WEIGHTS
from workers.task import Parent, StageTask


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """What a stage works with.

    Attributes:
        task: What to compute.
        folder: Where its files go; holds the checkpoint of an earlier attempt, if there was one.
        store: Where the stages it builds on are.
        device: Device to compute on.
        is_exclusive: Whether the stage has its device to itself.
        reporter: Told of progress, asked whether to stop.
        n_micro_batches: Parts that each batch is cut into, for want of GPU memory.
    """

    task: StageTask
    folder: Path
    store: StageStore
    device: torch.device
    is_exclusive: bool
    reporter: Reporter
    n_micro_batches: int = 1

    def parent(self, role: str) -> Path:
        """Return the folder of a stage that this one builds on.

        Raises:
            DamagedStageError: If the stage is not whole, or a file is not as it was written.
        """
        parent = self._parent(role)
        self.record(role)
        return self.store.folder(parent.kind, parent.key)

    def record(self, role: str) -> StageRecord:
        """Return the manifest of a stage that this one builds on.

        Raises:
            DamagedStageError: If the stage is not whole.
        """
        parent = self._parent(role)
        record = self.store.record(parent.kind, parent.key)
        if record is None:
            raise self.store.damaged(parent.kind, parent.key, "it has no whole manifest")
        return record

    @contextmanager
    def reading(self, role: str) -> Iterator[Path]:
        """Read files of a stage that this one builds on: what is wrong with them is its fault.

        Only the files of older versions, which have no checksums, can fail in here.

        Raises:
            DamagedStageError: If a file cannot be read.
        """
        folder, parent = self.parent(role), self._parent(role)
        try:
            yield folder
        except DamagedStageError:
            raise
        except (DataError, SplitFileError, FileNotFoundError) as error:
            reason = str(error).splitlines()[0]
            raise self.store.damaged(parent.kind, parent.key, reason) from error

    def data(self) -> PreparedData:
        """Open the prepared slices; CT is normalised by the split's training patients."""
        with self.reading("prepare") as folder:
            data = PreparedData.open(folder)
        return data.with_ct_of(self.split(data).train)

    def weights(self, role: str) -> dict[str, Any]:
        """Return the trained weights of a stage that this one builds on."""
        with self.reading(role) as folder:
            return load_checkpoint(folder / WEIGHTS)

    def split(self, data: PreparedData) -> Split:
        """Return the split of the job, the saved one where a pre-training saved it."""
        if self.task.parent("pretrain") is not None:
            with self.reading("pretrain") as folder:
                return Split.load(folder / SPLIT)
        return make_split(data.patients, self.task.job.settings.split, data.official_test)

    def training_room(self, data: PreparedData, split: Split) -> TrainingRoom:
        """Return what the training functions need."""
        return TrainingRoom(
            data=data,
            split=split,
            device=self.device,
            checkpoint_path=self.folder / CHECKPOINT,
            reporter=self.reporter,
            augmentation=self.task.job.settings.augmentation,
            n_micro_batches=self.n_micro_batches,
        )

    def _parent(self, role: str) -> Parent:
        parent = self.task.parent(role)
        assert parent is not None, f"{self.task.kind} has no parent {role}"
        return parent

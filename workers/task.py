"""One stage to compute: everything that a worker needs, and its key."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iac_core.config import DatasetOptions
from iac_core.data import open_dataset
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.types import SegmentationDataset
from workers.job import Job

Outcome = Mapping[str, Any]
"""What a stage returns: small plain values for its manifest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """The data folder of a dataset.

    Attributes:
        layout: Reader of the folder.
        path: The folder, as a worker sees it; not part of any key.
        options: What of it is used.
        fingerprint: Of its content; empty if the folder is not at hand, keys are provisional then.
        max_volume_gib: Largest volume file that is read, GiB in memory; not part of any key.
    """

    layout: str
    path: str
    fingerprint: str
    options: DatasetOptions = field(default_factory=DatasetOptions)
    max_volume_gib: float = MAX_VOLUME_GIB

    def open(self) -> SegmentationDataset:
        """Return the reader of the folder."""
        return open_dataset(
            self.layout, Path(self.path), self.options, max_volume_gib=self.max_volume_gib
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """A stage that another one builds on.

    Attributes:
        role: What it is to the other: two parents of one kind have two roles.
        kind: Its kind.
        key: Its key.
        is_in_key: Whether the other's key holds it; if not, it follows from the parents that are.
    """

    role: str
    kind: str
    key: str
    is_in_key: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTask:
    """One stage to compute: everything a worker needs, and its key.

    Attributes:
        role: What it is to its job; two stages of one kind have two roles.
        kind: Kind of stage.
        key: Hash of `settings`, first 16 hexadecimal digits.
        settings: Everything that can change the result, as plain values.
        parents: The stages that it builds on.
        job: A job that needs it, with the settings that the stage has in it; the others that share
            it agree in all of `settings`.
        owner: That job, as the sweep has it.
        source: The data folder.
        has_cells: Whether the network of the job ends with cells.
        genotype: JSON of the cells to retrain; empty for a backbone without cells.
    """

    role: str
    kind: str
    key: str
    settings: Mapping[str, Any]
    parents: tuple[Parent, ...]
    job: Job
    owner: Job
    source: DataSource
    has_cells: bool
    genotype: str = ""

    @property
    def id(self) -> tuple[str, str]:
        """Kind and key."""
        return self.kind, self.key

    def parent(self, role: str) -> Parent | None:
        """Return the stage that plays a role for this one, or None."""
        return next((parent for parent in self.parents if parent.role == role), None)

    def names(self) -> dict[str, Any]:
        """Return what the sweep calls the job, for people and for estimates; in no key."""
        job = self.job
        return {
            "dataset": job.dataset,
            "backbone": job.backbone,
            "pruner": job.pruner,
            "has_cells": self.has_cells,
            "size": job.settings.prepare.size,
        }

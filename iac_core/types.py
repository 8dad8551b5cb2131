"""Protocols and small value classes that the parts of the core share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy import ndarray

from iac_core.config import SearchPace
from iac_core.errors import Problem

Intensity = Literal["mr", "mr_masked", "ct"]
"""What intensities mean: arbitrary units, the same about a background of exact zeros
(skull-stripped brains), Hounsfield units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDescription:
    """What holds for every volume of a data set.

    Attributes:
        label_values: Every value a label file may hold, ascending, background first. Networks
            predict indices into this tuple.
        classes: What is scored: name → the label values that make it up. Classes may overlap.
        channels: Names of the image channels.
        reorients: Whether volumes are turned to the closest canonical orientation before they are
            cut into slices; False keeps the file's axes and cuts along its last one, as suits
            short-axis cardiac images.
        flip_axes: Axes of a slice along which it may be mirrored, ``rows`` and ``columns``. Rows
            run from left to right where volumes are reoriented.
        known_faults: Patient → what its publishers or users found wrong with it.
        side_files: Files below the root, beside images and labels, that the reader uses.
    """

    label_values: tuple[int, ...]
    classes: Mapping[str, tuple[int, ...]]
    channels: tuple[str, ...]
    reorients: bool
    flip_axes: tuple[str, ...] = ("rows", "columns")
    known_faults: Mapping[str, str] = field(default_factory=dict)
    side_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRef:
    """One labelled volume of one patient, not loaded yet.

    Attributes:
        patient_id: Patient, the unit of splits and scores.
        volume_id: Volume, unique in the data set (``patient001_frame01``).
        image_paths: One file per channel, or one file with all channels along its fourth axis.
        label_path: Label file.
        phase: What the volume shows (``ED``, ``ES``), empty if the data set has one per patient.
        intensity: What its intensities mean.
        is_official_test: Whether the publishers set it aside for testing.
    """

    patient_id: str
    volume_id: str
    image_paths: tuple[Path, ...]
    label_path: Path
    phase: str = ""
    intensity: Intensity = "mr"
    is_official_test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """An image with its expert labels in the file's own axis order.

    Attributes:
        image: Intensities, shape ``(C, X, Y, Z)``, float32.
        labels: Label values as the file has them, shape ``(X, Y, Z)``, uint8.
        spacing_mm: Voxel edge lengths along X, Y and Z.
        affine: Voxel indices to millimetres, shape ``(4, 4)``, float64.
        warnings: What its files hold that may not be meant.
    """

    image: Float[ndarray, "c x y z"]
    labels: Integer[ndarray, "x y z"]
    spacing_mm: tuple[float, float, float]
    affine: Float[ndarray, "4 4"]
    warnings: tuple[Problem, ...] = ()


@runtime_checkable
class SegmentationDataset(Protocol):
    """A folder of labelled volumes in a known layout."""

    @property
    def description(self) -> DatasetDescription:
        """What holds for every volume.

        Raises:
            DataError: If the folder says it in a file that cannot be used.
        """
        ...

    def volumes(self) -> tuple[VolumeRef, ...]:
        """Return every labelled volume, ordered by patient, then volume.

        Raises:
            DataError: If the folder is not of this layout; an `IncompleteFolderError` if some of
                its volumes can be used.
        """
        ...

    def load(self, ref: VolumeRef) -> Volume:
        """Read one volume.

        Raises:
            DataError: If a file cannot be read, or image and labels do not fit each other.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """What the value of a mask of operations is measured on.

    Attributes:
        n_slices: At most so many validation slices, drawn evenly over patients and the classes
            that slices show.
        draw: Number of the draw; equal numbers give equal slices.
        measure: Mean foreground Dice of the slices taken together, or the negative training loss.
    """

    n_slices: int = 256
    draw: int = 0
    measure: Literal["dice", "negative_loss"] = "dice"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaEvidence:
    """What the gradients of alpha and beta have said so far: read-only arrays, float64.

    Gradients are those of the loss, without any decay, summed over architecture steps. Sums and
    products of operations keep what an operation had when it was removed.

    Attributes:
        n_steps: Architecture steps so far.
        gradient_sum: Σ g of alpha, shape ``(levels, edges, ops)``; negative is in favour.
        gradient_products: Σ g_o g_p over an edge's operations, ``(levels, edges, ops, ops)``.
        edge_gradient_sum: Σ g of beta, shape ``(levels, edges)``.
        edge_gradient_products: Σ g_e g_f of beta over edges, ``(levels, edges, edges)``.
        bound: What evidence must exceed; see `iac_core.pruners.evidence.evidence_bound`.
        alive_since: Architecture step of the look that found an edge alive, -1 if none has,
            int64, shape ``(levels, edges)``.
    """

    n_steps: int
    gradient_sum: Float[ndarray, "levels edges ops"]
    gradient_products: Float[ndarray, "levels edges ops ops"]
    edge_gradient_sum: Float[ndarray, "levels edges"]
    edge_gradient_products: Float[ndarray, "levels edges edges"]
    bound: float
    alive_since: Integer[ndarray, "levels edges"]

    @property
    def is_alive(self) -> Bool[ndarray, "levels edges"]:
        """Which edges are alive."""
        alive: ndarray = self.alive_since >= 0
        return alive

    @property
    def live_edge_share(self) -> float:
        """Share of the edges that are alive."""
        return float(self.is_alive.mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchState:
    """What an operation pruner may see after an epoch: read-only arrays, never the network.

    ``levels`` is 1 when all skip levels share one architecture.

    Attributes:
        epoch: Index of the epoch that has just ended, from 0.
        n_epochs: Length of the full search.
        alpha: Logits of operations, shape ``(levels, edges, ops)``.
        beta: Logits of edges, shape ``(levels, edges)``.
        importance: Softmax of alpha over the active operations of an edge, 0 where inactive, same
            shape as alpha.
        active: Which operations are still in the graph, bool, same shape as alpha.
        operations: Names of the operations, length ``ops``.
        edges: ``(source, target)`` of every edge; sources 0 and 1 are the cell's inputs, so the
            first intermediate node is 2.
        alpha_history: Alpha after every epoch so far, this one included, shape
            ``(epochs, levels, edges, ops)``.
        beta_history: Beta likewise, shape ``(epochs, levels, edges)``.
        evidence: What the gradients of alpha and beta have said so far.
        first_alpha_epoch: First epoch with architecture steps.
        max_alpha_step_per_epoch: Learning rate of alpha × steps of this epoch: about the most that
            Adam can move a logit in an epoch.
        seed: The job's seed, for whatever a pruner draws.
        n_slices_trained: Slices that weight and architecture steps have passed forward and
            backward so far.
        n_scoring_slices: Validation slices there are to score masks on.
        values_of: Values of many masks at once, ``(n, levels, edges, ops)`` bool → ``(n,)``: how
            good the supernet is on validation slices when only the masked operations contribute.
            Costs n × slices forward passes.
        dominant_eigenvalue: Eigenvalue of largest size of the Hessian of the loss in alpha, on a
            fixed batch of the slices that train alpha. Costs some dozen backward passes.
    """

    epoch: int
    n_epochs: int
    alpha: Float[ndarray, "levels edges ops"]
    beta: Float[ndarray, "levels edges"]
    importance: Float[ndarray, "levels edges ops"]
    active: Bool[ndarray, "levels edges ops"]
    operations: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    alpha_history: Float[ndarray, "epochs levels edges ops"]
    beta_history: Float[ndarray, "epochs levels edges"]
    evidence: AlphaEvidence
    first_alpha_epoch: int
    max_alpha_step_per_epoch: float
    seed: int
    n_slices_trained: int
    n_scoring_slices: int
    values_of: Callable[[Bool[ndarray, "n levels edges ops"], Scoring], Float[ndarray, " n"]]
    dominant_eigenvalue: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why something was removed, or why the search stops.

    Attributes:
        rule: Name of the rule that fired.
        value: The number it compared.
        threshold: What it was compared with.
        level: Skip level, 0 if the architecture is shared; -1 if it concerns the whole search.
        edge: Edge, -1 if it concerns no single edge.
        operations: Names of the operations removed.
    """

    rule: str
    value: float = float("nan")
    threshold: float = float("nan")
    level: int = -1
    edge: int = -1
    operations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What an operation pruner decides after an epoch.

    Attributes:
        keep: Operations that stay, shape ``(levels, edges, ops)``, a subset of the active ones.
        stop: Whether the search ends now.
        reasons: One entry for each edge that loses operations, and one for the stop.
        measures: Numbers to keep in the trajectory, each ``(levels, edges)``: ``jsd`` of an edge's
            operations, ``beta_jsd`` of the edges into its node.
        genotype_epoch: Epoch whose logits give the genotype, with a stop; None is the last.
    """

    keep: Bool[ndarray, "levels edges ops"]
    stop: bool = False
    reasons: tuple[Reason, ...] = ()
    measures: Mapping[str, np.ndarray] = field(default_factory=dict)
    genotype_epoch: int | None = None


@runtime_checkable
class OperationPruner(Protocol):
    """Removes candidate operations inside a search.

    The constructor takes an instance of `Settings`, a frozen dataclass.

    Attributes:
        pace: How the epochs of the search are to be run; `SearchPace()` changes nothing.
        needs_evidence: Whether decisions read the state's `evidence`.
    """

    Settings: ClassVar[type]

    @property
    def needs_evidence(self) -> bool:
        """Whether decisions read the state's `evidence`, which older records lack."""
        ...

    @property
    def pace(self) -> SearchPace:
        """How the epochs of the search are to be run."""
        ...

    def decide(self, state: SearchState) -> Decision:
        """Say after an epoch which operations stay, whether to stop, and why."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what the next decision depends on beside the state: plain numbers and lists."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state that `state_dict` returned."""
        ...


Reported = float | Sequence[tuple[int, float]]
"""A number of an epoch, or ``(epochs that had ended, number)`` of all epochs that have one."""


@runtime_checkable
class Reporter(Protocol):
    """What a stage tells the outside while it runs, and asks of it."""

    def progress(self, *, epoch: int, n_epochs: int, **values: Reported) -> None:
        """Report an epoch that has ended, with named numbers (loss, operations left …)."""
        ...

    def should_stop(self) -> bool:
        """Return whether the user asked to stop; asked at every step."""
        ...


class SilentReporter:
    """Reports nothing and never stops."""

    def progress(self, *, epoch: int, n_epochs: int, **values: Reported) -> None:
        """Do nothing."""

    def should_stop(self) -> bool:
        """Return False."""
        return False


Curve = Sequence[Mapping[str, float]]
"""One mapping per epoch: ``epoch``, ``train_loss``, ``validation_dice``, ``seconds`` …"""

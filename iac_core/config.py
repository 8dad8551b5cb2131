"""Settings of every stage: frozen dataclasses whose ranges are checked on construction.

Everything here is part of a stage's key, so a new field changes keys; a field that cannot change a
result does not belong here. Row numbers are those of the reimplementation notes' table of choices:
what the papers do not state is "our choice".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from iac_core.errors import ConfigError
from iac_core.ranges import MOST_LEVELS, largest

_FORBID_UNKNOWN: dict[str, Any] = {"extra": "forbid"}
_MOST_SHOWN = 200
_COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
_SMALLEST_SPACING_MM = 0.01

OPERATION_NAMES: tuple[str, ...] = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""Candidate operations of PC-DARTS, all with stride 1 (row 4)."""

CellForm = Literal["replace", "added", "residual"]
AlphaOptimiser = Literal["adamw", "adam_l2"]
RetrainScope = Literal["cell", "cell_and_decoder", "all"]
Normalisation = Literal["modality", "zscore", "zscore_nonzero", "ct"]
Subset = Literal["validation", "test"]
Precision = Literal["float32", "bfloat16"]


def require(condition: bool, rule: str, value: object) -> None:
    """Raise a `ConfigError` that states the rule and the value unless the condition holds.

    Examples:
        >>> require(0 >= 1, "window_epochs must be at least 1", 0)
        Traceback (most recent call last):
        iac_core.errors.ConfigError: window_epochs must be at least 1, got 0
    """
    if not condition:
        shown = repr(value)
        cut = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}…"
        raise ConfigError(rule, value=cut)


def require_at_least(minimum: float, **values: float | None) -> None:
    """Raise a `ConfigError` for the first value that is not from the minimum to its largest.

    `iac_core.ranges.largest` has the upper ends; what is not a finite number is refused; None
    passes.

    Examples:
        >>> require_at_least(1, epochs=2**70)
        Traceback (most recent call last):
        iac_core.errors.ConfigError: epochs must be at most 1000000, got 1180591620717411303424
    """
    for name, value in values.items():
        if value is not None:
            require(value >= minimum, f"{name} must be at least {_number(minimum)}", value)
            _require_not_above_largest(name, value)


def require_positive(**values: float | None) -> None:
    """Raise a `ConfigError` for the first value that is not above zero, or above its largest.

    None passes.
    """
    for name, value in values.items():
        if value is not None:
            require(value > 0, f"{name} must be above 0", value)
            _require_not_above_largest(name, value)


def require_levels(minimum: int, *, at_least: int, **values: Sequence[int]) -> None:
    """Raise a `ConfigError` unless every list names enough levels, each within its range.

    Args:
        minimum: Smallest entry.
        at_least: Smallest number of entries; the largest is `iac_core.ranges.MOST_LEVELS`.
        **values: Setting → its entries.
    """
    for name, value in values.items():
        few = f"{name} must name at least {_COUNTS.get(at_least, at_least)} levels"
        require(len(value) >= at_least, few, value)
        require(len(value) <= MOST_LEVELS, f"{name} must name at most {MOST_LEVELS} levels", value)
        for entry in value:
            require_at_least(minimum, **{name: entry})


def _require_not_above_largest(name: str, value: float) -> None:
    end = largest(name)
    require(value <= end, f"{name} must be at most {_number(end)}", value)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOptions:
    """What of a data folder is used, and which of its volumes belong to one patient.

    Attributes:
        leave_out: Patients not to use; ``known_faults`` stands for all that the layout lists.
        patient_pattern: Regular expression with one group that finds the patient in a volume's
            name; None leaves it to the layout.
    """

    leave_out: tuple[str, ...] = ()
    patient_pattern: str | None = None

    def __post_init__(self) -> None:
        if self.patient_pattern is None:
            return
        try:
            is_short = len(self.patient_pattern) <= _MOST_SHOWN
            n_groups = re.compile(self.patient_pattern).groups if is_short else 0
        except (re.error, RecursionError, OverflowError):
            n_groups = 0
        require(
            n_groups == 1,
            "patient_pattern must be a regular expression with one group, at most "
            f"{_MOST_SHOWN} letters",
            self.patient_pattern,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareSettings:
    """How volumes become slices of one size (row 13; the fixed spacing is our choice).

    Attributes:
        size: Rows and columns of a slice after cropping or padding about the centre, in pixels.
        spacing_mm: In-plane edge length of a pixel after resampling; through-plane is untouched.
        clip_percentiles: Intensities are clipped to these, then centred and scaled.
        normalisation: ``modality`` takes ``ct`` for CT, ``zscore_nonzero`` for skull-stripped MR,
            ``zscore`` for other MR. ``zscore`` takes percentiles, mean and deviation of the whole
            volume; ``zscore_nonzero`` of its voxels that are not 0, the others stay 0; ``ct`` of
            the foreground of the split's training patients.
        background_share: Share of the slices without foreground that training uses, in [0, 1];
            validation and test always use every slice.
        n_neighbours: Slices above and below that are further channels (2.5-D); at the ends of a
            volume its last slice is repeated.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    size: int = 128
    spacing_mm: float = 1.5
    clip_percentiles: tuple[float, float] = (0.5, 99.5)
    normalisation: Normalisation = "modality"
    background_share: float = 0.1
    n_neighbours: int = 0

    def __post_init__(self) -> None:
        require_at_least(16, size=self.size)
        require_at_least(0, n_neighbours=self.n_neighbours)
        # A finer grid than that of any scanner would only fill the memory.
        require_at_least(_SMALLEST_SPACING_MM, spacing_mm=self.spacing_mm)
        low, high = self.clip_percentiles
        require(0 <= low < high <= 100, "clip_percentiles must rise within 0 to 100", (low, high))
        require(
            0 <= self.background_share <= 1,
            "background_share must be within 0 to 1",
            self.background_share,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitSettings:
    """Which patients are train, validation and test: a patient-level k-fold, or a file (row 12).

    Attributes:
        n_folds: Patients are dealt into this many folds; fold `fold` is the test part.
        fold: Index of the test fold, from 0.
        validation_share: Share of the other patients that validate. The default with 5 folds gives
            70/10/20 per cent.
        validation: Which of the other patients validate. ``first``: the first `validation_share`
            of them in the dealt order, so nearly the same few patients in every fold.
            ``next_fold``: those of fold (`fold` + 1) mod `n_folds`, so that over all folds every
            patient validates exactly once; this needs at least 3 folds, `validation_share` is
            ignored and in no key.
        seed: Seed of the dealing; not the job's seed.
        n_train_patients: Keep only the first this many training patients (scarce-data studies).
        test: ``fold``, or ``official``: the part that the publishers of the data set aside where
            there is one, else the fold. With an official part the folds rotate the validation
            patients among the others, with ``next_fold`` too: only the others are dealt, and
            those of every fold but the validating one train.
        file: JSON file ``{"train": [...], "validation": [...], "test": [...]}`` of patient ids
            that replaces the folds.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    n_folds: int = 5
    fold: int = 0
    validation_share: float = 0.125
    validation: Literal["first", "next_fold"] = "first"
    seed: int = 0
    n_train_patients: int | None = None
    test: Literal["fold", "official"] = "fold"
    file: str | None = None

    def __post_init__(self) -> None:
        require_at_least(2, n_folds=self.n_folds, n_train_patients=self.n_train_patients)
        require_at_least(0, seed=self.seed)
        require(0 <= self.fold < self.n_folds, f"fold must be 0 to {self.n_folds - 1}", self.fold)
        require(
            0 < self.validation_share < 1,
            "validation_share must be within 0 to 1, both left out",
            self.validation_share,
        )
        require(
            self.validation == "first" or self.n_folds >= 3,
            "n_folds must be at least 3 with validation: next_fold (one fold tests, the next "
            "validates, the others train)",
            self.n_folds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentationSettings:
    """Random views of the slices in every training, the same for every arm (row 36).

    Attributes:
        enabled: Whether trainings see random views; the papers report both settings.
        flips: Mirror along each axis that the data set allows, each with probability one half.
        rotation_degrees: Largest rotation, either way.
        scale: Largest relative change of size.
        shift: Largest shift along each axis, as a share of the slice.
        intensity: Largest relative change of brightness, contrast and gamma, each drawn alone.
        noise_sd: Deviation of Gaussian noise, as a share of the slice's own.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    enabled: bool = False
    flips: bool = True
    rotation_degrees: float = 15.0
    scale: float = 0.1
    shift: float = 0.1
    intensity: float = 0.1
    noise_sd: float = 0.05

    def __post_init__(self) -> None:
        require(
            0 <= self.rotation_degrees <= 180,
            "rotation_degrees must be within 0 to 180",
            self.rotation_degrees,
        )
        require_at_least(0, noise_sd=self.noise_sd)
        for name in ("scale", "shift", "intensity"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} must be at least 0 and below 1", value)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainSettings:
    """Training of the backbone before any search: Adam with a cosine schedule (row 35).

    Attributes:
        epochs: Epochs, all of them run; the best validation checkpoint is kept.
        batch_size: Slices in a step.
        steps_per_epoch: Steps that make an epoch; None is one pass over the training slices.
        learning_rate: At the start of the cosine.
        min_learning_rate: At its end.
        validate_every_epochs: Validation Dice is computed after every this many epochs.
        checkpoint_every_epochs: A stopped stage loses at most this many epochs.
        precision: Of forward passes; ``bfloat16`` autocasts, weights and optimisers stay float32.
        seed: Of the backbone; None is the job's. A number gives all jobs one backbone, so that
            their searches differ in nothing else.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    epochs: int = 200
    batch_size: int = 32
    steps_per_epoch: int | None = None
    learning_rate: float = 1e-3
    min_learning_rate: float = 1e-6
    validate_every_epochs: int = 1
    checkpoint_every_epochs: int = 5
    precision: Precision = "float32"
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_training(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSettings:
    """The cell and how it sits in the skip connection.

    Form, width and start are the winners of a screen on validation patients (``python -m
    benchmarks.forms``); the papers' reading is ``replace``, None and ``plain``.

    Attributes:
        n_nodes: Intermediate nodes; node i takes the two inputs and all earlier nodes (row 3).
        partial_channels: K; an operation of the supernet sees the first 1/K of the channels.
        operations: Candidate operations of every edge (row 4).
        second_input: Second input of the cell: the upsampled decoder feature of the same size, or
            the skip once more (row 1).
        form: How the retrained cell joins its skip; `SearchSettings.join` says it for the search.
            ``replace`` puts it in the skip's place (the papers' reading, row 7); ``added`` adds it
            to the skip through a gate per channel that starts at 0.3; ``residual`` through one
            that starts at zero.
        node_width: Channels of a node as a share of the skip's; None is 1 / nodes (the papers'
            reading, row 2). Nodes of another width are projected to the skip's channels.
        start: ``matched`` scales and shifts the output of a fresh cell, channel by channel, to the
            mean and deviation of the skip before the retraining; ``plain`` leaves it.
        architecture: One alpha and beta for all skip levels, or one of its own per level (row 5).
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    n_nodes: int = 4
    partial_channels: int = 4
    operations: tuple[str, ...] = OPERATION_NAMES
    second_input: Literal["decoder", "skip"] = "decoder"
    form: CellForm = "replace"
    node_width: float | None = 1.0
    start: Literal["plain", "matched"] = "matched"
    architecture: Literal["shared", "per_level"] = "shared"

    def __post_init__(self) -> None:
        if self.node_width is not None:
            require(
                0 < self.node_width <= 1, "node_width must be above 0, at most 1", self.node_width
            )
        require_at_least(1, n_nodes=self.n_nodes, partial_channels=self.partial_channels)
        unknown = [name for name in self.operations if name not in OPERATION_NAMES]
        require(not unknown, f"operations must be among {', '.join(OPERATION_NAMES)}", unknown)
        require(
            len(set(self.operations)) == len(self.operations),
            "operations must not repeat",
            self.operations,
        )
        require(
            any(name != "none" for name in self.operations),
            "operations must hold one that is not 'none'",
            self.operations,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Bilevel first-order search (rows 8 to 12).

    Attributes:
        epochs: Length of the full search; an operation pruner may end it sooner.
        batch_size: Slices in a weight step and in an architecture step.
        steps_per_epoch: Weight steps (each paired with an architecture step) that make an epoch;
            None is one pass over the half of the patients that trains weights.
        weight_learning_rate: Of SGD, at the start of the cosine to 0; None is 0.1 at batch 256,
            scaled linearly.
        momentum: Of SGD.
        weight_decay: Of SGD.
        gradient_clip: Norm to which gradients of the cell weights are clipped.
        join: How the search cell joins the skip while it is searched: in its place
            (``replace``), added to it through gates per channel that start at 0.3 (``added``), or
            at 0 (``residual``, a control: no gradient reaches alpha at first).
        alpha_learning_rate: For alpha and beta; None is `resolved_alpha_learning_rate`.
        alpha_betas: Decay rates of the moments of Adam.
        alpha_optimiser: ``adamw`` decouples the decay from the gradient; ``adam_l2`` adds it to
            the gradient as the reference code does, where a gradient that is smaller than its
            decay only pulls alpha to 0.
        alpha_weight_decay: Of the optimiser of alpha; None is `resolved_alpha_weight_decay`.
        alpha_warmup_epochs: Epochs before the first architecture step.
        validate_every_epochs: Validation Dice of the supernet is computed after every this many
            epochs; 0 is never. It is recorded, it decides nothing.
        checkpoint_every_epochs: A stopped stage loses at most this many epochs.
        precision: Of forward passes; ``bfloat16`` autocasts, weights and optimisers stay float32.
        keep_features: Compute the frozen encoder's features once per slice and keep them in a
            memory-mapped temporary file; the values are the same but for rounding.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    epochs: int = 200
    batch_size: int = 32
    steps_per_epoch: int | None = None
    weight_learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 3e-4
    gradient_clip: float = 5.0
    join: CellForm = "replace"
    alpha_learning_rate: float | None = None
    alpha_betas: tuple[float, float] = (0.5, 0.999)
    alpha_optimiser: AlphaOptimiser = "adamw"
    alpha_weight_decay: float | None = None
    alpha_warmup_epochs: int = 15
    validate_every_epochs: int = 0
    checkpoint_every_epochs: int = 5
    precision: Precision = "float32"
    keep_features: bool = True

    def __post_init__(self) -> None:
        require_at_least(1, epochs=self.epochs, batch_size=self.batch_size)
        require_at_least(1, steps_per_epoch=self.steps_per_epoch)
        require_at_least(1, checkpoint_every_epochs=self.checkpoint_every_epochs)
        require_at_least(
            0,
            alpha_warmup_epochs=self.alpha_warmup_epochs,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            alpha_weight_decay=self.alpha_weight_decay,
            validate_every_epochs=self.validate_every_epochs,
        )
        require_positive(
            weight_learning_rate=self.weight_learning_rate,
            alpha_learning_rate=self.alpha_learning_rate,
            gradient_clip=self.gradient_clip,
        )
        require(
            all(0 <= beta < 1 for beta in self.alpha_betas),
            "alpha_betas must be at least 0 and below 1",
            self.alpha_betas,
        )

    @property
    def resolved_weight_learning_rate(self) -> float:
        """Learning rate of SGD: the given one, or 0.1 at batch 256 scaled linearly (row 8)."""
        if self.weight_learning_rate is not None:
            return self.weight_learning_rate
        return 0.1 * self.batch_size / 256

    @property
    def resolved_alpha_weight_decay(self) -> float:
        """Decay of alpha: the given one, or 0 for ``adamw`` and 1e-3 for ``adam_l2``."""
        if self.alpha_weight_decay is not None:
            return self.alpha_weight_decay
        return 0.0 if self.alpha_optimiser == "adamw" else 1e-3

    def resolved_alpha_learning_rate(self, n_steps: int) -> float:
        """Return the learning rate of alpha and beta for epochs of `n_steps` steps.

        The given one; else 6e-4 from 100 steps on, 3e-3 at 50 (row 9), and with fewer steps as
        much more as keeps the largest move per epoch (rate × steps) at 0.15, at most 0.03: our
        choice, since alpha hardly moves otherwise in the short epochs of a small data set.
        """
        if self.alpha_learning_rate is not None:
            return self.alpha_learning_rate
        if n_steps >= 100:
            return 6e-4
        return min(0.03, 0.15 / n_steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPace:
    """How an operation pruner wants the epochs of its search run; the defaults change nothing.

    Attributes:
        alpha_warmup_epochs: Epochs before the first architecture step; None is the search's own.
        alpha_rate_factor: Factor on the learning rate of alpha and beta.
        start_share: Share of an epoch's steps, taken from the same share of the slices, at first;
            it grows to 1 linearly with the share of operations that have gone.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    alpha_warmup_epochs: int | None = None
    alpha_rate_factor: float = 1.0
    start_share: float = 1.0

    def __post_init__(self) -> None:
        require_at_least(0, alpha_warmup_epochs=self.alpha_warmup_epochs)
        require_positive(alpha_rate_factor=self.alpha_rate_factor)
        require(
            0 < self.start_share <= 1, "start_share must be above 0, at most 1", self.start_share
        )

    def share(self, share_gone: float) -> float:
        """Return the share of an epoch's steps to run.

        Args:
            share_gone: Operations that have gone, of those that can go, in [0, 1].
        """
        return self.start_share + (1 - self.start_share) * share_gone


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainSettings:
    """Training of the discrete cell (rows 14 to 17).

    Attributes:
        epochs: Epochs, all of them run; the best validation checkpoint is kept. The control
            ``no_cell_longer`` trains the backbone for as many.
        batch_size: Slices in a step.
        steps_per_epoch: Steps that make an epoch; None is one pass over the training slices.
        learning_rate: Of the cell, at the start of the cosine.
        backbone_learning_rate: Of whatever part of the backbone the scope trains, and of the whole
            backbone in ``no_cell_longer``.
        min_learning_rate: At the end of the cosine.
        scope: What is trained: ``cell`` alone with the backbone frozen (the main setting),
            ``cell_and_decoder``, or ``all``.
        validate_every_epochs: Validation Dice is computed after every this many epochs.
        checkpoint_every_epochs: A stopped stage loses at most this many epochs.
        precision: Of forward passes; ``bfloat16`` autocasts, weights and optimisers stay float32.
        seed: Of the fresh cell and the order of slices; None is the job's. As an axis it retrains
            every genotype several times.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    epochs: int = 100
    batch_size: int = 32
    steps_per_epoch: int | None = None
    learning_rate: float = 1e-3
    backbone_learning_rate: float = 1e-4
    min_learning_rate: float = 1e-6
    scope: RetrainScope = "cell"
    validate_every_epochs: int = 1
    checkpoint_every_epochs: int = 5
    precision: Precision = "float32"
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_training(self)
        require_positive(backbone_learning_rate=self.backbone_learning_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSettings:
    """Scoring of whole volumes on their original grid.

    Attributes:
        subsets: Which patients are scored. A study scores ``validation`` only.
        surface_tolerance_mm: Tolerance of the surface Dice; the column name states 2 mm.
        batch_size: Slices in a forward pass.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    subsets: tuple[Subset, ...] = ("validation", "test")
    surface_tolerance_mm: float = 2.0
    batch_size: int = 32

    def __post_init__(self) -> None:
        require(
            0 < len(set(self.subsets)) == len(self.subsets),
            "subsets must name validation, test or both, each once",
            self.subsets,
        )
        require_positive(surface_tolerance_mm=self.surface_tolerance_mm)
        require_at_least(1, batch_size=self.batch_size)


def _check_training(settings: PretrainSettings | RetrainSettings) -> None:
    """Ranges that pre-training and retraining share."""
    require_at_least(
        1,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        steps_per_epoch=settings.steps_per_epoch,
        validate_every_epochs=settings.validate_every_epochs,
        checkpoint_every_epochs=settings.checkpoint_every_epochs,
    )
    require_at_least(0, seed=settings.seed)
    require_positive(
        learning_rate=settings.learning_rate, min_learning_rate=settings.min_learning_rate
    )
    require(
        settings.min_learning_rate <= settings.learning_rate,
        "min_learning_rate must not exceed learning_rate",
        settings.min_learning_rate,
    )

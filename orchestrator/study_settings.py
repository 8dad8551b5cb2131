"""The ``study`` of a sweep file: what Optuna tunes, by what it is judged, and on what."""

import inspect
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from iac_core.config import require, require_at_least, require_positive
from iac_core.errors import ConfigError

if TYPE_CHECKING:
    import optuna

Objective = Literal["val_dice", "search_s", "epoch_equivalents"]
DIRECTIONS: dict[str, str] = {
    "val_dice": "maximize",
    "search_s": "minimize",
    "epoch_equivalents": "minimize",
}
"""What a study may optimise, all of it on validation patients, and which way."""

_TRIALS_OF_A_REHEARSAL = 3
_MOST_MIXES = 64
_LARGEST_DRAWN = 1e9
_MOST_DRAWN = 100_000
"""Numbers that a range with a step has: Optuna's samplers may list them all."""
_LARGEST_OPTION = 10_000
"""Of a number among the options of a sampler or pruner: sizes of populations and the like."""
_FAULTS_OF_OPTUNA = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    ImportError,
)
"""What its samplers and pruners raise when an option, the space or the objectives do not suit."""
_FORBID_UNKNOWN: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedOptions:
    """Something of Optuna's by its own name, with its own options.

    Attributes:
        name: Name of the class.
        options: Its keyword arguments.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Numbers that a setting is drawn from; whole ones if both ends and the step are.

    Attributes:
        low: Smallest.
        high: Largest.
        log: Whether the logarithm is drawn evenly.
        step: Distance between two of them.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            value = getattr(self, name)
            rule = f"{name} must be from -{_LARGEST_DRAWN:g} to {_LARGEST_DRAWN:g}"
            require(-_LARGEST_DRAWN <= value <= _LARGEST_DRAWN, rule, value)
        require(self.low < self.high, "low must be below high", (self.low, self.high))
        require(not self.log or self.low > 0, "low must be above 0 with log", self.low)
        require(not self.log or self.step is None, "step must be left out with log", self.step)
        require_positive(step=self.step)
        step = 1 if self.step is None and self.is_whole else self.step
        n_values = None if step is None else (self.high - self.low) / step
        require(
            n_values is None or n_values <= _MOST_DRAWN,
            f"low, high and step must leave at most {_MOST_DRAWN} values",
            (self.low, self.high, step),
        )

    @property
    def is_whole(self) -> bool:
        """Whether whole numbers are drawn."""
        return all(isinstance(value, int | None) for value in (self.low, self.high, self.step))


Choices = tuple[bool | int | float | str | None, ...]
"""Values of which a setting takes one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """A study.

    Attributes:
        space: Operation pruner of the sweep → setting → what it is drawn from. With several
            pruners the pruner is drawn too, and each has settings of its own.
        judged_on: Axis → values: the cells of the grid that a trial is judged on; every cell if
            empty. The others are left out of the study, and the report judges its outcome on them.
        objectives: One, or several for a Pareto front.
        across: How a trial's cells become one number: their mean, or the worst of them.
        max_dice_loss: Largest loss of validation Dice against ``none``; None is no constraint.
        sampler: Any of Optuna's, by name.
        trial_pruner: Any of Optuna's pruners, by name: a trial that is searched for ends when its
            validation Dice falls behind; ``SuccessiveHalvingPruner`` is ASHA. None ends none.
        replayed: Trials on recorded searches.
        confirmed: Trials that are searched for.
        hours: No trial starts after so many hours of a run; None is no limit.
        concurrent: Trials that are searched for at a time.
        storage: Optuna's storage, such as ``postgresql+psycopg://HOST/DATABASE``; None is a
            journal file beside the runs.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    space: Mapping[str, Mapping[str, Range | Choices]]
    judged_on: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    objectives: tuple[Objective, ...] = ("val_dice", "search_s")
    across: Literal["mean", "worst"] = "mean"
    max_dice_loss: float | None = None
    sampler: NamedOptions = field(default_factory=lambda: NamedOptions(name="TPESampler"))
    trial_pruner: NamedOptions | None = None
    replayed: int = 500
    confirmed: int = 10
    hours: float | None = None
    concurrent: int = 4
    storage: str | None = None

    def __post_init__(self) -> None:
        require(bool(self.space), "space must name an operation pruner", dict(self.space))
        for pruner, settings in self.space.items():
            require(bool(settings), f"space.{pruner} must name a setting", dict(settings))
            for name, values in settings.items():
                if isinstance(values, tuple):
                    require(len(values) > 1, f"space.{pruner}.{name} must have choices", values)
        require(bool(self.objectives), "objectives must name one", self.objectives)
        require(
            len(set(self.objectives)) == len(self.objectives),
            "objectives must not repeat",
            self.objectives,
        )
        require_at_least(0, replayed=self.replayed, confirmed=self.confirmed)
        require_at_least(0, max_dice_loss=self.max_dice_loss)
        require_at_least(1, concurrent=self.concurrent)
        require_positive(hours=self.hours)
        import optuna

        _check_named("sampler", self.sampler, optuna.samplers, optuna.samplers.BaseSampler)
        if self.trial_pruner is not None:
            _check_named(
                "trial_pruner", self.trial_pruner, optuna.pruners, optuna.pruners.BasePruner
            )
        self._rehearse()

    def _rehearse(self) -> None:
        """Ask and tell a study in memory: not every sampler can do with space and objectives."""
        import optuna

        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sampler = self.make_sampler(seed=0)
                study = optuna.create_study(sampler=sampler, directions=self.directions)
                for number in range(_TRIALS_OF_A_REHEARSAL):
                    trial = study.ask()
                    draw(trial, self)
                    study.tell(trial, [float(number)] * len(self.objectives))
        except _FAULTS_OF_OPTUNA as error:
            rule = f"sampler must suit objectives and space: {error}"
            require(False, rule, self.sampler.name)
        finally:
            optuna.logging.set_verbosity(before)

    @property
    def directions(self) -> list[str]:
        """Optuna's direction of each objective."""
        return [DIRECTIONS[name] for name in self.objectives]

    def make_sampler(self, seed: int) -> "optuna.samplers.BaseSampler":
        """Return the sampler.

        Args:
            seed: Used unless its options have one.
        """
        import optuna

        kind = getattr(optuna.samplers, self.sampler.name)
        options = dict(self.sampler.options)
        if "seed" in inspect.signature(kind).parameters:
            options.setdefault("seed", seed)
        made: optuna.samplers.BaseSampler = kind(**options)
        return made

    def make_trial_pruner(self) -> "optuna.pruners.BasePruner":
        """Return the pruner of trials; one that prunes none if there is none."""
        import optuna

        if self.trial_pruner is None:
            return optuna.pruners.NopPruner()
        kind = getattr(optuna.pruners, self.trial_pruner.name)
        made: optuna.pruners.BasePruner = kind(**self.trial_pruner.options)
        return made

    def over_cells(self, name: str, numbers: Sequence[float]) -> float:
        """Return what a trial's cells come to: their mean, or the worst of them.

        Args:
            name: An objective; anything else is better when it is less.
            numbers: Of each cell.
        """
        if self.across == "mean":
            return mean(numbers)
        return min(numbers) if DIRECTIONS.get(name) == "maximize" else max(numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedSettings:
    """Where the settings of an arm come from, as `orchestrator study export` notes it.

    Attributes:
        study: The sweep whose study chose them.
        trial: Number of the trial.
        judged_on: Axis → values: the cells that the study was judged on.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    study: str
    trial: int
    judged_on: Mapping[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        require_at_least(0, trial=self.trial)


def never_taken(
    drawn: Mapping[str, Range | Choices], take: Callable[[Mapping[str, Any]], object]
) -> Iterator[tuple[str, Any, str]]:
    """Yield the choices and ends of ranges that a pruner takes beside none of the others.

    Args:
        drawn: Setting → what it is drawn from.
        take: Builds the pruner's settings with some of them changed.

    Yields:
        Setting, value, and why it is refused.
    """
    ends = {
        name: values if isinstance(values, tuple) else (values.low, values.high)
        for name, values in drawn.items()
    }
    for name, values in ends.items():
        others = {other: ends[other] for other in ends if other != name}
        mixes = [
            dict(zip(others, mix, strict=True))
            for mix in itertools.islice(itertools.product(*others.values()), _MOST_MIXES)
        ]
        for value in values:
            reason = ""
            for mix in [{}, *mixes]:
                try:
                    take({**mix, name: value})
                    break
                except ConfigError as error:
                    reason = reason or str(error)
            else:
                yield name, value, reason


def draw(trial: "optuna.trial.BaseTrial", settings: StudySettings) -> tuple[str, dict[str, Any]]:
    """Draw a pruner and its settings: a setting is drawn only if its pruner is.

    Args:
        trial: Optuna's trial.
        settings: The study.

    Returns:
        The pruner, and its settings that are drawn.
    """
    pruners = list(settings.space)
    pruner = pruners[0]
    if len(pruners) > 1:
        pruner = trial.suggest_categorical("pruner", pruners)
    drawn: dict[str, Any] = {}
    for name, values in settings.space[pruner].items():
        parameter = f"{pruner}.{name}"
        if not isinstance(values, Range):
            drawn[name] = trial.suggest_categorical(parameter, values)
        elif values.is_whole:
            low, high, step = int(values.low), int(values.high), int(values.step or 1)
            drawn[name] = trial.suggest_int(parameter, low, high, step=step, log=values.log)
        else:
            drawn[name] = trial.suggest_float(
                parameter, values.low, values.high, step=values.step, log=values.log
            )
    return pruner, drawn


def check_study(study: "optuna.Study", settings: StudySettings, objectives: Sequence[str]) -> None:
    """Hold objectives and space against what the study has seen so far.

    Args:
        study: The study.
        settings: What the sweep says now.
        objectives: What the study's values are.

    Raises:
        ConfigError: If the objectives are others, or a setting is now drawn in a way that Optuna
            cannot mix with earlier ones.
    """
    from optuna.distributions import check_distribution_compatibility

    before = study.metric_names or list(objectives)
    if before != list(objectives):
        raise ConfigError(
            f"study.objectives must stay as in the trials of {study.study_name}, "
            f"{', '.join(before)}",
            value=", ".join(objectives),
            way_out="other ones are another study: give the sweep another name",
        )
    space = {
        f"{pruner}.{name}": _distribution(values)
        for pruner, drawn in settings.space.items()
        for name, values in drawn.items()
    }
    for trial in study.get_trials(deepcopy=False):
        for name in space.keys() & trial.distributions.keys():
            try:
                check_distribution_compatibility(trial.distributions[name], space[name])
            except ValueError as error:
                raise ConfigError(
                    f"study.space.{name} must stay as trial {trial.number} of {study.study_name} "
                    f"drew it, {trial.distributions[name]}",
                    value=space[name],
                    way_out=(
                        "numbers may get other ends, anything else is another study: give the "
                        "sweep another name"
                    ),
                ) from error


def _distribution(values: Range | Choices) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if not isinstance(values, Range):
        return CategoricalDistribution(values)
    if values.is_whole:
        return IntDistribution(
            int(values.low), int(values.high), log=values.log, step=int(values.step or 1)
        )
    return FloatDistribution(values.low, values.high, log=values.log, step=values.step)


def _numbers(value: object) -> Iterator[float]:
    """Yield every number in an option."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _numbers(entry)
    elif isinstance(value, int | float):
        yield value


def _check_named(field_name: str, wanted: NamedOptions, module: ModuleType, base: type) -> None:
    """Hold the name and the options of something of Optuna's against what it has."""
    known = [
        name
        for name, entry in vars(module).items()
        if inspect.isclass(entry) and issubclass(entry, base) and not inspect.isabstract(entry)
    ]
    require(
        wanted.name in known, f"{field_name}.name must be one of {', '.join(known)}", wanted.name
    )
    kind = getattr(module, wanted.name)
    parameters = list(inspect.signature(kind).parameters)
    for option in wanted.options:
        require(
            option in parameters,
            f"{field_name}.options must be arguments of {wanted.name} ({', '.join(parameters)})",
            option,
        )
        for number in _numbers(wanted.options[option]):
            is_small = option == "seed" or abs(number) <= _LARGEST_OPTION
            rule = f"{field_name}.options.{option} must be at most {_LARGEST_OPTION}"
            require(is_small, rule, number)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind(**wanted.options)
    except _FAULTS_OF_OPTUNA as error:
        require(
            False, f"{field_name}.options must suit {wanted.name}: {error}", dict(wanted.options)
        )

"""From a sweep file to typed settings, or to every problem it has. The only file with pydantic."""

import difflib
import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import TypeAdapter, ValidationError

from iac_core.bounded_yaml import Place, needs_quotes
from iac_core.config import (
    AugmentationSettings,
    CellSettings,
    DatasetOptions,
    SplitSettings,
    require,
)
from iac_core.data import open_dataset
from iac_core.data.splits import read_split_file
from iac_core.data.volume_file import MAX_VOLUME_GIB
from iac_core.errors import ConfigError, Problem
from iac_core.pruners.no_pruning import NoPruningSettings
from iac_core.registry import did_you_mean
from iac_core.types import SegmentationDataset
from orchestrator.file_paths import written_out
from orchestrator.names import (
    MOST_LETTERS_OF_AN_EXPERIMENT,
    NAME_RULE,
    RESERVED,
    SWEEP_RULE,
    is_name,
    is_sweep_name,
    same_but_for_case,
)
from orchestrator.resources import ResourceSettings
from orchestrator.study_settings import Range, StudySettings, TunedSettings, never_taken
from orchestrator.sweep_file import SweepFile, read_sweep_file
from results.declared import Claim
from workers.job import JOB_SECTIONS, content_hash, plain
from workers.places import is_root
from workers.stages.table import STAGES

T = TypeVar("T")

_SECTIONS: dict[str, type] = {
    "split": SplitSettings,
    "augmentation": AugmentationSettings,
    "cell": CellSettings,
    **{kind.section: kind.settings for kind in STAGES.values()},
}
STAGE_SETTINGS: dict[str, type] = {
    name: _SECTIONS[name] for name in dict.fromkeys((*JOB_SECTIONS, *_SECTIONS))
}
"""Section of ``stages`` in a sweep file → class of its settings."""
AXES: tuple[str, ...] = ("dataset", "backbone", "pruner", "seed")
SHORT_AXES: dict[str, str] = {"augmentation": "augmentation.enabled"}
"""Axes with a name of their own → the setting that they vary."""
_SWEEP_KEYS = (
    "name",
    "datasets",
    "grid",
    "together",
    "include",
    "exclude",
    "stages",
    "backbones",
    "pruners",
    "resources",
    "tracking",
    "data",
    "store",
    "study",
    "tuned",
    "compare",
)
_MOST_GIB = 1024
MOST_JOBS = 100_000
"""Jobs of a sweep; of a plan each takes 4 KiB and 0.3 ms, so that this many take half a minute."""
MOST_EXCLUDES = 100_000
"""Cells that excludes name, with their lists written out."""
_MOST_PROBLEMS = 100
_MOST_SHOWN = 200
_SPLIT_FILE = "split.file"
_FORBID_UNKNOWN: dict[str, Any] = {"extra": "forbid"}


class SweepError(ConfigError):
    """A sweep file has problems; carries all of them.

    Args:
        problems: In the order of the file.
        datasets: Data folders that the file names all the same, so that they can be looked at too.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        datasets: Mapping[str, "DatasetSettings"] | None = None,
    ) -> None:
        self.problems = tuple(problems)
        self.datasets = dict(datasets or {})
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The names that a sweep may use.

    Attributes:
        layouts: Layouts of data folders.
        backbones: Name → settings class.
        pruners: Name of an operation pruner → settings class.
        controls: Control of the pruner axis → settings class; None if it has no settings.
    """

    layouts: Sequence[str]
    backbones: Mapping[str, type]
    pruners: Mapping[str, type]
    controls: Mapping[str, type | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSettings:
    """A data folder.

    Attributes:
        layout: How the folder is laid out.
        path: The folder; a relative one starts at the sweep file. ``--data NAME=PATH`` wins.
        leave_out: Patients not to use; see `iac_core.config.DatasetOptions`.
        patient_pattern: Finds the patient in a volume's name.
        max_volume_gib: As in `VolumeSettings`, for this folder; None takes that of the sweep.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    layout: str
    path: str | None = None
    leave_out: tuple[str, ...] = ()
    patient_pattern: str | None = None
    max_volume_gib: float | None = None

    def __post_init__(self) -> None:
        self.options  # noqa: B018 - checks the pattern
        _require_gib(self.max_volume_gib)

    @property
    def options(self) -> DatasetOptions:
        """What of the folder is used."""
        return DatasetOptions(leave_out=self.leave_out, patient_pattern=self.patient_pattern)

    def open(self) -> SegmentationDataset:
        """Return the reader of the folder."""
        return open_dataset(
            self.layout,
            Path(self.path or ""),
            self.options,
            max_volume_gib=self.most_gib,
        )

    @property
    def most_gib(self) -> float:
        """Largest volume file that is read, GiB in memory."""
        return MAX_VOLUME_GIB if self.max_volume_gib is None else self.max_volume_gib


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeSettings:
    """How volumes are read. Nothing here changes a result.

    Attributes:
        max_volume_gib: A volume file whose header says that it takes more memory, in GiB, is an
            error, and nothing of it is read: a damaged or hostile header must not fill the memory.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    max_volume_gib: float = MAX_VOLUME_GIB

    def __post_init__(self) -> None:
        _require_gib(self.max_volume_gib)


def _require_gib(value: float | None) -> None:
    rule = f"max_volume_gib must be above 0 and at most {_MOST_GIB}"
    require(value is None or 0 < value <= _MOST_GIB, rule, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingSettings:
    """Where MLflow keeps the runs.

    Attributes:
        uri: Tracking URI; None is a SQLite file beside the runs.
        experiment: Experiment; None is the sweep's name.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    uri: str | None = None
    experiment: str | None = None

    def __post_init__(self) -> None:
        if self.experiment is None:
            return
        fits = bool(self.experiment.strip())
        fits = fits and len(self.experiment) <= MOST_LETTERS_OF_AN_EXPERIMENT
        rule = f"experiment must be at most {MOST_LETTERS_OF_AN_EXPERIMENT} letters and not empty"
        require(fits, rule, self.experiment)


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of the grid: the path of the setting and its values."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSpec:
    """A sweep, typed and checked.

    Attributes:
        path: The sweep file.
        name: Name of the sweep.
        datasets: Dataset → its folder.
        axes: The grid, the four named axes first, then further settings in the file's order.
        together: Groups of axes that go through their values side by side, as long as each other.
        include: Cells beside the grid: axis → value.
        exclude: Cells left out: axis → value, partial.
        stages: Section → settings.
        backbones: Every backbone of the grid → its settings.
        pruners: Every value of the pruner axis → the settings of its operation pruner, None for a
            control.
        controls: Value of the pruner axis → the control it stands for; operation pruners are
            missing.
        resources: What stages need.
        tracking: Where MLflow keeps the runs.
        store: Folder of the stages, or ``s3://…``; None is the default below the runs.
        split_contents: Split file → hash of its content.
        study: What Optuna tunes; None is nothing.
        tuned: Value of the pruner axis → the study that its settings come from.
        compare: The family of claims that verdicts are given on.
    """

    path: Path
    name: str
    datasets: Mapping[str, DatasetSettings]
    axes: tuple[Axis, ...]
    together: tuple[tuple[str, ...], ...] = ()
    include: tuple[Mapping[str, Any], ...] = ()
    exclude: tuple[Mapping[str, Any], ...] = ()
    stages: Mapping[str, Any]
    backbones: Mapping[str, object]
    pruners: Mapping[str, object | None]
    controls: Mapping[str, str]
    resources: ResourceSettings = field(default_factory=ResourceSettings)
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    store: str | None = None
    split_contents: Mapping[str, str] = field(default_factory=dict)
    study: StudySettings | None = None
    tuned: Mapping[str, TunedSettings] = field(default_factory=dict)
    compare: tuple[Claim, ...] = ()

    def with_setting(self, stages: Mapping[str, Any], name: str, value: object) -> dict[str, Any]:
        """Return stage settings with one dotted setting replaced; ranges are checked again.

        Raises:
            ConfigError: If the value does not go with those of the other axes.
        """
        section, setting = SHORT_AXES.get(name, name).split(".", 1)
        try:
            changed = _with_setting(stages[section], setting, json.dumps(value))
        except ValidationError as error:
            about = _reason_of(error.errors(include_url=False)[0])
            raise ConfigError(
                f"{self.path}: grid.{name}: {about}, in a cell with the value {value!r}",
                way_out="exclude such cells or change the axes",
            ) from error
        return {**stages, section: changed}


def load_sweep(
    path: Path, *, tables: Tables, overrides: Mapping[str, str] | None = None
) -> SweepSpec:
    """Read and check a sweep file.

    Args:
        path: The file.
        tables: The names that it may use.
        overrides: Dataset → folder, from the command line.

    Raises:
        SweepError: With every problem, each with file, line, rule, value and way out.
        ConfigError: If the file is no YAML or has no sweep.
    """
    return _Reader(read_sweep_file(path), tables, overrides or {}).read()


def changed_settings(settings: T, changes: Mapping[str, Any]) -> T:
    """Return settings with some of them replaced, checked as a sweep file's are.

    Args:
        settings: An instance of a settings class.
        changes: Field → value.

    Raises:
        ConfigError: If a field is unknown or a value is not allowed.
    """
    known = _as_dict(settings)
    for name in changes:
        if name not in known:
            hint = did_you_mean(name, list(known))
            raise ConfigError(
                f"a setting must be one of {type(settings).__name__}",
                value=f"{name!r}{hint}",
            )
    try:
        return _parse(type(settings), {**plain(settings), **changes})
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "value_error" or not field:
            about = _reason_of(detail)
        else:
            about = f"{field} must be {_reason_of(detail)}, got {detail['input']!r}"
        raise ConfigError(f"{type(settings).__name__}: {about}") from error


def _reason_of(detail: Any) -> str:  # noqa: ANN401
    """Why a value was refused: in our words, or in those of pydantic without its first ones."""
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return str(detail["msg"]).removeprefix("Input should be ")


class _Reader:
    """Checks one section after the other and collects what is wrong."""

    def __init__(self, file: SweepFile, tables: Tables, overrides: Mapping[str, str]) -> None:
        self.file, self.tables, self.overrides = file, tables, overrides
        self.problems: list[Problem] = []

    def read(self) -> SweepSpec:
        sweep = self.file.sweep
        for key in sweep:
            if key not in _SWEEP_KEYS:
                self._unknown((key,), key, _SWEEP_KEYS, "a key of a sweep")
        name = self._name(sweep.get("name"))
        datasets = self._datasets(sweep.get("datasets"), self._section(("data",), VolumeSettings))
        stages = {
            section: self._section(("stages", section), settings)
            for section, settings in self._stage_sections(sweep.get("stages"))
        }
        backbones, _ = self._variants("backbones", self.tables.backbones, {})
        pruners, controls = self._variants("pruners", self.tables.pruners, self.tables.controls)
        known: dict[str, Mapping[str, object]] = {
            "dataset": {**self._mapping(("datasets",), sweep.get("datasets"))},
            "backbone": backbones,
            "pruner": pruners,
        }
        axes = self._axes(sweep.get("grid"), known, stages)
        together = self._together(sweep.get("together"), axes)
        cells = {key: self._cells(key, axes, known, stages) for key in ("include", "exclude")}
        resources = self._section(("resources",), ResourceSettings)
        tracking = self._section(("tracking",), TrackingSettings)
        self._count_jobs(axes, together, cells["include"])
        store = self._store(sweep.get("store"))
        contents = self._split_contents(stages.get("split"), axes, cells["include"])
        searched = {name: value for name, value in pruners.items() if name not in controls}
        study = self._study(axes, searched)
        tuned = self._tuned(searched)
        compare = self._compare(list(pruners))
        if self.problems:
            raise self._error(datasets)
        return SweepSpec(
            path=self.file.path,
            name=name,
            datasets=datasets,
            axes=axes,
            together=together,
            include=cells["include"],
            exclude=cells["exclude"],
            stages=stages,
            backbones=backbones,
            pruners=pruners,
            controls=controls,
            resources=resources,
            tracking=tracking,
            store=store,
            split_contents=contents,
            study=study,
            tuned=tuned,
            compare=compare,
        )

    def _compare(self, pruners: Sequence[str]) -> tuple[Claim, ...]:
        """The declared claims, each once, between arms of the grid."""
        raw = self.file.sweep.get("compare")
        if raw is None:
            return ()
        if not isinstance(raw, list):
            example = "write `- {arm: js_stability, reference: none, kind: not_inferior}`"
            self._problem(("compare",), "compare must be a list of claims", raw, example)
            return ()
        found: list[Claim] = []
        seen: set[Claim] = set()
        for index, entry in enumerate(raw):
            place: Place = ("compare", index)
            claim = self._parsed(place, Claim, entry)
            for key in ("arm", "reference"):
                name = entry.get(key) if isinstance(entry, dict) else None
                if isinstance(name, str) and name not in pruners:
                    self._unknown((*place, key), name, pruners, f"a claim's {key}")
            if claim is None:
                continue
            if claim.arm == claim.reference:
                rule = "a claim must compare two different arms"
                self._problem(place, rule, entry, "name another reference")
            if claim in seen:
                rule = "a claim must stand once: each one makes the others harder to show"
                self._problem(place, rule, entry, "remove it")
            seen.add(claim)
            found.append(claim)
        return tuple(found)

    def _tuned(self, pruners: Mapping[str, object | None]) -> dict[str, TunedSettings]:
        """Where arms come from whose settings a study chose."""
        found = {}
        for pruner, raw in self._mapping(("tuned",), self.file.sweep.get("tuned")).items():
            known = [name for name, settings in pruners.items() if settings is not None]
            if pruner not in known:
                self._unknown(("tuned", pruner), pruner, known, "a tuned pruner")
            settings = self._parsed(("tuned", pruner), TunedSettings, raw)
            if settings is not None and not is_sweep_name(settings.study):
                rule = SWEEP_RULE.replace("name", "study, the name of a sweep,", 1)
                self._problem(("tuned", pruner, "study"), rule, settings.study, "correct it")
            if settings is not None:
                found[pruner] = settings
        return found

    def _study(
        self, axes: Sequence[Axis], pruners: Mapping[str, object | None]
    ) -> StudySettings | None:
        """The study, held against the grid and the settings of its pruners."""
        raw = self.file.sweep.get("study")
        if raw is None:
            return None
        values = {axis.name: axis.values for axis in axes if axis.name != "pruner"}
        n_problems = len(self.problems)
        self._space(pruners)
        self._judged_on(values)
        arms = next((axis.values for axis in axes if axis.name == "pruner"), ())
        if not any(isinstance(pruners.get(arm), NoPruningSettings) for arm in arms):
            rule = "a sweep with a study must have the full search in its grid"
            self._problem(("grid", "pruner"), rule, list(arms), "add none to grid.pruner")
        if len(self.problems) > n_problems:
            raw = {**self._mapping(("study",), raw), "space": {"none": {"x": [0, 1]}}}
        study = self._parsed(("study",), StudySettings, raw)
        if study is not None and len(self.problems) == n_problems:
            for pruner, drawn in study.space.items():
                take = functools.partial(changed_settings, pruners[pruner])
                for name, value, reason in never_taken(drawn, take):
                    rule = f"space.{pruner}.{name} must draw what {pruner} takes: {reason}"
                    way_out = "leave it out of the choices, or end the range before it"
                    self._problem(("study", "space", pruner, name), rule, value, way_out)
        return study

    def _space(self, pruners: Mapping[str, object | None]) -> None:
        """Note what is wrong with the settings that a study draws."""
        known = [name for name, settings in pruners.items() if settings is not None]
        study = self._mapping(("study",), self.file.sweep.get("study"))
        for pruner, settings in self._mapping(("study", "space"), study.get("space")).items():
            place: Place = ("study", "space", pruner)
            if pruner not in known:
                self._unknown(place, pruner, known, "an operation pruner")
                continue
            names = list(_as_dict(pruners[pruner]))
            for name, drawn in self._mapping(place, settings).items():
                if name not in names:
                    self._unknown((*place, name), name, names, f"a setting of {pruner}")
                elif not isinstance(drawn, list):
                    self._parsed((*place, name), Range, drawn)

    def _judged_on(self, values: Mapping[str, Sequence[Any]]) -> None:
        """Note what is wrong with the cells of the grid that a study is judged on."""
        study = self._mapping(("study",), self.file.sweep.get("study"))
        chosen = self._mapping(("study", "judged_on"), study.get("judged_on"))
        for name, wanted in chosen.items():
            place: Place = ("study", "judged_on", name)
            if name not in values:
                self._unknown(place, name, list(values), "an axis of judged_on")
                continue
            for value in wanted if isinstance(wanted, list) else []:
                if value not in values[name]:
                    rule = f"judged_on.{name} must name values of the grid"
                    self._problem(place, rule, value, f"grid.{name}: {list(values[name])}")

    def _problem(self, place: Place, rule: str, value: object, way_out: str) -> None:
        shown = value if isinstance(value, _Said) else repr(value)
        if len(shown) > _MOST_SHOWN:
            shown = f"{shown[:_MOST_SHOWN]}…"
        found = Problem(
            file=str(self.file.path),
            place=str(self.file.line(place)),
            rule=rule,
            value=shown,
            way_out=way_out,
        )
        if found not in self.problems:
            self.problems.append(found)
        if len(self.problems) >= _MOST_PROBLEMS:
            raise self._error({})

    def _error(self, datasets: Mapping[str, DatasetSettings]) -> SweepError:
        """Every problem in the order of the file."""
        ordered = sorted(self.problems, key=lambda problem: int(problem.place or 0))
        return SweepError(ordered, datasets)

    def _unknown(self, place: Place, name: object, known: Sequence[str], what: str) -> None:
        if not isinstance(name, str) and self.file.unquoted.get(place, "") in known:
            hint = needs_quotes(self.file.unquoted[place])
        else:
            hint = did_you_mean(str(name), list(known)).removeprefix("; ")
        self._problem(place, f"{what} must be a known one", name, hint)

    def _name(self, name: object) -> str:
        if not isinstance(name, str) or not is_sweep_name(name):
            way_out = "for example `name: my_sweep`"
            if ("name",) in self.file.unquoted:
                way_out = needs_quotes(self.file.unquoted["name",])
            self._problem(("name",), SWEEP_RULE, name, way_out)
            return ""
        if name in RESERVED:
            rule = f"name must not be that of a folder beside the sweeps ({', '.join(RESERVED)})"
            self._problem(("name",), rule, name, "choose another")
        return name

    def _names(self, section: str, names: Mapping[str, object]) -> None:
        """Hold the names that a section gives against the rule for parts of file names."""
        for name in names:
            if not is_name(name):
                self._problem((section, name), NAME_RULE, name, "choose another")
        for first, other in same_but_for_case(names):
            rule = "names must differ in more than the case of letters"
            self._problem((section, other), rule, other, f"rename it or {first!r}")

    def _path(self, place: Place, path: str) -> str | None:
        """A path relative to the sweep file as an absolute one; None with a note."""
        try:
            return str((self.file.path.parent / written_out(path)).resolve())
        except ConfigError as error:
            self._problem(place, error.rule, _Said(error.value), error.way_out)
        except (OSError, RuntimeError) as error:  # links that lead in a circle
            self._problem(place, "a path must lead somewhere", str(error), "correct it")
        return None

    def _store(self, raw: object) -> str | None:
        """The folder or bucket of the stages, ``~`` and variables written out."""
        if raw is None:
            return None
        try:
            store = written_out(raw) if isinstance(raw, str) else ""
        except ConfigError as error:
            rule, value = f"store: {error.rule}", _Said(error.value)
            self._problem(("store",), rule, value, error.way_out)
            return None
        if store and is_root(store):
            return store
        self._problem(
            ("store",),
            "store must be a folder or s3://BUCKET/PREFIX",
            raw,
            "give one of these, or leave it out",
        )
        return None

    def _count_jobs(
        self,
        axes: Sequence[Axis],
        together: Sequence[Sequence[str]],
        include: Sequence[Mapping[str, Any]],
    ) -> None:
        """Refuse more jobs than can be planned, before any of them is made."""
        beside = {name for group in together for name in group[1:]}
        n_jobs = math.prod(len(axis.values) for axis in axes if axis.name not in beside)
        n_jobs += len(include)
        if n_jobs > MOST_JOBS:
            rule = f"a sweep must have at most {MOST_JOBS} jobs, excluded ones counted"
            self._problem(("grid",), rule, n_jobs, "shorten its axes, or write several sweeps")

    def _mapping(self, place: Place, value: object) -> dict[str, Any]:
        """The value if it is a mapping; nothing counts as an empty one."""
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        self._problem(place, f"{place[-1]} must be a mapping", value, "write `name: value` lines")
        return {}

    def _datasets(self, raw: object, volumes: VolumeSettings) -> dict[str, DatasetSettings]:
        entries = self._mapping(("datasets",), raw)
        self._names("datasets", entries)
        found: dict[str, DatasetSettings] = {}
        for name, value in entries.items():
            settings = self._parsed(("datasets", name), DatasetSettings, value)
            if settings is None:
                continue
            if settings.layout not in self.tables.layouts:
                place = ("datasets", name, "layout")
                self._unknown(place, settings.layout, self.tables.layouts, "layout")
            path = self.overrides.get(name)
            if path is not None and path.startswith("~"):  # shells leave it behind NAME=
                path = str(Path(path).expanduser())
            if path is None and settings.path is not None:
                path = self._path(("datasets", name, "path"), settings.path)
            most = settings.max_volume_gib or volumes.max_volume_gib
            found[name] = replace(settings, path=path, max_volume_gib=most)
        for name in self.overrides:
            if name not in entries:
                rule = "--data must name a dataset of the sweep"
                self._problem(("datasets",), rule, name, did_you_mean(name, list(entries))[2:])
        return found

    def _stage_sections(self, raw: object) -> Iterator[tuple[str, type]]:
        for name in self._mapping(("stages",), raw):
            if name not in STAGE_SETTINGS:
                self._unknown(("stages", name), name, list(STAGE_SETTINGS), "a section of stages")
        yield from STAGE_SETTINGS.items()

    def _section(self, place: Place, settings: type[T]) -> Any:  # noqa: ANN401
        """Settings of a section; the defaults where it is missing or wrong."""
        value: Any = self.file.sweep
        for key in place:
            value = value.get(key) if isinstance(value, dict) else None
        parsed = self._parsed(place, settings, {} if value is None else value)
        return settings() if parsed is None else parsed

    def _variants(
        self, section: str, table: Mapping[str, type], controls: Mapping[str, type | None]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Settings of every known name and of every name that the section adds; its controls."""
        raw = self.file.sweep.get(section)
        # What has no settings of its own by default (a network of the user's) is used by ``type``.
        settings = {name: kind() for name, kind in table.items() if not _required(kind)}
        named_controls = {
            name: name for name, kind in controls.items() if kind is None or not _required(kind)
        }
        settings |= dict.fromkeys(named_controls)
        self._names(section, {**settings, **self._mapping((section,), raw)})
        for name, value in self._mapping((section,), raw).items():
            entry = dict(self._mapping((section, name), value))
            kind = entry.pop("type", name)
            place: Place = (section, name) if kind == name else (section, name, "type")
            if not isinstance(kind, str):
                self._unknown(place, kind, [*table, *controls], section.removesuffix("s"))
                settings.setdefault(name, None)
                continue
            settings_type = table.get(kind, controls.get(kind))
            if settings_type is not None:
                parsed = self._parsed((section, name), settings_type, entry)
                if parsed is not None:
                    settings[name] = self._located((section, name), parsed)
            elif kind not in controls:
                self._unknown(place, kind, [*table, *controls], section.removesuffix("s"))
            else:
                rule = f"the control {kind!r} must have no settings"
                self._problem(place, rule, entry, "remove this entry")
            if kind in controls:
                named_controls[name] = kind
            settings.setdefault(name, None)  # known by name, so that the grid is not blamed too
        return settings, named_controls

    def _located(self, place: Place, settings: T) -> T:
        """The settings with a path that is relative to the sweep file made absolute."""
        path = getattr(settings, "encoder_weights", None)
        whole = None if path is None else self._path((*place, "encoder_weights"), path)
        if whole is None:
            return settings
        located: T = replace(settings, encoder_weights=whole)  # type: ignore[type-var]
        return located

    def _axes(
        self, raw: object, known: Mapping[str, Mapping[str, object]], stages: Mapping[str, Any]
    ) -> tuple[Axis, ...]:
        grid = self._mapping(("grid",), raw)
        for name in AXES:
            if name not in grid:
                self._problem(
                    ("grid",),
                    f"grid must have the axis {name}",
                    list(grid),
                    f"add `{name}: [...]`",
                )
        axes = []
        for name in [*AXES, *(name for name in grid if name not in AXES)]:
            if name not in grid:
                continue
            values = grid[name]
            place: Place = ("grid", name)
            if not isinstance(values, list) or not values:
                self._problem(
                    place, f"the axis {name} must be a list of values", values, "write [a, b]"
                )
                continue
            if len({json.dumps(value) for value in values}) != len(values):
                self._problem(
                    place, f"the axis {name} must not repeat a value", values, "name each once"
                )
            if self._is_axis(place, name):
                for index, value in enumerate(values):
                    self._axis_value((*place, index), name, value, known, stages)
            axes.append(Axis(name=name, values=tuple(values)))
        return tuple(axes)

    def _together(self, raw: object, axes: Sequence[Axis]) -> tuple[tuple[str, ...], ...]:
        """Groups of axes of the grid, each in one group, of equal length within it."""
        if raw is None:
            return ()
        example = "write `[[seed, split.fold]]`"
        if not isinstance(raw, list) or not all(isinstance(group, list) for group in raw):
            rule = "together must be a list of lists of axes"
            self._problem(("together",), rule, raw, example)
            return ()
        lengths = {axis.name: len(axis.values) for axis in axes}
        named = Counter(str(name) for group in raw for name in group)
        for index, group in enumerate(raw):
            place: Place = ("together", index)
            unknown = [name for name in group if not _is_in(name, lengths)]
            for name in unknown:
                self._unknown(place, name, list(lengths), "an axis in together")
            if len(group) < 2 or any(named[str(name)] > 1 for name in group):
                rule = "a group in together must name two axes or more, each in one group"
                self._problem(place, rule, group, example)
            elif not unknown and len({lengths[name] for name in group}) > 1:
                found = ", ".join(f"{name} {lengths[name]}" for name in group)
                rule = "axes that go together must have equally many values"
                self._problem(place, rule, _Said(f"a group with {found}"), "give each as many")
        return tuple(tuple(map(str, group)) for group in raw)

    def _is_axis(self, place: Place, name: str) -> bool:
        """Whether an axis is one of the four, or a setting; with a note if not."""
        settings = [
            f"{part}.{entry.name}"
            for part, kind in STAGE_SETTINGS.items()
            for entry in fields(kind)
        ]
        names = [*AXES, *SHORT_AXES, *settings]
        if name in names:
            return True
        near = difflib.get_close_matches(name[:_MOST_SHOWN], names, n=1)
        way_out = f"did you mean {near[0]!r}?" if near else f"axes: {', '.join(AXES)} or a setting"
        rule = "an axis must be known, or a setting such as cell.form"
        self._problem(place, rule, name, way_out)
        return False

    def _axis_value(
        self,
        place: Place,
        name: str,
        value: object,
        known: Mapping[str, Mapping[str, object]],
        stages: Mapping[str, Any],
    ) -> None:
        if name in known:
            if not _is_in(value, known[name]):
                self._unknown(place, value, list(known[name]), name)
        elif name == "seed":
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                self._problem(
                    place, "a seed must be a whole number from 0", value, "for example 0"
                )
        else:
            section, _, setting = SHORT_AXES.get(name, name).partition(".")
            base = _as_dict(stages[section])
            self._parsed(place, type(stages[section]), {**base, setting: value})

    def _included(
        self,
        place: Place,
        cell: Mapping[str, Any],
        known: Mapping[str, Mapping[str, object]],
        stages: Mapping[str, Any],
    ) -> None:
        """Hold a cell to include against the same rules as the values of axes."""
        changed: dict[str, dict[str, Any]] = {}
        for name, value in cell.items():
            if name in AXES:
                self._axis_value((*place, name), name, value, known, stages)
            else:
                section, _, setting = SHORT_AXES.get(name, name).partition(".")
                changed.setdefault(section, {})[setting] = value
        for section, values in changed.items():
            base = _as_dict(stages[section])
            self._parsed(place, type(stages[section]), {**base, **values})

    def _cells(
        self,
        key: str,
        axes: Sequence[Axis],
        known: Mapping[str, Mapping[str, object]],
        stages: Mapping[str, Any],
    ) -> tuple[Mapping[str, Any], ...]:
        raw = self.file.sweep.get(key)
        if raw is None:
            return ()
        if not isinstance(raw, list) or not all(isinstance(cell, dict) for cell in raw):
            self._problem(
                (key,), f"{key} must be a list of mappings", raw, "write `- {pruner: none}`"
            )
            return ()
        names = [axis.name for axis in axes]
        found: list[Mapping[str, Any]] = []
        for index, cell in enumerate(raw):
            place: Place = (key, index)
            unknown = [name for name in cell if name not in names]
            for name in unknown:
                self._unknown((*place, name), name, names, f"an axis in {key}")
            missing = [name for name in names if name not in cell]
            if key == "include" and missing:
                rule = "a cell to include must name every axis"
                self._problem(place, rule, cell, f"add {', '.join(missing)}")
            elif key == "include" and not unknown:
                self._included(place, cell, known, stages)
            if key == "include":
                found.append(cell)
            else:
                found += self._excluded(place, cell, axes, known, len(found))
        return tuple(found)

    def _excluded(
        self,
        place: Place,
        cell: Mapping[str, Any],
        axes: Sequence[Axis],
        known: Mapping[str, Mapping[str, object]],
        n_before: int,
    ) -> list[Mapping[str, Any]]:
        """The cells that an exclude stands for, its lists written out."""
        choices = _choices(cell, axes)
        for name, values in choices.items():
            for value in values if name in known else ():
                if not _is_in(value, known[name]):
                    self._unknown((*place, name), value, list(known[name]), name)
        n_cells = n_before + math.prod(len(values) for values in choices.values())
        if n_cells > MOST_EXCLUDES:
            rule = f"excludes must name at most {MOST_EXCLUDES} cells, lists written out"
            self._problem(place, rule, n_cells, "shorten the axes of the grid instead")
            return []
        return [
            dict(zip(choices, values, strict=True))
            for values in itertools.product(*choices.values())
        ]

    def _split_contents(
        self, split: object, axes: Sequence[Axis], include: Sequence[Mapping[str, Any]]
    ) -> dict[str, str]:
        """Hash the split files, so that content and not path is part of every key."""
        assert isinstance(split, SplitSettings)
        named: list[tuple[object, Place]] = [(split.file, ("stages", "split", "file"))]
        for axis in axes:
            if axis.name == _SPLIT_FILE:
                named += [(value, ("grid", axis.name)) for value in axis.values]
        for index, cell in enumerate(include):
            named.append((cell.get(_SPLIT_FILE), ("include", index, _SPLIT_FILE)))
        contents: dict[str, str] = {}
        for name, place in named:
            if not isinstance(name, str) or not name or name in contents:
                continue
            path = self._path(place, name)
            if path is None:
                continue
            try:
                contents[name] = content_hash(read_split_file(Path(path)))
            except ConfigError as error:
                self._problem(place, "the split file must be readable", str(error), "correct it")
        return contents

    def _parsed(self, place: Place, settings: type[T], value: object) -> T | None:
        """The settings, or None with the problems noted."""
        if not isinstance(value, dict):
            self._problem(
                place, f"{_label(place)} must be a mapping", value, "write `name: value` lines"
            )
            return None
        try:
            return _parse(settings, value)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._note(place, settings, detail)
            return None

    def _note(self, place: Place, settings: type, detail: Any) -> None:  # noqa: ANN401
        where: Place = (*place, *detail["loc"])
        kind, given = detail["type"], detail["input"]
        name = ".".join(str(part) for part in detail["loc"])
        if kind == "unexpected_keyword_argument":
            known = [entry.name for entry in fields(_settings_at(settings, detail["loc"][:-1]))]
            self._unknown(where, detail["loc"][-1], known, f"a key of {_label(place)}")
        elif kind == "missing":
            self._problem(
                where, f"{_label(place)} must have the key {name}", given, f"add `{name}: ...`"
            )
        elif kind == "value_error":
            error = detail["ctx"]["error"]
            if not isinstance(error, ConfigError):
                error = ConfigError(str(error))
            named = self._key_named(where, error.rule)
            value = _Said(error.value) if error.value else given
            self._problem(named, error.rule, value, error.way_out or "correct it")
        else:
            rule = detail["msg"].removeprefix("Input should be ").replace("valid ", "")
            rule = rule.replace("a integer", "a whole number")
            way_out = "correct the value"
            if kind == "string_type" and where in self.file.unquoted:
                way_out = needs_quotes(self.file.unquoted[where])
            self._problem(where, f"{name or _label(place)} must be {rule}", given, way_out)

    def _key_named(self, place: Place, rule: str) -> Place:
        """The key that a rule begins with, if the file has it there."""
        named = (*place, rule.split(" ", 1)[0])
        return named if named in self.file.lines else place


class _Said(str):
    """A value in words: it is shown as it is."""

    __slots__ = ()


def _is_in(value: object, names: Mapping[str, object]) -> bool:
    """Whether a value of the file is one of some names."""
    return isinstance(value, str) and value in names


def _choices(cell: Mapping[str, Any], axes: Sequence[Axis]) -> dict[str, list[Any]]:
    """Axis → values that a cell of the file names: a list stands for each of its entries.

    Unless the list is itself a value of the axis.
    """
    values = {axis.name: axis.values for axis in axes}
    return {
        name: value
        if isinstance(value, list) and value and value not in values.get(name, (value,))
        else [value]
        for name, value in cell.items()
    }


def _required(settings: type) -> list[str]:
    """Fields without a default."""
    return [
        entry.name
        for entry in fields(settings)
        if entry.default is MISSING and entry.default_factory is MISSING
    ]


def _label(place: Place) -> str:
    """What a message calls a place: its key, or the number of a list's entry."""
    last = place[-1]
    return f"entry {last + 1} of {place[-2]}" if isinstance(last, int) else last


def _settings_at(settings: type, loc: Sequence[str | int]) -> type:
    """The settings class that a path of fields leads to."""
    for name in loc:
        found = next((entry.type for entry in fields(settings) if entry.name == name), None)
        if isinstance(found, type):
            settings = found
    return settings


def _parse(settings: type[T], value: Mapping[str, Any]) -> T:
    """Validate strictly: no text becomes a number, no unknown key passes."""
    kind: Any = settings
    parsed: T = _adapter(kind).validate_json(json.dumps(value), strict=True)
    return parsed


@functools.lru_cache(maxsize=4096)
def _with_setting(settings: T, name: str, value: str) -> T:
    """Settings with one of them replaced; equal ones are one object, which makes hashing cheap."""
    return _parse(type(settings), {**_as_dict(settings), name: json.loads(value)})


@functools.cache
def _adapter(settings: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - a type, as a key of the cache
    return TypeAdapter(settings)


def _as_dict(settings: Any) -> dict[str, Any]:  # noqa: ANN401
    return {entry.name: getattr(settings, entry.name) for entry in fields(settings)}

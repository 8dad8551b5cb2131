"""What a stage costs: seconds and bytes of finished ones, per unit of work, nearest group first.

Seconds per unit of work are taken as log-normal. A stage is answered from the nearest group of
observations that there is: the same arm, backbone, data set and device, then ever less of them.
Coarser groups have wider intervals, since what they leave out is unknown.
"""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
from scipy.stats import t as student

from files.encoding import to_json
from files.reading import value_or_none, warn_damaged
from iac_core.backbones.nnunet_unet import NnunetSettings
from iac_core.training.searches import SEARCHES
from results.errors import ResultsError
from results.store import read_table
from workers.arms import arm_of as job_arm
from workers.job import Job, plain
from workers.key_names import key_name_of_class
from workers.provenance import is_gpu
from workers.recipes import recipe_of
from workers.stage_kind import StageKind
from workers.stage_store import StageRecord, StageStore
from workers.stages.prepare import PREPARE
from workers.stages.table import STAGES
from workers.work import DataSize, Work

SHARE = 0.9
"""Of the interval: so many of the stages are meant to lie within it."""
_MOST_RECORDS = 2000
_PROBES = "costs"
_PRIOR_WEIGHT = 2.0
_MEDIAN_NOISE = 1.25
"""Deviation of a median over that of a mean."""
_LEVELS: tuple[tuple[tuple[str, ...], str, float], ...] = (
    (("kind", "arm", "backbone", "dataset", "device", "on_gpu", "is_exclusive"), "the same", 0.3),
    (("kind", "arm", "backbone", "dataset", "device", "on_gpu"), "alone or not", 0.35),
    (("kind", "arm", "backbone", "device", "on_gpu"), "another data set", 0.5),
    (("kind", "arm", "device", "on_gpu"), "another backbone", 0.8),
    (("kind", "device", "on_gpu"), "another arm", 1.0),
    (("kind",), "another device", 1.5),
)
"""What a group has in common, what it is called, deviation of the log that is assumed of it."""
_N_LEVELS_SHARED = 2
"""Levels whose deviation is that of single stages; a coarser one is wrong about all of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A stage whose cost is asked for.

    Attributes:
        kind: Kind of stage.
        arm: Value of the pruner axis for a search; for a retraining ``cells`` or ``backbone``.
        backbone: Its name in the sweep.
        dataset: Its name in the sweep; empty if unknown.
        device: Model of the device; empty if unknown, then any of its sort counts.
        on_gpu: Whether that is a GPU.
        is_exclusive: Whether it has its device to itself.
        work: How much there is to do.
    """

    kind: str
    work: Work
    arm: str = ""
    backbone: str = ""
    dataset: str = ""
    device: str = ""
    on_gpu: bool = False
    is_exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A finished stage: what it was, its seconds, and the bytes it left (None if unknown).

    Of several with one key, which is not empty, the first counts.
    """

    of: Question
    seconds: float
    n_bytes: int | None = None
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a stage will take.

    Attributes:
        seconds: Median.
        stage_sd: Deviation of the logarithm, of one stage from the others of its group.
        group_sd: The same of the whole group, common to all of its stages.
        n: Observations it rests on.
        freedom: Their degrees of freedom.
        level: Index into the levels, 0 is the nearest.
    """

    seconds: float
    stage_sd: float
    group_sd: float
    n: int
    freedom: float
    level: int

    @property
    def group(self) -> str:
        """What the group differs in."""
        return _LEVELS[self.level][1]

    def interval(self) -> tuple[float, float]:
        """Bounds between which the seconds of one stage lie with probability `SHARE`."""
        reach = _reach(self.freedom) * math.hypot(self.stage_sd, self.group_sd)
        return self.seconds * math.exp(-reach), self.seconds * math.exp(reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """A sum with its interval; `n_unknown` of `n` stages are not in it."""

    value: float = 0.0
    low: float = 0.0
    high: float = 0.0
    n: int = 0
    n_unknown: int = 0


class CostModel:
    """Answers questions from observations.

    Args:
        observations: What is known so far.
    """

    def __init__(self, observations: Iterable[Observation] = ()) -> None:
        self._groups: dict[tuple[Any, ...], list[Observation]] = {}
        self._answers: dict[Question, Answer | None] = {}
        self._usual: dict[str, list[float]] = {}
        self._seen: set[tuple[str, str]] = set()
        self.n = 0
        for observation in observations:
            self.add(observation)

    def add(self, observation: Observation) -> None:
        """Learn from one more."""
        question, key = observation.of, observation.key
        if key and (question.kind, key) in self._seen:
            return
        self._seen.add((question.kind, key))
        for level, (names, _, _) in enumerate(_LEVELS):
            # Questions may leave the device open.
            for asked in {names, _without_device(names)}:
                place = _key(level, asked, question)
                self._groups.setdefault(place, []).append(observation)
        if question.work.per_round is not None:
            self._usual.setdefault(question.kind, []).append(question.work.per_round)
        self._answers.clear()
        self.n += 1

    def answer(self, question: Question) -> Answer | None:
        """Return what a stage will take, or None if no stage of its kind was ever observed."""
        if question not in self._answers:
            self._answers[question] = self._answer(question)
        return self._answers[question]

    def bytes_of(self, question: Question) -> float | None:
        """Return the bytes a stage will leave: the median of the nearest group that knows."""
        for found, _ in self._nearest(question):
            sizes = [one.n_bytes for one in found if one.n_bytes is not None]
            if sizes:
                return float(median(sizes))
        return None

    def total_seconds(self, wanted: Mapping[Question, int]) -> Total:
        """Return the seconds of many stages, one after the other."""
        value, variance, n_unknown = 0.0, 0.0, 0
        shared: dict[tuple[int, str], float] = {}
        freedom = math.inf
        for question, n in wanted.items():
            found = self.answer(question)
            if found is None:
                n_unknown += n
                continue
            each = found.seconds * math.exp(found.stage_sd**2 / 2)
            value += n * each
            variance += n * each**2 * math.expm1(found.stage_sd**2)
            # Of a coarse group all stages of its level err alike; of a near one its own.
            own = question.backbone + question.dataset + question.arm
            place = found.level, "" if found.level > _N_LEVELS_SHARED else question.kind + own
            shared[place] = shared.get(place, 0.0) + n * each * math.sqrt(
                math.expm1(found.group_sd**2)
            )
            freedom = min(freedom, found.freedom)
        variance += sum(deviation**2 for deviation in shared.values())
        sd = math.sqrt(math.log1p(variance / value**2)) if value else 0.0
        reach = _reach(freedom) * sd if value else 0.0
        return Total(
            value=value,
            low=value * math.exp(-reach),
            high=value * math.exp(reach),
            n=sum(wanted.values()),
            n_unknown=n_unknown,
        )

    def _answer(self, question: Question) -> Answer | None:
        for found, level in self._nearest(question):
            rates = [math.log(one.seconds / self._units(one.of)) for one in found]
            middle, n = median(rates), len(rates)
            assumed = _LEVELS[level][2]
            squares = sum((rate - middle) ** 2 for rate in rates)
            sd = math.sqrt((squares + _PRIOR_WEIGHT * assumed**2) / (n - 1 + _PRIOR_WEIGHT))
            # What a coarser group leaves out does not average out over its observations.
            group_sd = _MEDIAN_NOISE * sd / math.sqrt(n) if level <= 1 else max(sd, assumed)
            return Answer(
                seconds=math.exp(middle) * self._units(question),
                stage_sd=sd if level <= 1 else min(sd, _LEVELS[1][2]),
                group_sd=group_sd,
                n=n,
                freedom=n - 1 + _PRIOR_WEIGHT,
                level=level,
            )
        return None

    def _nearest(self, question: Question) -> Iterator[tuple[list[Observation], int]]:
        for level, (names, _, _) in enumerate(_LEVELS):
            asked = names if question.device else _without_device(names)
            found = self._groups.get(_key(level, asked, question))
            if found:
                yield found, level

    def _units(self, question: Question) -> float:
        work = question.work
        per_round = work.per_round
        if per_round is None:
            # As much as where it was known; a constant, which cancels, where it never was.
            usual = self._usual.get(question.kind)
            per_round = median(usual) if usual else 1.0
        return max(work.rounds * per_round * work.pixels, 1e-9)


def _without_device(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name != "device")


def _key(level: int, names: tuple[str, ...], question: Question) -> tuple[Any, ...]:
    return (level, "device" in names, *(getattr(question, name) for name in names))


def _reach(freedom: float) -> float:
    """Deviations on either side of the middle that hold `SHARE` of the values."""
    return float(student.ppf((1 + SHARE) / 2, freedom if math.isfinite(freedom) else 1e6))


def arm_of(kind: str, pruner: str, *, has_cells: bool) -> str:
    """Return what of the pruner axis the cost of a kind of stage depends on."""
    cells = "cells" if has_cells else "backbone"
    return {"pruner": pruner, "cells": cells, "": ""}[STAGES[kind].varies_with]


def question_of(
    name: str, job: Job, *, device: str, on_gpu: bool, is_exclusive: bool, data: DataSize
) -> Question:
    """Return the question for a kind of stage of a job, whether its key is known or not."""
    kind = STAGES[name]
    return Question(
        kind=kind.name,
        arm=arm_of(kind.name, job.pruner, has_cells=job_arm(job).has_cells),
        backbone=job.backbone if kind.needs_backbone() else "",
        dataset=job.dataset,
        device=device,
        on_gpu=on_gpu,
        is_exclusive=is_exclusive,
        work=kind.work(_sections_of(job), job.settings.prepare.size, data),
    )


def _sections_of(job: Job) -> dict[str, Any]:
    """The settings of a job, as those that the keys of its stages hold."""
    settings = job.settings
    sections = {
        kind.section: plain(settings.section(kind.section) or kind.settings())
        for kind in STAGES.values()
    }
    del sections["pretrain"]
    return sections | {
        **recipe_of(settings.backbone).pretrain_inputs(job),
        "backbone": plain(settings.backbone),
        "pruner": plain(settings.pruner),
        "pruner_type": job.pruner_type,
    }


def observation_of(
    record: StageRecord, prepared: StageRecord | None, n_bytes: int | None = None
) -> Observation | None:
    """Return what a manifest says of costs; None if it was computed before names were noted.

    Args:
        record: The manifest.
        prepared: That of the preparation it builds on, for the size of the data.
        n_bytes: What lies in its folder.
    """
    names = record.provenance.get("job")
    seconds = seconds_of(record)
    if names is None or seconds is None:
        return None
    outcome = {} if prepared is None else prepared.outcome
    data = DataSize(
        **{name: outcome.get(name) for name in ("n_volumes", "n_slices", "n_training_slices")}
    )
    question = Question(
        kind=record.kind,
        arm=arm_of(record.kind, names["pruner"], has_cells=names["has_cells"]),
        backbone=names["backbone"] if STAGES[record.kind].needs_backbone() else "",
        dataset=names["dataset"],
        device=record.provenance["device"],
        on_gpu=is_gpu(record.provenance["device"]),
        is_exclusive=record.provenance.get("is_exclusive", False),
        work=STAGES[record.kind].work(record.settings, names["size"], data),
    )
    return Observation(of=question, seconds=seconds, n_bytes=n_bytes, key=record.key)


def seconds_of(record: StageRecord) -> float | None:
    """Return what a stage took: its last attempt, or what it counted itself if it was resumed."""
    counted = record.outcome.get("search_s", record.outcome.get("seconds"))
    if len(record.attempts) > 1 and counted:
        return float(counted)
    last = record.attempts[-1]
    return max(float(last["end"] - last["start"]), 1e-3) if last["end"] else None


def observations_of_store(store: StageStore) -> Iterator[Observation]:
    """Return what finished stages took, at most two thousand of each kind, and what was probed."""
    prepared: dict[str, StageRecord | None] = {}
    for kind in STAGES:
        for record in store.records(kind, sorted(store.keys(kind))[:_MOST_RECORDS]):
            try:
                found = _observed(store, record, prepared)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                # An older manifest, without a checksum.
                name = f"{store.root}/{kind}/{record.key}/manifest.json"
                warn_damaged(name, f"must say what the stage took, got {error!r}")
                continue
            if found is not None:
                yield found
    probes = store.place.read_all(
        f"{_PROBES}/{name}/probe.json" for name in store.place.names(_PROBES)
    )
    for name, content in probes.items():
        found = _probed(content, f"{store.root}/{name}")
        if found is not None:
            yield found


def _observed(
    store: StageStore, record: StageRecord, prepared: dict[str, StageRecord | None]
) -> Observation | None:
    """What a stage took; `prepared` remembers the preparations."""
    base = record.key
    if record.kind != PREPARE.name:
        base = str(record.settings["parents"].get(PREPARE.name))
    if base not in prepared:
        prepared[base] = store.record(PREPARE.name, base)
    return observation_of(record, prepared[base], _bytes_of(store, record))


def _probed(content: bytes, name: str) -> Observation | None:
    """What a probe measured; None if its note is damaged."""
    raw = value_or_none(content, dict, name=name)
    if raw is None:
        return None
    try:
        work = Work(**raw["of"].pop("work"))
        return Observation(of=Question(**raw["of"], work=work), seconds=float(raw["seconds"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        warn_damaged(name, f"must say what a probe measured, got {error!r}")
        return None


def keep_probe(store: StageStore, name: str, observation: Observation) -> None:
    """Leave a probe's measurement beside the store; a later one of the same name replaces it."""
    store.place.remove(f"{_PROBES}/{name}")
    store.place.create(f"{_PROBES}/{name}/probe.json", to_json(asdict(observation)))


def _bytes_of(store: StageStore, record: StageRecord) -> int | None:
    """What a stage left on disk; in a bucket what its manifest says, which older ones do not."""
    if store.place.is_remote:
        return None if record.files is None else sum(size for size, _ in record.files.values())
    return _bytes_in(store.place.fetch(f"{record.kind}/{record.key}"))


def _bytes_in(folder: Path) -> int:
    return sum(
        (Path(where) / name).stat().st_size
        for where, _, names in os.walk(folder)
        for name in names
    )


def observations_of_tables(folder: Path) -> Iterator[Observation]:
    """Return what the stages of an earlier sweep took, from its tables ``jobs`` and ``stages``.

    A folder without readable tables says nothing.
    """
    try:
        jobs = read_table(folder / "jobs.parquet", "jobs")
        stages = read_table(folder / "stages.parquet", "stages")
    except (OSError, ResultsError):
        return
    rows = {str(row["job_id"]): row for row in jobs.to_dict("records")}
    done = stages[(stages["outcome"] == "done") & stages["seconds"].notna()]
    for stage in done.to_dict("records"):
        row = rows.get(str(stage["job_id"]))
        if row is None:
            continue
        kind, seconds = str(stage["kind"]), float(stage["seconds"])
        if int(stage["attempt"] or 1) > 1:  # resumed: the last attempt is only the rest
            seconds = _number(row.get(f"{kind}_s")) or 0.0
        if kind not in STAGES:  # of another version of the project
            continue
        question = _question_of_row(STAGES[kind], row)
        # Work that is counted in slices of a data set of unknown size says nothing of a rate.
        is_counted = question.work.per_round is not None or not _search_of_row(row)
        if seconds > 0 and (STAGES[kind].varies_with != "pruner" or is_counted):
            yield Observation(of=question, seconds=seconds, key=str(stage["key"]))


def _question_of_row(kind: StageKind, row: Mapping[Any, Any]) -> Question:
    sections: dict[str, Any] = {
        name: {
            setting: _number(row.get(f"config_{name}_{setting}"))
            for setting in ("epochs", "batch_size", "steps_per_epoch")
        }
        for name in ("pretrain", "search", "retrain")
    }
    by_nnunet = _settings_in(row, "backbone", NnunetSettings)
    if by_nnunet is not None:
        del sections["pretrain"]
        sections["backbone"] = {"epochs": by_nnunet["epochs"] or 1.0}
    sections |= _search_of_row(row)
    device = "" if pd.isna(row["device"]) else str(row["device"])
    if not kind.uses_gpu and is_gpu(device):  # the row's device is that of the trainings
        device = ""
    has_cells = bool(row["genotype"]) and not pd.isna(row["genotype"])
    return Question(
        kind=kind.name,
        arm=arm_of(kind.name, str(row["pruner"]), has_cells=has_cells),
        backbone=str(row["backbone"]) if kind.needs_backbone() else "",
        dataset=str(row["dataset"]),
        device=device,
        on_gpu=is_gpu(device),
        is_exclusive=kind.is_timed and row["search_exclusive"] is True,
        work=kind.work(sections, int(_number(row.get("config_prepare_size")) or 0), DataSize()),
    )


def _search_of_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Settings of the search that is no operation pruner, if the row's is one."""
    for kind in SEARCHES.values():
        settings = _settings_in(row, "pruner", kind.settings)
        if settings is not None:
            return {"pruner": settings, "pruner_type": key_name_of_class(kind.settings)}
    return {}


def _settings_in(
    row: Mapping[Any, Any], section: str, settings: type
) -> dict[str, float | None] | None:
    """The numbers of a section of settings; None unless the row has every setting of a class."""
    columns = {field.name: f"config_{section}_{field.name}" for field in fields(settings)}
    if any(pd.isna(row.get(column)) for column in columns.values()):
        return None
    return {name: _number(row[column]) for name, column in columns.items()}


def _number(value: object) -> float | None:
    number = pd.to_numeric(value, errors="coerce")  # type: ignore[call-overload]
    return None if pd.isna(number) else float(number)


def known_costs(store: StageStore, runs_dir: Path) -> CostModel:
    """Return the model of everything that the store and earlier sweeps' tables say."""
    tables = (
        observation
        for folder in sorted(runs_dir.glob("*/tables"))
        for observation in observations_of_tables(folder)
    )
    return CostModel(itertools.chain(observations_of_store(store), tables))

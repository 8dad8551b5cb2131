"""Open a sweep: its file, data folders and stages; every problem before anything runs."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from files.encoding import to_json
from files.reading import names_in, value_or_none
from iac_core.backbones import BACKBONES
from iac_core.data import DATASETS, open_dataset
from iac_core.data.check import check_dataset
from iac_core.data.fingerprint import fingerprint
from iac_core.data.splits import make_split
from iac_core.errors import ConfigError, DataError, Problem
from iac_core.pruners import OPERATION_PRUNERS
from iac_core.training.searches import SEARCHES
from iac_core.types import SegmentationDataset
from orchestrator.expand import Expansion, expand
from orchestrator.plan import Plan, make_plan
from orchestrator.run_sweep import SweepRoom
from orchestrator.spec import DatasetSettings, SweepError, SweepSpec, Tables, load_sweep
from workers.job import content_hash
from workers.places import Place
from workers.stage_store import StageStore
from workers.tasks import CONTROL_SETTINGS, CONTROLS, DataSource


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An open sweep.

    Attributes:
        spec: The sweep.
        expansion: Its jobs.
        sources: Dataset → its folder and fingerprint.
        store: Where stages lie.
        run_dir: Folder of this sweep: tables, report, lock.
        runs_dir: Folder of all sweeps: MLflow's files, the default store.
    """

    spec: SweepSpec
    expansion: Expansion
    sources: Mapping[str, DataSource]
    store: StageStore
    run_dir: Path
    runs_dir: Path

    def only(self, starts: Sequence[str]) -> "Session":
        """Return the session with the jobs whose id starts so; all of them if nothing is given.

        Raises:
            ConfigError: If no job's id does.
        """
        if not starts:
            return self
        jobs = tuple(job for job in self.expansion.jobs if job.job_id.startswith(tuple(starts)))
        if not jobs:
            raise ConfigError(
                f"a job's id must start so, got {', '.join(starts)}; `orchestrator plan "
                f"{self.spec.path} --jobs` lists them"
            )
        return replace(self, expansion=replace(self.expansion, jobs=jobs))

    def plan(self) -> Plan:
        """Look up what is done."""
        return make_plan(self.expansion.jobs, self.sources, self.store)

    @property
    def tracking_uri(self) -> str:
        """The sweep's tracking URI, or a SQLite file beside the runs."""
        if self.spec.tracking.uri is not None:
            return self.spec.tracking.uri
        return f"sqlite:///{(self.runs_dir / 'mlflow.db').resolve()}"

    @property
    def experiment(self) -> str:
        """The sweep's experiment, by default its name."""
        return self.spec.tracking.experiment or self.spec.name

    def room(self, *, has_gpus: bool = False, tries_quarantined: bool = False) -> SweepRoom:
        """Return where the sweep runs.

        Args:
            has_gpus: Whether stages run on GPUs unless the sweep says otherwise.
            tries_quarantined: Whether stages are tried however often they failed before.
        """
        return SweepRoom(
            store=self.store,
            stop_file=self.stop_file,
            sources=self.sources,
            resources=self.spec.resources,
            has_gpus=has_gpus,
            tries_quarantined=tries_quarantined,
            collected=names_in(self.run_dir / "tables" / "runs"),
        )

    @property
    def stop_file(self) -> Path:
        """The stages of this driver checkpoint and end when this file appears."""
        return self.run_dir / f"stop.{platform.node()}.{os.getpid()}"

    @property
    def writer_place(self) -> Place:
        """Where the lease lies that lets one driver at a time write to MLflow."""
        name = content_hash([self.tracking_uri, self.experiment])
        return self.store.place.at(f"leases/tracking-{name}")


def tables() -> Tables:
    """Return the names that a sweep may use: whatever stands in the project's tables."""
    return Tables(
        layouts=tuple(DATASETS),
        backbones={name: entry.Settings for name, entry in BACKBONES.items()},
        pruners={
            **{name: entry.Settings for name, entry in OPERATION_PRUNERS.items()},
            **{name: kind.settings for name, kind in SEARCHES.items()},
        },
        controls={name: CONTROL_SETTINGS.get(name) for name in CONTROLS},
    )


def open_sweep(
    path: Path, overrides: Mapping[str, str], runs_dir: Path, *, needs_data: bool
) -> Session:
    """Read a sweep and look at its data folders.

    Args:
        path: The sweep file.
        overrides: Dataset → folder, from the command line.
        runs_dir: Folder of all sweeps.
        needs_data: Check every volume; otherwise a folder that is not at hand only makes keys
            provisional, and nothing is read but names and sizes.

    Raises:
        SweepError: With every problem of the file and of the data folders.
        ConfigError: If the file is no YAML, or an exclude matches nothing.
    """
    try:
        spec = load_sweep(path, tables=tables(), overrides=overrides)
    except SweepError as error:
        found = _problems_of_folders(error.datasets) if needs_data else []
        raise SweepError([*error.problems, *found]) from error
    runs_dir = runs_dir.absolute()  # a trial of a study runs in a folder of its own
    store = _open_store(spec, runs_dir, needs_data=needs_data)
    expansion = expand(spec)
    problems: list[Problem] = []
    used = {job.dataset for job in expansion.jobs}
    sources = {
        name: _source(name, settings, spec, store, problems, needs_data=needs_data)
        for name, settings in spec.datasets.items()
        if name in used
    }
    if needs_data and not problems:
        problems += _split_problems(spec, expansion, sources)
    if problems:
        raise SweepError(problems)
    return Session(
        spec=spec,
        expansion=expansion,
        sources=sources,
        store=store,
        run_dir=runs_dir / spec.name,
        runs_dir=runs_dir,
    )


def _open_store(spec: SweepSpec, runs_dir: Path, *, needs_data: bool) -> StageStore:
    """The sweep's store, looked at before anything runs.

    Raises:
        SweepError: If it cannot be used.
    """
    root: Path | str = spec.store or runs_dir / "store"
    if isinstance(root, str) and "://" not in root:
        root = Path(root).absolute()
    try:
        store = StageStore(root)
        store.check(writes=needs_data)
    except ConfigError as error:
        found = _problems_of_folders(spec.datasets) if needs_data else []
        raise SweepError([_as_problem(error, spec, "store"), *found]) from error
    return store


def _source(
    name: str,
    settings: DatasetSettings,
    spec: SweepSpec,
    store: StageStore,
    problems: list[Problem],
    *,
    needs_data: bool,
) -> DataSource:
    """The folder of a dataset with its fingerprint; notes what is wrong with it."""
    absent = DataSource(
        layout=settings.layout,
        path=settings.path or "",
        fingerprint="",
        options=settings.options,
    )
    if settings.path is None or not Path(settings.path).is_dir():
        if needs_data:
            problems.append(
                Problem(
                    file=settings.path or str(spec.path),
                    rule=f"dataset {name!r} must have its folder",
                    value="no folder" if settings.path else "no path",
                    way_out=f"give it with --data {name}=PATH, or make the phantom with "
                    "`orchestrator phantom PATH`",
                )
            )
        return absent
    root = Path(settings.path)
    dataset = settings.open()
    try:
        found = fingerprint(dataset, root)
    except DataError as error:
        problems += error.problems
        return absent
    except ConfigError as error:
        problems.append(_as_problem(error, spec, f"datasets.{name}"))
        return absent
    if needs_data:
        problems += _checked(settings, dataset, found, store)
    return replace(absent, path=str(root), fingerprint=found)


def _checked(
    settings: DatasetSettings, dataset: SegmentationDataset, found: str, store: StageStore
) -> tuple[Problem, ...]:
    """Every problem of the volumes; a folder that was found clean is not read again."""
    note = f"checks/{settings.layout}-{found}.json"
    raw, name = store.place.read(note), f"{store.root}/{note}"
    if raw is not None and value_or_none(raw, dict, name=name) is not None:
        return ()
    summary = check_dataset(dataset)
    if not summary.problems:
        content = to_json(asdict(summary), is_indented=True)
        if not store.place.create(note, content):
            store.place.write(note, content)
    return summary.problems


def _split_problems(
    spec: SweepSpec, expansion: Expansion, sources: Mapping[str, DataSource]
) -> list[Problem]:
    """Splits that leave a part empty or name unknown patients, each once."""
    seen: dict[str, Problem] = {}
    for job in expansion.jobs:
        source = sources[job.dataset]
        identity = json.dumps([job.dataset, job.split_identity()], sort_keys=True)
        if identity in seen:
            continue
        refs = open_dataset(source.layout, Path(source.path), source.options).volumes()
        official = {ref.patient_id for ref in refs if ref.is_official_test}
        try:
            make_split(sorted({ref.patient_id for ref in refs}), job.settings.split, official)
        except ConfigError as error:
            seen[identity] = _as_problem(error, spec, "stages.split", about=f"{job.dataset}: ")
    return list(seen.values())


def _as_problem(error: ConfigError, spec: SweepSpec, place: str, about: str = "") -> Problem:
    """A message of the form ``rule, got value; way out`` with its place in the sweep file."""
    rule, _, rest = str(error).partition(", got ")
    value, _, way_out = rest.partition("; ")
    return Problem(
        file=str(spec.path),
        place=place,
        rule=about + rule,
        value=value,
        way_out=way_out or "correct it",
    )


def _problems_of_folders(datasets: Mapping[str, DatasetSettings]) -> list[Problem]:
    """What is wrong with the folders of a sweep whose file is wrong too."""
    problems: list[Problem] = []
    for settings in datasets.values():
        if settings.path is not None and settings.layout in DATASETS:
            problems += check_dataset(settings.open()).problems
    return problems

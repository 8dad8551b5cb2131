"""Open a sweep: its file, data folders and stages; every problem before anything runs."""

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

from addresses.sqlite import sqlite_url
from files.encoding import to_json
from files.reading import names_in, value_or_none
from iac_core.backbones import BACKBONES
from iac_core.data import DATASETS
from iac_core.data.check import CHECK_VERSION, check_dataset, warning_lines
from iac_core.data.fingerprint import fingerprint
from iac_core.errors import ConfigError, DataError, Problem
from iac_core.pruners import OPERATION_PRUNERS
from iac_core.training.searches import SEARCHES
from orchestrator.disk import write_trouble
from orchestrator.expand import Expansion, expand
from orchestrator.plan import Plan, make_plan
from orchestrator.printed import Typed
from orchestrator.remembered import DataNote
from orchestrator.rules import as_problem, rule_problems
from orchestrator.run_sweep import SweepRoom
from orchestrator.spec import DatasetSettings, SweepError, SweepSpec, Tables, load_sweep
from orchestrator.target import Target, located_uri, missing_folder, resolve
from workers.arms import ARMS
from workers.job import content_hash, plain
from workers.places import Place
from workers.stage_store import StageStore
from workers.task import DataSource

Needs = Literal["names", "keys", "volumes"]
"""What a command needs of the data folders: nothing but names, the keys of stages, all volumes."""

logger = logging.getLogger(__name__)
_WARNING_LINES = "warning_lines"


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
        typed: What the user typed, for commands that are printed.
        declared: Dataset → the folder that the sweep file names, or None.
        notices: What the user may not expect of the folders, a line each.
    """

    spec: SweepSpec
    expansion: Expansion
    sources: Mapping[str, DataSource]
    store: StageStore
    run_dir: Path
    runs_dir: Path
    typed: Typed = field(default_factory=Typed)
    declared: Mapping[str, str | None] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    def command(self, *words: str, options: Sequence[str] = ()) -> str:
        """Return a command on this sweep as the user would type it (`orchestrator.printed`)."""
        return self.typed.command(*words, options=options)

    def data_notes(self) -> dict[str, DataNote]:
        """Return what a run of the sweep remembers of its data folders."""
        return {
            name: DataNote(
                layout=source.layout,
                options=plain(source.options),
                path=source.path,
                declared=self.declared.get(name),
                fingerprint=source.fingerprint,
            )
            for name, source in self.sources.items()
            if source.fingerprint
        }

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
                "a job's id must start so",
                value=", ".join(starts),
                way_out=f"`{self.command('plan', options=['--jobs'])}` lists them",
            )
        return replace(self, expansion=replace(self.expansion, jobs=jobs))

    def plan(self) -> Plan:
        """Look up what is done; nothing is of a dataset whose folder is not at hand."""
        # Two such datasets share no stage.
        sources = {
            name: replace(source, fingerprint=source.fingerprint or f"not at hand: {name}")
            for name, source in self.sources.items()
        }
        return replace(make_plan(self.expansion.jobs, sources, self.store), sources=self.sources)

    @property
    def tracking_uri(self) -> str:
        """The sweep's tracking URI, or a SQLite file beside the runs."""
        if self.spec.tracking.uri is not None:
            return located_uri(self.spec.tracking.uri, self.spec.path.parent)
        return sqlite_url(self.runs_dir / "mlflow.db")

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
        controls={name: arm.settings for name, arm in ARMS.items() if name},
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
    data = tuple(f"{name}={folder}" for name, folder in overrides.items())
    typed = Typed(sweep=path, data=data, runs=runs_dir)
    return open_typed(typed, overrides, needs="volumes" if needs_data else "names")


def open_typed(
    typed: Typed,
    overrides: Mapping[str, str],
    *,
    needs: Needs,
    needs_runs: bool = False,
    checks_rules: bool = False,
) -> Session:
    """Open what a command works on (`orchestrator.target`).

    Args:
        typed: What the user typed; it names a sweep file.
        overrides: Dataset → folder, of ``--data``.
        needs: ``names`` lets a folder that is not at hand make keys provisional; ``keys`` asks for
            its content or for what the last run noted of it; ``volumes`` checks every volume, and
            the rules.
        needs_runs: Whether the runs folder must be there, unless the sweep has a store elsewhere.
        checks_rules: Whether to check the rules of `orchestrator.rules` without all volumes.

    Raises:
        SweepError: With every problem of the file and of the folders.
        ConfigError: If the file is no YAML, or an exclude matches nothing.
    """
    assert typed.sweep is not None, "a sweep is opened by its file"
    checks_volumes = needs == "volumes"
    target = _resolved(typed, typed.sweep, overrides, checks_volumes=checks_volumes)
    spec = target.spec
    if checks_volumes:
        _refuse_unwritable([target.runs_dir, target.run_dir, target.store])
    store = _open_store(spec, target.store, checks_volumes=checks_volumes)
    expansion = expand(spec)
    missing_runs = target.missing_runs() if needs_runs and spec.store is None else None
    problems = [] if missing_runs is None else [missing_runs]
    notices = list(target.notices)
    used = {job.dataset for job in expansion.jobs}
    sources = {
        name: _source(name, target, problems, notices, checks_volumes=checks_volumes)
        for name in spec.datasets
        if name in used
    }
    for name, source in sources.items():
        must_be_here = checks_volumes or (checks_rules and name in overrides)
        is_here = Path(source.path or "?").is_dir()
        if (must_be_here and not is_here) or (needs == "keys" and not source.fingerprint):
            problems.append(missing_folder(name, spec.datasets[name], target.known.get(name)))
        elif checks_volumes and source.fingerprint:
            problems += _checked(spec.datasets[name], source.fingerprint, store)
    if (checks_volumes or checks_rules) and not problems:
        problems += rule_problems(spec, expansion, sources, store, notes=checks_volumes)
    if problems:
        raise SweepError(problems)
    return Session(
        spec=spec,
        expansion=expansion,
        sources=sources,
        store=store,
        run_dir=target.run_dir,
        runs_dir=target.runs_dir,
        typed=typed,
        declared=target.declared,
        notices=tuple(notices),
    )


def _resolved(
    typed: Typed, path: Path, overrides: Mapping[str, str], *, checks_volumes: bool
) -> Target:
    """What a command works on, as its sweep file, options and earlier runs say.

    Raises:
        SweepError: With every problem of the file, and of its data folders if they are checked.
        ConfigError: If the file is no YAML.
    """
    try:
        spec = load_sweep(path, tables=tables(), overrides=overrides)
    except SweepError as error:
        found = _problems_of_folders(error.datasets) if checks_volumes else []
        raise SweepError([*error.problems, *found]) from error
    named = load_sweep(path, tables=tables()) if overrides else spec
    declared = {name: one.path for name, one in named.datasets.items()}
    return resolve(typed, spec, overrides, declared)


def _refuse_unwritable(folders: Sequence[Path | str]) -> None:
    """Write a small file into every folder that a run needs, and remove it.

    Raises:
        SweepError: If that fails, with a problem for each.
    """
    found = [write_trouble(Path(folder)) for folder in folders if "://" not in str(folder)]
    problems = dict.fromkeys(problem for problem in found if problem is not None)
    if problems:
        raise SweepError(list(problems))


def _open_store(spec: SweepSpec, root: Path | str, *, checks_volumes: bool) -> StageStore:
    """The sweep's store, looked at before anything runs.

    Raises:
        SweepError: If it cannot be used.
    """
    try:
        store = StageStore(root)
        store.check(writes=checks_volumes)
    except ConfigError as error:
        found = _problems_of_folders(spec.datasets) if checks_volumes else []
        raise SweepError([as_problem(error, spec, "store"), *found]) from error
    return store


def _source(
    name: str,
    target: Target,
    problems: list[Problem],
    notices: list[str],
    *,
    checks_volumes: bool,
) -> DataSource:
    """The folder of a dataset with its fingerprint; notes what is wrong with it, or unexpected."""
    settings, note = target.spec.datasets[name], target.known.get(name)
    source = DataSource(
        layout=settings.layout,
        path=settings.path or "",
        fingerprint="",
        options=settings.options,
        max_volume_gib=settings.most_gib,
    )
    if settings.path is None or not Path(settings.path).is_dir():
        if note is None:
            return source
        notices.append(
            f"{name}: the folder {note.path} is gone; this is about its content in the last run"
        )
        return replace(source, fingerprint=note.fingerprint)
    try:
        found = fingerprint(settings.open(), Path(settings.path))
    except DataError as error:  # the check finds what is wrong with the volumes too
        found_too = check_dataset(settings.open()).problems if checks_volumes else ()
        problems += found_too or error.problems
        return source
    except ConfigError as error:
        problems.append(as_problem(error, target.spec, f"datasets.{name}"))
        return source
    if note is not None and note.fingerprint != found:
        notices.append(
            f"{name}: the content of {note.path} has changed since the last run: its stages are "
            "new ones"
        )
    return replace(source, fingerprint=found)


def _checked(settings: DatasetSettings, found: str, store: StageStore) -> tuple[Problem, ...]:
    """Every problem of the volumes; a folder that was found clean is not read again.

    Warnings are logged, by every run that uses the folder.
    """
    identity = content_hash([CHECK_VERSION, asdict(settings.options), settings.most_gib])
    note = f"checks/{settings.layout}-{found}-{identity}.json"
    warnings = _noted_warnings(store.place.read(note), f"{store.root}/{note}")
    if warnings is None:
        summary = check_dataset(settings.open())
        if summary.problems:
            return summary.problems
        warnings = list(warning_lines(summary.warnings))
        noted = {**asdict(summary), _WARNING_LINES: warnings}
        content = to_json(noted, is_indented=True)
        if not store.place.create(note, content):
            store.place.write(note, content)
    for line in warnings:
        logger.warning("%s", line)
    return ()


def _noted_warnings(note: bytes | None, name: str) -> list[str] | None:
    """The warnings of a folder that was found clean; None if there is no note to go by."""
    found = value_or_none(note, dict, name=name) if note is not None else None
    lines = (found or {}).get(_WARNING_LINES)
    return [str(line) for line in lines] if isinstance(lines, list) else None


def _problems_of_folders(datasets: Mapping[str, DatasetSettings]) -> list[Problem]:
    """What is wrong with the folders of a sweep whose file is wrong too."""
    problems: list[Problem] = []
    for settings in datasets.values():
        if settings.path is not None and settings.layout in DATASETS:
            problems += check_dataset(settings.open()).problems
    return problems

"""Rules of a sweep beyond its file: splits fit the patients, every network can be built.

`run`, `plan` and `doctor` look at the same rules before anything starts. Nothing is trained and no
volume is read.
"""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from files.encoding import to_json
from files.reading import value_or_none
from iac_core.backbones import build_backbone
from iac_core.backbones.external import ExternalSettings
from iac_core.cells.genotype import random_genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.data.splits import make_split
from iac_core.errors import ConfigError, DataError, Problem
from iac_core.seeding import numpy_generator
from orchestrator.expand import Expansion
from orchestrator.spec import SweepSpec
from workers.arms import arm_of
from workers.job import Job, content_hash, plain
from workers.provenance import versions
from workers.recipes import recipe_of
from workers.stage_store import StageStore
from workers.task import DataSource


def rule_problems(
    spec: SweepSpec,
    expansion: Expansion,
    sources: Mapping[str, DataSource],
    store: StageStore,
    *,
    notes: bool,
) -> list[Problem]:
    """Return whatever would make stages of a sweep fail later, each problem once.

    Args:
        spec: The sweep.
        expansion: Its jobs.
        sources: Dataset → its folder; one that is not at hand is passed over where its patients
            matter.
        store: Where it is noted which of the project's own networks could be built.
        notes: Whether to note it now.
    """
    return [
        *_split_problems(spec, expansion, sources),
        *_package_problems(spec, expansion),
        *_network_problems(spec, expansion, sources, store, notes=notes),
    ]


def as_problem(error: ConfigError, spec: SweepSpec, place: str, about: str = "") -> Problem:
    """Return an error as a problem of a sweep file.

    Args:
        error: The error.
        spec: The sweep.
        place: Where in the file.
        about: Put before the rule.
    """
    return Problem(
        file=str(spec.path),
        place=place,
        rule=about + error.rule,
        value=error.value or "another",
        way_out=error.way_out or "correct it",
    )


def _split_problems(
    spec: SweepSpec, expansion: Expansion, sources: Mapping[str, DataSource]
) -> list[Problem]:
    """Splits that leave a part empty or name unknown patients, each once."""
    seen: dict[str, Problem] = {}
    for job in expansion.jobs:
        source = sources[job.dataset]
        identity = json.dumps([job.dataset, job.split_identity()], sort_keys=True)
        if identity in seen or not Path(source.path or "?").is_dir():
            continue
        try:
            refs = source.open().volumes()
            official = {ref.patient_id for ref in refs if ref.is_official_test}
            wanted = job.settings.split.n_train_patients
            split = make_split(
                sorted({ref.patient_id for ref in refs}), job.settings.split, official
            )
            if wanted is not None and wanted > len(split.train):
                raise ConfigError(
                    f"n_train_patients must be at most the split's {len(split.train)} training "
                    "patients",
                    value=wanted,
                    way_out="lower it or leave it out",
                )
        except ConfigError as error:
            seen[identity] = as_problem(error, spec, "stages.split", about=f"{job.dataset}: ")
    return list(seen.values())


def _package_problems(spec: SweepSpec, expansion: Expansion) -> Iterator[Problem]:
    """Packages that a backbone of the sweep needs and that are not installed."""
    for name in dict.fromkeys(job.backbone for job in expansion.jobs):
        package = recipe_of(spec.backbones[name]).package
        if package and importlib.util.find_spec(package) is None:
            yield Problem(
                file=str(spec.path),
                place=f"backbones.{name}",
                rule="nnU-Net must be installed to run its pipeline",
                value=f"no package {package}",
                way_out="install it with `pip install '.[nnunet]'`, here and on every worker",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A network that jobs train: built for the channels and classes of their dataset."""

    job: Job
    n_channels: int
    n_classes: int

    @property
    def identity(self) -> str:
        """Hash of whatever decides on whether it can be built."""
        job = self.job
        return content_hash(
            [
                job.backbone_type,
                plain(job.settings.backbone),
                job.settings.prepare.size,
                plain(job.settings.cell) if arm_of(job).has_cells else None,
                self.n_channels,
                self.n_classes,
                versions(),
            ]
        )


def _network_problems(
    spec: SweepSpec,
    expansion: Expansion,
    sources: Mapping[str, DataSource],
    store: StageStore,
    *,
    notes: bool,
) -> list[Problem]:
    """Networks that cannot be built, or that refuse a slice; those noted as fine are passed by."""
    found: dict[str, Problem] = {}
    for wanted in _wanted(expansion.jobs, sources):
        job = wanted.job
        note = f"checks/network-{wanted.identity}.json"
        is_own = not isinstance(job.settings.backbone, ExternalSettings)
        if is_own and _is_noted(store, note):
            continue
        trouble = _trouble_of(wanted)
        if trouble:
            problem = as_problem(trouble, spec, f"backbones.{job.backbone}")
            found.setdefault(f"{job.backbone} {trouble}", problem)
        elif is_own and notes:
            content = to_json({"backbone": job.backbone, "is_fine": True})
            if not store.place.create(note, content):
                store.place.write(note, content)
    return list(found.values())


def _is_noted(store: StageStore, note: str) -> bool:
    """Whether a network was built before; a damaged note counts as absent."""
    content = store.place.read(note)
    found = value_or_none(content, dict, name=f"{store.root}/{note}") if content else None
    return found is not None and found.get("is_fine") is True


def _wanted(jobs: Sequence[Job], sources: Mapping[str, DataSource]) -> Iterator[_Wanted]:
    """Networks that differ, one job of each; those that follow from the data are left out.

    A network with cells stands for the same one without. Channels and classes matter to networks
    of the user alone: the project's own take any.
    """
    sizes: dict[str, tuple[int, int]] = {}
    seen: set[tuple[object, ...]] = set()
    for job in sorted(jobs, key=lambda job: not arm_of(job).has_cells):
        prepare, backbone = job.settings.prepare, job.settings.backbone
        dataset = job.dataset if isinstance(backbone, ExternalSettings) else None
        bare = (job.backbone, prepare.size, prepare.n_neighbours, dataset)
        sort = (*bare, job.settings.cell if arm_of(job).has_cells else None)
        if (
            recipe_of(backbone).network_follows_from_data
            or sort in seen
            or (sort[-1] is None and bare in seen)
        ):
            continue
        seen |= {bare, sort}
        if job.dataset not in sizes:
            sizes[job.dataset] = _channels_and_classes(sources[job.dataset])
        n_channels, n_classes = sizes[job.dataset]
        n_slices = 2 * prepare.n_neighbours + 1
        yield _Wanted(job=job, n_channels=n_channels * n_slices, n_classes=n_classes)


def _channels_and_classes(source: DataSource) -> tuple[int, int]:
    """Of a dataset; 1 and 2 where its folder is not at hand."""
    if not Path(source.path or "?").is_dir():
        return 1, 2
    try:
        described = source.open().description
    except (ConfigError, DataError):
        return 1, 2
    return len(described.channels), len(described.label_values)


def _trouble_of(wanted: _Wanted) -> ConfigError | None:
    """Why a network cannot be used, if it cannot."""
    # Without values first, which takes milliseconds; some networks look at values as they are
    # built.
    for device in ("meta", "cpu"):
        try:
            with torch.device(device), torch.no_grad():
                _build(wanted)
                return None
        except ConfigError as error:
            return error
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code can raise anything
            if device == "cpu":
                size, lines = wanted.job.settings.prepare.size, str(error).splitlines() or [""]
                return ConfigError(
                    f"the network must be built and take a slice of {size} × {size} pixels",
                    value=f"{type(error).__name__}: {lines[0]}",
                    way_out="correct its settings, its code or prepare.size",
                )
    return None


def _build(wanted: _Wanted) -> None:
    """Build a network and pass one slice through it.

    Raises:
        ConfigError: If it cannot be built, or its logits are of another shape.
        Exception: Whatever its code raises.
    """
    job = wanted.job
    size = job.settings.prepare.size
    backbone: Any = build_backbone(
        job.settings.backbone, n_channels=wanted.n_channels, n_classes=wanted.n_classes, seed=0
    )
    backbone.train(False)
    logits = backbone.decode(backbone.encode(torch.zeros(1, wanted.n_channels, size, size)))
    if logits.ndim != 4 or logits.shape[1] != wanted.n_classes:
        raise ConfigError(
            f"the network must return logits of {wanted.n_classes} classes",
            value=f"the shape {tuple(logits.shape)}",
            way_out="correct its code or classes_argument",
        )
    if arm_of(job).has_cells and backbone.sites:
        network: nn.Module = ImplantedNetwork(
            backbone,
            random_genotype(
                job.settings.cell, len(backbone.sites), numpy_generator(0, "random_genotype")
            ),
            job.settings.cell,
            scope=job.settings.retrain.scope,
            seed=0,
        )
        network.train(False)

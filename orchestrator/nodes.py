"""Every node of a cluster, looked at from itself: does it see what the driver sees?"""

import contextlib
import platform
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from iac_core.data.fingerprint import fingerprint
from iac_core.errors import ConfigError, DataError
from orchestrator.disk import LEAST_FREE_GIB
from orchestrator.doctor import Finding
from orchestrator.session import Session
from results.errors import TrackingError
from results.tracking.server import check_reachable
from workers.places import open_place
from workers.provenance import commit, versions
from workers.task import DataSource

MOST_CLOCK_DIFFERENCE_S = 5.0
"""No lease depends on clocks; starts and ends in the tables, and MLflow's times, do."""
_PATIENCE_S = 90.0
_N_CLOCK_READINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuestion:
    """What a node is asked.

    Attributes:
        sources: Dataset → its folder.
        store: Folder or URL of the store.
        notes: Folder in it where the driver has left a note, and where the node leaves one.
        tracking_uri: MLflow's tracking URI; empty if the nodes need not see it.
        name: Of the node, unique.
    """

    sources: Mapping[str, DataSource]
    store: str
    notes: str
    tracking_uri: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What a node sees.

    Attributes:
        host: Its name.
        versions: Package → version, ``python`` and ``iac_commit`` too.
        fingerprints: Dataset → fingerprint of its folder, or why there is none.
        store: Why the store is not the driver's; empty if it is.
        tracking: Why the tracking server cannot be reached; empty if it can.
        devices: What torch can compute on.
        free_gib: Free where the store lies; None for a bucket.
        clock_s: Its clock − the driver's, seconds.
        clock_error_s: How far off `clock_s` can be.
    """

    host: str
    versions: Mapping[str, str]
    fingerprints: Mapping[str, str]
    store: str
    tracking: str
    devices: str
    free_gib: float | None
    clock_s: float = 0.0
    clock_error_s: float = 0.0


def answer(question: NodeQuestion) -> NodeReport:
    """Look around on the machine that runs this."""
    store, free_gib = _store(question)
    tracking = ""
    try:
        check_reachable(question.tracking_uri)
    except TrackingError as error:
        tracking = str(error)
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return NodeReport(
        host=platform.node(),
        versions={**versions(), "iac_commit": commit()},
        fingerprints={name: _fingerprint(one) for name, one in question.sources.items()},
        store=store,
        tracking=tracking,
        devices=", ".join(names) or "no GPU",
        free_gib=free_gib,
    )


def examine_nodes(session: Session) -> Iterator[Finding]:
    """Ask every node of the connected cluster, and compare it with this machine.

    Args:
        session: The sweep.
    """
    place, notes = session.store.place, f"checks/nodes-{uuid.uuid4().hex[:8]}"
    place.create(f"{notes}/driver", notes.encode())
    try:
        question = NodeQuestion(
            sources=session.sources,
            store=str(session.store.root),
            notes=notes,
            tracking_uri=session.tracking_uri,
            name="",
        )
        own = answer(replace(question, name="own"))
        asked = _names()
        reports = _ask(question, asked)
        unseen = reports.keys() - place.names(notes)
    finally:
        place.remove(notes)
    silent = [name for node, name in asked.items() if node not in reports]
    yield Finding(
        what="nodes",
        is_ok=not silent,
        text=f"{len(silent)} of {len(asked)} do not answer: {', '.join(silent)}"
        if silent
        else f"{len(asked)}: {', '.join(sorted(asked.values()))}",
    )
    seen = {asked[node]: report for node, report in reports.items()}
    yield from compare(own, seen, unseen=[asked[node] for node in unseen])


def compare(
    own: NodeReport, reports: Mapping[str, NodeReport], *, unseen: list[str] | None = None
) -> Iterator[Finding]:
    """Say in what the nodes differ from the driver's machine.

    Args:
        own: The driver's machine.
        reports: Node → what it sees.
        unseen: Nodes whose note in the store the driver does not see.
    """
    yield _finding("versions", "as on this machine", _each(reports, partial(_other_versions, own)))
    yield _finding(
        "clock",
        f"within {max((abs(one.clock_s) for one in reports.values()), default=0.0):.2f} s",
        _each(reports, _wrong_clock),
    )
    for name, wanted in own.fingerprints.items():
        wrong = _each(reports, partial(_other_data, name=name, wanted=wanted))
        yield _finding(f"data {name}", f"fingerprint {wanted} everywhere", wrong)
    wrong = _each(reports, lambda one: one.store)
    wrong |= {
        name: "this machine does not see its note" for name in unseen or [] if name not in wrong
    }
    yield _finding("store", "one folder everywhere", wrong, "give `store` a path all nodes mount")
    yield _finding(
        "tracking",
        "reachable from everywhere",
        _each(reports, lambda one: one.tracking),
        "the driver alone writes to it: start it, or give `tracking.uri` an address all can reach",
    )
    yield _finding("disk", "enough", _each(reports, _short_of_disk))
    devices = sorted({one.devices for one in reports.values()})
    yield Finding(what="devices", is_ok=True, text="; ".join(devices))


def _names() -> dict[str, str]:
    """Node → a name for people, unique."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    names = {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in alive
    }
    common = Counter(names.values())
    return {
        node: name if common[name] == 1 else f"{name} {node[:6]}" for node, name in names.items()
    }


def _store(question: NodeQuestion) -> tuple[str, float | None]:
    """Why the store is not the driver's, and GiB free where it lies."""
    try:
        place = open_place(question.store)
        if place.read(f"{question.notes}/driver") is None:
            return f"the driver's note in {question.store} is not there", None
        place.create(f"{question.notes}/{question.name}", question.name.encode())
    except (OSError, ConfigError) as error:
        return str(error), None
    if isinstance(place.root, Path):
        return "", shutil.disk_usage(place.root).free / 2**30
    return "", None


def _ask(question: NodeQuestion, nodes: Mapping[str, str]) -> dict[str, NodeReport]:
    """Node → its report; nodes that are silent for too long are missing."""
    gpus = {node["NodeID"]: node["Resources"].get("GPU", 0.0) for node in ray.nodes()}
    references = {
        # Without a share of a GPU Ray would hide them all.
        _on(node, answer, n_gpus=0.01 if gpus[node] else 0.0).remote(
            replace(question, name=node)
        ): node
        for node in nodes
    }
    found = {}
    for reference in _in_time(references):
        node = references[reference]
        found[node] = replace(ray.get(reference), **_clock(node))
    return found


def _clock(node: str) -> dict[str, float]:
    """Difference of a node's clock to this one, from the fastest of a few answers."""
    readings = []
    for _ in range(_N_CLOCK_READINGS):
        before = time.time()
        reference = _on(node, _now).remote()
        if not _in_time([reference]):
            break
        told, after = ray.get(reference), time.time()
        readings.append(((after - before) / 2, told - (before + after) / 2))
    if not readings:
        return {"clock_error_s": _PATIENCE_S}
    error_s, difference_s = min(readings)
    return {"clock_s": difference_s, "clock_error_s": error_s}


def _now() -> float:
    return time.time()


def _on(node: str, function: Callable[..., Any], *, n_gpus: float = 0.0) -> Any:  # noqa: ANN401
    """A function as a Ray task for one node, which takes no slot there."""
    return ray.remote(function).options(
        num_cpus=0,
        num_gpus=n_gpus,
        max_retries=0,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )


def _in_time(references: Collection[Any]) -> list[Any]:
    """Those that end well before patience does."""
    waiting = list(references)
    ended, _ = ray.wait(waiting, num_returns=len(waiting), timeout=_PATIENCE_S)
    found = []
    for reference in ended:
        with contextlib.suppress(RayError):
            ray.get(reference)
            found.append(reference)
    return found


def _fingerprint(source: DataSource) -> str:
    if not Path(source.path).is_dir():
        return f"no folder {source.path}"
    try:
        return fingerprint(source.open(), Path(source.path))
    except DataError as error:
        return f"{len(error.problems)} problems, the first: {error.problems[0]}"
    except ConfigError as error:
        return str(error)


def _each(reports: Mapping[str, NodeReport], wrong: Callable[[NodeReport], str]) -> dict[str, str]:
    """Node → what is wrong with it, where anything is."""
    return {node: text for node, report in reports.items() if (text := wrong(report))}


def _finding(what: str, fine: str, wrong: Mapping[str, str], way_out: str = "") -> Finding:
    if not wrong:
        return Finding(what=what, is_ok=True, text=fine)
    nodes: dict[str, list[str]] = {}
    for node, text in wrong.items():
        nodes.setdefault(text, []).append(node)
    text = "; ".join(f"{', '.join(names)}: {text}" for text, names in nodes.items())
    return Finding(what=what, is_ok=False, text=text + (f"; {way_out}" if way_out else ""))


def _other_versions(own: NodeReport, report: NodeReport) -> str:
    names = sorted({*own.versions, *report.versions})
    pairs = [(name, report.versions.get(name), own.versions.get(name)) for name in names]
    return ", ".join(
        f"{name} {theirs or 'missing'} where this machine has {ours or 'none'}"
        for name, theirs, ours in pairs
        if theirs != ours
    )


def _wrong_clock(report: NodeReport) -> str:
    if abs(report.clock_s) - report.clock_error_s <= MOST_CLOCK_DIFFERENCE_S:
        return ""
    return f"{report.clock_s:+.0f} s from this machine, let NTP set it"


def _other_data(report: NodeReport, name: str, wanted: str) -> str:
    seen = report.fingerprints.get(name, "not looked at")
    return "" if seen == wanted else f"{seen} where this machine has {wanted}"


def _short_of_disk(report: NodeReport) -> str:
    if report.free_gib is None or report.free_gib >= LEAST_FREE_GIB:
        return ""
    return f"{report.free_gib:.1f} GiB free where the store lies"

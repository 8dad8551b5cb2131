"""Stages that were handed over, watched in the store: whole although nobody said so, silent, hung.

Ray takes minutes to give up a host that has gone silent; the stage's lease tells sooner.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.executors import Executor
from orchestrator.simulation import StageId
from workers.lease import LeaseWatch
from workers.preemption import note_of_node
from workers.run_stage import StageOrder
from workers.stage_store import StageRecord, StageStore
from workers.task import StageTask

HANG_GRACE_S = 300.0
"""A stage is killed if it has not ended so long after its timeout."""
_SECONDS_TO_SAY_SO = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a look has found.

    Attributes:
        whole: Stages that are whole and whose host has had time to say so.
        silent: Stages whose lease has run out, with its number; each lease is told once.
    """

    whole: list[tuple[StageTask, StageRecord]] = field(default_factory=list)
    silent: list[tuple[StageTask, int]] = field(default_factory=list)


class Watch:
    """Watches the stages of one executor.

    Args:
        executor: What runs them.
        store: Where they lie.
        lease_s: Time to live of their leases.
        stop_file: That of the driver: notes for nodes that go away lie beside it.
    """

    def __init__(
        self, executor: Executor, store: StageStore, *, lease_s: float, stop_file: Path
    ) -> None:
        self._executor, self._store = executor, store
        self._lease_s, self._stop_file = lease_s, stop_file
        self._orders: dict[StageId, StageOrder] = {}
        self._begun: dict[StageId, float] = {}
        self._killed: set[StageId] = set()
        self._whole_since: dict[StageId, float] = {}
        self._leases: dict[StageId, LeaseWatch] = {}
        self._told: Counter[StageId] = Counter()
        self._notes: set[Path] = set()

    def add(self, task: StageTask, order: StageOrder) -> None:
        """Watch a stage that is handed over now."""
        place = (task.kind, task.key)
        self._orders[place] = order
        self._begun.pop(place, None)
        self._killed.discard(place)

    def order_of(self, task: StageTask) -> StageOrder:
        """Return how a watched stage was ordered."""
        return self._orders[(task.kind, task.key)]

    def was_killed(self, task: StageTask) -> bool:
        """Return whether a watched stage hung and was killed for it."""
        return (task.kind, task.key) in self._killed

    def remove(self, task: StageTask) -> None:
        """Watch a stage no more: it has ended."""
        place = (task.kind, task.key)
        for known in (self._orders, self._begun, self._whole_since, self._leases, self._told):
            known.pop(place, None)
        self._killed.discard(place)

    def look(self) -> Findings:
        """Look at all of them; kill what hangs, and warn those whose node goes away.

        Raises:
            OSError: If the store is away.
        """
        self._warn_leaving_nodes()
        now, findings = time.monotonic(), Findings()
        whole = self._whole()
        for task, record in whole:
            since = self._whole_since.setdefault((task.kind, task.key), now)
            if now - since >= _SECONDS_TO_SAY_SO:
                findings.whole.append((task, record))
        keys = {record.key for _, record in whole}
        for task in self._store.begun(self._executor.running()):
            if task.key in keys:
                continue
            number = self._silent_number(task)
            if number is not None:
                findings.silent.append((task, number))
            else:
                self._kill_if_it_hangs(task, now)
        return findings

    def close(self) -> None:
        """Take away what stages on nodes that went away were told."""
        for note in self._notes:
            note.unlink(missing_ok=True)

    def _whole(self) -> list[tuple[StageTask, StageRecord]]:
        by_kind: dict[str, dict[str, StageTask]] = defaultdict(dict)
        for task in self._executor.running():
            by_kind[task.kind][task.key] = task
        return [
            (tasks[record.key], record)
            for kind, tasks in by_kind.items()
            for record in self._store.records(kind, self._known(kind, tasks))
        ]

    def _known(self, kind: str, keys: Collection[str]) -> Collection[str]:
        return self._store.keys(kind) & set(keys)

    def _silent_number(self, task: StageTask) -> int | None:
        place = (task.kind, task.key)
        if place not in self._leases:
            leases = self._store.lease_place(task.kind, task.key)
            self._leases[place] = LeaseWatch(leases, self._lease_s)
        number = self._leases[place].silent_number()
        if number is None or number <= self._told[place]:
            return None
        self._told[place] = number
        return number

    def _kill_if_it_hangs(self, task: StageTask, now: float) -> None:
        place = (task.kind, task.key)
        order = self._orders[place]
        if order.timeout_s is None or place in self._killed:
            return
        if place not in self._begun:
            if self._store.attempt_of(task.kind, task.key, order.submission) is not None:
                self._begun[place] = now
        elif now - self._begun[place] > order.timeout_s + HANG_GRACE_S:
            self._killed.add(place)
            self._executor.kill(task)

    def _warn_leaving_nodes(self) -> None:
        for node in self._executor.leaving_nodes():
            note = note_of_node(self._stop_file, node)
            if note not in self._notes:
                note.parent.mkdir(parents=True, exist_ok=True)
                note.touch()
                self._notes.add(note)

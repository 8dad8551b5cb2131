"""The loop of a sweep: submit what is missing, share what is common, collect what has ended."""

import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from files.writing import write_text
from orchestrator.executors import Executor
from orchestrator.packing import Packing, sort_of
from orchestrator.plan import JobState, KnownRecords, quarantine, state_of
from orchestrator.resources import ResourceSettings, StageResources
from orchestrator.tries import Tries
from orchestrator.watch import Findings, Watch
from workers.job import Job
from workers.lease import LeaseWatch
from workers.places import Place, StoreAwayError, attempts_of
from workers.run_stage import Failure, StageEnd, StageOrder, timeout_failure
from workers.stage_record import DamagedStageError
from workers.stage_store import StageRecord, StageStore
from workers.stages.table import STAGES
from workers.task import DataSource, StageTask
from workers.task_graph import JobGraph

logger = logging.getLogger(__name__)
T = TypeVar("T")
_POLL_S = 0.5
_REST_PER_SECOND_OF_LOOKING = 5.0
_LONGEST_REST_S = 30.0
_PATIENCE_S = 600.0
_SECONDS_BETWEEN_LOOKS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """How a job ended: its stages, and why it failed if it did."""

    state: JobState
    failure: Failure | None = None


@dataclass(slots=True, kw_only=True)
class SweepProgress:
    """What a view shows of a running sweep.

    Attributes:
        n_jobs: Jobs of the sweep.
        ended: Jobs that are done or failed: id → why it failed, if it did.
        executed: Stages computed in this run, with their seconds.
        reused: ``(kind, key)`` of stages found whole.
        running: Stages handed to the executor that have not ended.
        elsewhere: Stages that other drivers' processes compute now.
        failures: What failed in this run, once per stage.
        is_stopping: Whether the user asked to stop.
    """

    n_jobs: int
    ended: dict[str, Failure | None] = field(default_factory=dict)
    executed: dict[tuple[str, str], float] = field(default_factory=dict)
    reused: set[tuple[str, str]] = field(default_factory=set)
    running: Sequence[StageTask] = ()
    elsewhere: Sequence[StageTask] = ()
    failures: list[Failure] = field(default_factory=list)
    is_stopping: bool = False


class Looks:
    """When it is time to look at a store again, so that looking takes a small part of the time.

    Args:
        place: Where the store is.
        pause_s: Between two looks, at least; the place may want more.
    """

    def __init__(self, place: Place, pause_s: float = 0.0) -> None:
        self._pause_s = max(pause_s, place.seconds_between_looks)
        self._began = self._due = 0.0

    def begin(self) -> bool:
        """Return whether to look now."""
        self._began = time.monotonic()
        return self._began >= self._due

    def end(self) -> None:
        """Note that the look is over."""
        now = time.monotonic()
        rest_s = min(_LONGEST_REST_S, _REST_PER_SECOND_OF_LOOKING * (now - self._began))
        self._due = now + max(self._pause_s, rest_s)


class View:
    """What follows a sweep; this one shows nothing."""

    def submitted(self, task: StageTask) -> None:
        """A stage was handed to the executor."""

    def ended(self, task: StageTask, end: StageEnd) -> None:
        """A stage ended."""

    def refresh(self, progress: SweepProgress) -> None:
        """Called about twice a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRoom:
    """Where a sweep runs.

    Attributes:
        store: Where stages lie.
        stop_file: Appears when the user asks to stop.
        sources: Dataset → its folder.
        resources: What each kind of stage needs.
        has_gpus: Whether stages run on GPUs unless the sweep says otherwise.
        tries_quarantined: Whether stages are tried however often they failed before.
        collected: Jobs whose tables were collected before.
    """

    store: StageStore
    stop_file: Path
    sources: Mapping[str, DataSource]
    resources: ResourceSettings
    has_gpus: bool = False
    tries_quarantined: bool = False
    collected: frozenset[str] = frozenset()

    def needs(self, kind: str) -> StageResources:
        """Return what the sweep says that a kind of stage needs."""
        return self.resources.for_kind(kind, has_gpus=self.has_gpus)

    def order(
        self,
        kind: str,
        needs: StageResources,
        dead_number: int = 0,
        *,
        n_micro_batches: int = 1,
        is_alone: bool = False,
    ) -> StageOrder:
        """Return how a kind of stage is to be computed.

        Args:
            kind: Kind of stage.
            needs: What it reserves.
            dead_number: Of a lease that has run out.
            n_micro_batches: Parts that each batch is cut into.
            is_alone: Whether no other stage may run on the machine.
        """
        return StageOrder(
            store_root=str(self.store.root),
            stop_file=str(self.stop_file),
            device="cuda" if needs.gpus else "cpu",
            n_threads=self.resources.threads_of(needs),
            is_exclusive=self.resources.is_exclusive(kind),
            time_to_live_s=self.resources.lease_s,
            dead_number=dead_number,
            submission=uuid.uuid4().hex,
            timeout_s=None if needs.timeout_min is None else 60 * needs.timeout_min,
            n_micro_batches=n_micro_batches,
            is_alone=is_alone,
            gpu_share=min(1.0, needs.gpus or 1.0),
        )


def run_sweep(
    jobs: Sequence[Job],
    room: SweepRoom,
    executor: Executor,
    *,
    view: View,
    on_job_end: Callable[[JobEnd], None],
    priority: Callable[[StageTask], float] | None = None,
) -> SweepProgress:
    """Run every stage that is missing, each once, and report every job as it ends.

    A job whose stage failed ends there, unless another try can mend that kind of failure
    (`workers.failures`); the others go on. A stage that another driver's process
    computes is waited for, and taken over once that process is dead. When the stop file appears
    nothing new is submitted and the running stages checkpoint.

    Args:
        jobs: The sweep's jobs.
        room: Store, stop file, data folders, resources.
        executor: What runs stages.
        view: Follows along.
        on_job_end: Called once per job, done or failed.
        priority: Of a stage, the highest starts first; None takes them as they come.
    """
    with SweepRun(room, executor, view=view, on_job_end=on_job_end, priority=priority) as run:
        run.add(jobs)
        while run.is_busy:
            run.step()
    return run.progress


class SweepRun:
    """A run to which jobs are added; a context manager. See `run_sweep` for what it does.

    Args:
        room: Store, stop file, data folders, resources.
        executor: What runs stages.
        view: Follows along.
        on_job_end: Called once per job, done or failed. It must add no jobs.
        priority: Of a stage, the highest starts first; None takes them as they come.

    Attributes:
        progress: How it stands.
    """

    def __init__(
        self,
        room: SweepRoom,
        executor: Executor,
        *,
        view: View,
        on_job_end: Callable[[JobEnd], None],
        priority: Callable[[StageTask], float] | None = None,
    ) -> None:
        self.room, self.executor, self.view, self.on_job_end = room, executor, view, on_job_end
        self.priority = priority or (lambda task: 0.0)
        self.records = KnownRecords(room.store)
        self.packing = self.patiently(lambda: Packing(room.store.place, room.resources))
        self.tried_before = self.patiently(lambda: room.store.place.names("attempts"))
        self.progress = SweepProgress(n_jobs=0)
        self.graphs: list[JobGraph] = []
        self.waiting: dict[tuple[str, str], list[JobGraph]] = {}
        self.failed: dict[tuple[str, str], Failure] = {}
        self.ended: set[int] = set()
        self.elsewhere: dict[tuple[str, str], tuple[StageTask, LeaseWatch]] = {}
        self.paused: dict[tuple[str, str], tuple[StageTask, float]] = {}
        self.tries: dict[tuple[str, str], Tries] = defaultdict(Tries)
        self.watch = Watch(
            executor, room.store, lease_s=room.resources.lease_s, stop_file=room.stop_file
        )
        self.looks_elsewhere = Looks(room.store.place)
        self.looks_at_running = Looks(room.store.place, _SECONDS_BETWEEN_LOOKS)
        self.read: set[tuple[str, str]] = set()
        self.refreshed = 0.0
        self.stop_was_sent = False

    def __enter__(self) -> "SweepRun":
        self.room.store.withdraw_stop(self.room.stop_file)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.refresh()
            self.watch.close()
            self.room.store.withdraw_stop(self.room.stop_file)

    def add(self, jobs: Sequence[Job]) -> None:
        """Take jobs on: what of them is whole ends here, the rest is handed to the executor."""
        graphs = [JobGraph(job, self.room.sources[job.dataset]) for job in jobs]
        self.graphs += graphs
        self.progress.n_jobs += len(jobs)
        self.patiently(lambda: self.records.read_ahead(graphs))
        for graph in graphs:
            self.advance(graph)

    @property
    def is_busy(self) -> bool:
        """Whether a stage runs, is waited for, or is to be tried again."""
        return bool(self.executor.running() or self.elsewhere or self.paused)

    def step(self) -> None:
        """Wait about half a second for stages to end, and go on with what waits for them."""
        if self.executor.running():
            for task, end in self.executor.ended(_POLL_S):
                self.take(task, end)
        else:
            time.sleep(_POLL_S)
        self.look_elsewhere()
        self.look_at_running()
        self.refresh_sometimes()

    def advance(self, graph: JobGraph) -> None:
        """Hand the stages of a job that are ready to the executor, or end the job."""
        if id(graph) in self.ended:
            return
        state = self.patiently(lambda: state_of(graph, self.records))
        self._note_reused(state)
        if state.is_done and self._makes_anew(state):
            self.advance(graph)
            return
        if state.is_done:
            self._end(JobEnd(state=state), graph)
            return
        for task in state.ready:
            if task.id not in self.failed and task.id not in self.waiting:
                self._begin(task)
            if task.id in self.failed:
                self._end(JobEnd(state=state, failure=self.failed[task.id]), graph)
                return
        for task in state.ready:
            waiting = self.waiting.get(task.id, [])
            if not any(one is graph for one in waiting):
                waiting.append(graph)

    def _begin(self, task: StageTask) -> None:
        """Hand a stage to the executor that nobody waits for yet, unless it is not tried."""
        refusal = self.patiently(lambda: self._quarantine(task))
        if refusal is not None:
            self.failed[task.id] = refusal
            self.progress.failures.append(refusal)
        elif not self.room.stop_file.exists():
            self.waiting[task.id] = []
            self._submit(task)

    def take(self, task: StageTask, end: StageEnd) -> None:
        """Note how a stage ended and let its jobs go on."""
        place = task.id
        if end.failure is not None and end.pid == 0:
            with suppress(StoreAwayError):
                end = replace(end, failure=self._inquest(task, end.failure))
        self.watch.remove(task)
        if end.ending == "held":
            leases = self.room.store.lease_place(task.kind, task.key)
            self.elsewhere[place] = task, LeaseWatch(leases, self.room.resources.lease_s)
            self.view.ended(task, end)
            return
        if end.ending == "done" and end.record is not None:
            self._note_whole(task, end.record, was_computed=end.was_computed)
        elif self._has_lost_a_parent(task, end):
            self.view.ended(task, end)
            for graph in self.waiting.pop(place, []):
                self.advance(graph)
            return
        elif (pause_s := self._pause_s(place, end)) is not None:
            self.paused[place] = task, time.monotonic() + pause_s
            self.view.ended(task, end)
            return
        elif end.failure is not None:
            self.failed[place] = end.failure
            self.progress.failures.append(end.failure)
        self.tries.pop(place, None)
        self.view.ended(task, end)
        for graph in self.waiting.pop(place, []):
            if end.ending not in ("stopped", "preempted"):
                self.advance(graph)

    def _note_whole(self, task: StageTask, record: StageRecord, *, was_computed: bool) -> None:
        self.records.add(record)
        if was_computed:
            last = record.attempts[-1]
            self.progress.executed[task.id] = last["end"] - last["start"]
            self._learn(task, record)

    def _has_lost_a_parent(self, task: StageTask, end: StageEnd) -> bool:
        """Whether a stage that this one builds on was set aside, and is computed again."""
        if end.failure is None or end.failure.kind != "damaged":
            return False
        for parent in task.parents:
            self.records.forget(parent.kind, parent.key)
        return self._pause_s(task.id, end) is not None

    def _makes_anew(self, state: JobState) -> bool:
        """Whether a file of a finished job that tables need is damaged: its stage is set aside.

        What was computed in this run, or was collected before, is not read.
        """
        if state.job.job_id in self.room.collected:
            return False
        for task in state.tasks:
            place = task.id
            if place in self.progress.executed or place in self.read:
                continue
            self.read.add(place)
            if self.patiently(partial(self._is_set_aside, task)):
                self.records.forget(task.kind, task.key)
                return True
        return False

    def _is_set_aside(self, task: StageTask) -> bool:
        """Read the files of a stage that tables need; whether it was set aside, being damaged."""
        try:
            for name in STAGES[task.kind].files:
                self.room.store.read(task.kind, task.key, name)
        except DamagedStageError as error:
            self.room.store.set_aside(error)
            return True
        return False

    def _learn(self, task: StageTask, record: StageRecord) -> None:
        """Keep what a stage took of memory; those like it that wait are packed accordingly."""
        is_news = False
        with suppress(OSError):
            is_news = self.packing.learn(task, record)
        if not is_news:
            return
        sort = sort_of(task)
        for waiting in self.executor.waiting():
            if waiting.kind == task.kind and sort_of(waiting) == sort:
                self.executor.forget(waiting)
                self._hand_over(waiting, self.watch.order_of(waiting).dead_number)

    def look_elsewhere(self) -> None:
        """Take what others have finished, take over what dead ones left, try again what is due."""
        if self.room.stop_file.exists():
            self.elsewhere.clear()
            self.paused.clear()
        for place, (task, due) in list(self.paused.items()):
            if time.monotonic() >= due:
                del self.paused[place]
                self._submit(task)
        if not self.elsewhere or not self.looks_elsewhere.begin():
            return
        try:
            for place, (task, watch) in list(self.elsewhere.items()):
                self._look_at_one_elsewhere(place, task, watch)
        except StoreAwayError as error:
            logger.warning("the store of stages is away: %s", error)
        self.looks_elsewhere.end()

    def _look_at_one_elsewhere(
        self, place: tuple[str, str], task: StageTask, watch: LeaseWatch
    ) -> None:
        record = self.room.store.record(task.kind, task.key)
        dead_number = None if record is not None else watch.dead_number()
        if record is not None:
            del self.elsewhere[place]
            self.take(task, StageEnd(ending="done", record=record, was_computed=False))
        elif dead_number is not None:
            del self.elsewhere[place]
            self._submit(task, dead_number)

    def look_at_running(self) -> None:
        """Go on without a host that has gone silent."""
        if not self.looks_at_running.begin():
            return
        try:
            findings = self.watch.look()
        except StoreAwayError as error:
            logger.warning("the store of stages is away: %s", error)
            findings = Findings()
        for task, record in findings.whole:
            self.executor.forget(task)
            self.take(task, StageEnd(ending="done", record=record, was_computed=False))
        for task, number in findings.silent:
            if not self.room.stop_file.exists():
                self.executor.forget(task)
                self._submit(task, number)
        self.looks_at_running.end()

    def patiently(self, ask: Callable[[], T]) -> T:
        """Ask the store, again and again while it is away.

        Raises:
            StoreAwayError: If it stays away, or the user asks to stop.
        """
        last = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return ask()
            except StoreAwayError as error:
                if time.monotonic() > last or self.room.stop_file.exists():
                    raise
                logger.warning("the store of stages is away: %s", error)
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _inquest(self, task: StageTask, failure: Failure) -> Failure:
        """Add where and how far a stage was whose process died, and leave a note in its folder."""
        store, order = self.room.store, self.watch.order_of(task)
        attempt = store.attempt_of(task.kind, task.key, order.submission)
        epoch = 0 if attempt is None else attempt["epoch"]
        if self.watch.was_killed(task):
            assert order.timeout_s is not None
            words = "it hung and was killed; the same command goes on from its last checkpoint"
            failure = timeout_failure(task, order.timeout_s, epoch=epoch, words=words)
        if attempt is None:
            return failure
        where = f" (process {attempt['pid']} on {attempt['host']})"
        found = replace(
            failure,
            epoch=epoch,
            error=failure.error + where,
            n_micro_batches=attempt["n_micro_batches"],
        )
        store.note_death(
            task.kind, task.key, attempt["attempt_id"], cause=found.kind, error=found.error
        )
        return found

    def _pause_s(self, place: tuple[str, str], end: StageEnd) -> float | None:
        """Seconds until a stage is to be tried again; None if it is not."""
        return None if self.room.stop_file.exists() else self.tries[place].pause_s(end)

    def _quarantine(self, task: StageTask) -> Failure | None:
        """Why a stage is not tried any more, if it is not."""
        # What this run tries is decided by `Tries`; the attempts of earlier ones are looked up.
        is_new = attempts_of(f"{task.kind}/{task.key}").rpartition("/")[2] not in self.tried_before
        if is_new or self.room.tries_quarantined:
            return None
        return quarantine(task, self.room.store, self.room.resources.quarantine_after)

    def _submit(self, task: StageTask, dead_number: int = 0) -> None:
        self._hand_over(task, dead_number)
        self.view.submitted(task)

    def _hand_over(self, task: StageTask, dead_number: int) -> None:
        tries = self.tries[task.id]
        needs = self.packing.fill(task, self.room.needs(task.kind))
        if tries.has_whole_gpu and needs.gpus:
            needs = replace(needs, gpus=1.0)
        if tries.is_alone and needs.memory_gib is not None:
            needs = replace(needs, memory_gib=2 * needs.memory_gib)
        order = self.room.order(
            task.kind,
            needs,
            dead_number,
            n_micro_batches=tries.n_micro_batches,
            is_alone=tries.is_alone,
        )
        self.watch.add(task, order)
        self.executor.submit(task, order, needs, self.priority(task))

    def refresh_sometimes(self) -> None:
        """Bring the view up to date about twice a second, however fast stages end."""
        if time.monotonic() - self.refreshed >= _POLL_S:
            self.refresh()

    def refresh(self) -> None:
        """Bring the view up to date."""
        self.refreshed = time.monotonic()
        self.progress.running = self.executor.running()
        self.progress.elsewhere = [task for task, _ in self.elsewhere.values()]
        self.progress.is_stopping = self.room.stop_file.exists()
        if self.progress.is_stopping and not self.stop_was_sent:
            with suppress(StoreAwayError):
                self.room.store.request_stop(self.room.stop_file)
                self.stop_was_sent = True
        self.view.refresh(self.progress)

    def _note_reused(self, state: JobState) -> None:
        for task in state.tasks:
            place = task.id
            if place not in self.progress.executed and self.records.get(task) is not None:
                self.progress.reused.add(place)

    def _end(self, end: JobEnd, graph: JobGraph) -> None:
        self.ended.add(id(graph))
        self.progress.ended[end.state.job.job_id] = end.failure
        self.on_job_end(end)


def request_stop(stop_file: Path) -> None:
    """Ask the running stages to checkpoint and end."""
    write_text(stop_file, f"{time.time()}\n", is_durable=False)

"""The loop of a sweep: submit what is missing, share what is common, collect what has ended."""

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from orchestrator.executors import Executor
from orchestrator.plan import JobState, KnownRecords, job_state
from orchestrator.resources import ResourceSettings
from workers.failures import PAUSE_S, TRIES
from workers.job import Job
from workers.lease import LeaseWatch
from workers.places import Place, StoreAwayError
from workers.run_stage import Failure, StageEnd, StageOrder
from workers.stage_store import StageRecord, StageStore
from workers.tasks import DataSource, StageTask

logger = logging.getLogger(__name__)
T = TypeVar("T")
_POLL_S = 0.5
_REST_PER_SECOND_OF_LOOKING = 5.0
_LONGEST_REST_S = 30.0
_PATIENCE_S = 600.0
_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_TO_SAY_SO = 15.0


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
        ended: Jobs that are done or failed.
        executed: Stages computed in this run, with their seconds.
        reused: ``(kind, key)`` of stages found whole.
        running: Stages handed to the executor that have not ended.
        elsewhere: Stages that other drivers' processes compute now.
        failures: What failed in this run, once per stage.
        is_stopping: Whether the user asked to stop.
    """

    n_jobs: int
    ended: dict[str, JobEnd] = field(default_factory=dict)
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
    """

    store: StageStore
    stop_file: Path
    sources: Mapping[str, DataSource]
    resources: ResourceSettings
    has_gpus: bool = False

    def order(self, kind: str, dead_number: int = 0) -> StageOrder:
        """Return how a kind of stage is to be computed.

        Args:
            kind: Kind of stage.
            dead_number: Of a lease that has run out.
        """
        needs = self.resources.for_kind(kind, has_gpus=self.has_gpus)
        return StageOrder(
            store_root=str(self.store.root),
            stop_file=str(self.stop_file),
            device="cuda" if needs.gpus else "cpu",
            n_threads=self.resources.threads_of(needs),
            is_exclusive=kind == "search" and self.resources.exclusive_search,
            time_to_live_s=self.resources.lease_s,
            dead_number=dead_number,
        )


def run_sweep(
    jobs: Sequence[Job],
    room: SweepRoom,
    executor: Executor,
    *,
    view: View,
    on_job_end: Callable[[JobEnd], None],
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
    """
    run = _SweepRun(jobs, room, executor, view, on_job_end)
    room.store.withdraw_stop(room.stop_file)
    run.patiently(lambda: run.records.read_ahead(jobs, room.sources))
    for job in jobs:
        run.advance(job)
    while executor.running() or run.elsewhere or run.paused:
        if executor.running():
            for task, end in executor.ended(_POLL_S):
                run.take(task, end)
        else:
            time.sleep(_POLL_S)
        run.look_elsewhere()
        run.look_at_running()
        run.refresh()
    run.refresh()
    room.store.withdraw_stop(room.stop_file)
    return run.progress


class _SweepRun:
    """State of one run; see `run_sweep`."""

    def __init__(
        self,
        jobs: Sequence[Job],
        room: SweepRoom,
        executor: Executor,
        view: View,
        on_job_end: Callable[[JobEnd], None],
    ) -> None:
        self.room, self.executor, self.view, self.on_job_end = room, executor, view, on_job_end
        self.records = KnownRecords(room.store)
        self.progress = SweepProgress(n_jobs=len(jobs))
        self.waiting: dict[tuple[str, str], list[Job]] = {}
        self.failed: dict[tuple[str, str], Failure] = {}
        self.elsewhere: dict[tuple[str, str], tuple[StageTask, LeaseWatch]] = {}
        self.paused: dict[tuple[str, str], tuple[StageTask, float]] = {}
        self.tries: Counter[tuple[str, str]] = Counter()
        self.whole_since: dict[tuple[str, str], float] = {}
        self.looks_elsewhere = Looks(room.store.place)
        self.looks_at_running = Looks(room.store.place, _SECONDS_BETWEEN_LOOKS)
        self.stop_was_sent = False

    def advance(self, job: Job) -> None:
        """Hand the job's next stage to the executor, or end the job."""
        state = self.patiently(
            lambda: job_state(job, self.room.sources[job.dataset], self.records)
        )
        self._note_reused(state)
        task = state.next_task
        if task is None:
            self._end(JobEnd(state=state))
            return
        place = (task.kind, task.key)
        if place in self.failed:
            self._end(JobEnd(state=state, failure=self.failed[place]))
        elif place in self.waiting:
            self.waiting[place].append(job)
        elif not self.room.stop_file.exists():
            self.waiting[place] = [job]
            self._submit(task)

    def take(self, task: StageTask, end: StageEnd) -> None:
        """Note how a stage ended and let its jobs go on."""
        place = (task.kind, task.key)
        if end.ending == "held":
            leases = self.room.store.lease_place(task.kind, task.key)
            self.elsewhere[place] = task, LeaseWatch(leases, self.room.resources.lease_s)
            self.view.ended(task, end)
            return
        if end.ending == "done" and end.record is not None:
            self.records.add(end.record)
            if end.was_computed:
                last = end.record.attempts[-1]
                self.progress.executed[place] = last["end"] - last["start"]
        elif end.failure is not None and self._may_try_again(place, end.failure):
            pause_s = PAUSE_S.get(end.failure.kind, 0.0) * 2 ** (self.tries[place] - 1)
            self.paused[place] = task, time.monotonic() + pause_s
            self.view.ended(task, end)
            return
        elif end.failure is not None:
            self.failed[place] = end.failure
            self.progress.failures.append(end.failure)
        self.view.ended(task, end)
        for job in self.waiting.pop(place, []):
            if end.ending != "stopped":
                self.advance(job)

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
        """Take stages that are whole although nothing is heard of their host."""
        if not self.looks_at_running.begin():
            return
        try:
            whole = self._whole_ones_of_running()
        except StoreAwayError as error:
            logger.warning("the store of stages is away: %s", error)
            whole = []
        now = time.monotonic()
        for task, record in whole:
            place = (task.kind, task.key)
            if now - self.whole_since.setdefault(place, now) >= _SECONDS_TO_SAY_SO:
                self.executor.forget(task)
                self.take(task, StageEnd(ending="done", record=record, was_computed=False))
        self.looks_at_running.end()

    def _whole_ones_of_running(self) -> list[tuple[StageTask, StageRecord]]:
        by_kind: dict[str, dict[str, StageTask]] = defaultdict(dict)
        for task in self.executor.running():
            by_kind[task.kind][task.key] = task
        store = self.room.store
        return [
            (tasks[record.key], record)
            for kind, tasks in by_kind.items()
            for record in store.records(kind, store.keys(kind) & tasks.keys())
        ]

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

    def _may_try_again(self, place: tuple[str, str], failure: Failure) -> bool:
        self.tries[place] += 1
        is_stopping = self.room.stop_file.exists()
        return self.tries[place] <= TRIES.get(failure.kind, 0) and not is_stopping

    def _submit(self, task: StageTask, dead_number: int = 0) -> None:
        needs = self.room.resources.for_kind(task.kind, has_gpus=self.room.has_gpus)
        self.executor.submit(task, self.room.order(task.kind, dead_number), needs)
        self.view.submitted(task)

    def refresh(self) -> None:
        """Bring the view up to date."""
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
            place = (task.kind, task.key)
            if place not in self.progress.executed and self.records.get(task) is not None:
                self.progress.reused.add(place)

    def _end(self, end: JobEnd) -> None:
        self.progress.ended[end.state.job.job_id] = end
        self.on_job_end(end)


def request_stop(stop_file: Path) -> None:
    """Ask the running stages to checkpoint and end."""
    stop_file.parent.mkdir(parents=True, exist_ok=True)
    stop_file.write_text(f"{time.time()}\n", encoding="utf-8")

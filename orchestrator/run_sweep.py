"""The loop of a sweep: submit what is missing, share what is common, collect what has ended."""

import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.executors import Executor
from orchestrator.plan import JobState, KnownRecords, job_state, quarantine
from orchestrator.resources import ResourceSettings, StageResources
from orchestrator.tries import Tries
from workers.job import Job
from workers.lease import LeaseWatch
from workers.preemption import note_of_node
from workers.run_stage import Failure, StageEnd, StageOrder, timeout_failure
from workers.stage_store import StageStore
from workers.tasks import DataSource, StageTask

_POLL_S = 0.5
_SECONDS_BETWEEN_LOOKS = 5.0
_SECONDS_TO_SAY_SO = 15.0
HANG_GRACE_S = 300.0
"""A stage is killed if it has not ended so long after its timeout."""


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
    """

    store: StageStore
    stop_file: Path
    sources: Mapping[str, DataSource]
    resources: ResourceSettings
    has_gpus: bool = False
    tries_quarantined: bool = False

    def needs(self, kind: str, *, is_alone: bool = False) -> StageResources:
        """Return what a kind of stage needs; twice the memory if it gets a machine to itself."""
        needs = self.resources.for_kind(kind, has_gpus=self.has_gpus)
        if not is_alone or needs.memory_gib is None:
            return needs
        return replace(needs, memory_gib=2 * needs.memory_gib)

    def order(
        self,
        kind: str,
        dead_number: int = 0,
        *,
        n_micro_batches: int = 1,
        is_alone: bool = False,
    ) -> StageOrder:
        """Return how a kind of stage is to be computed.

        Args:
            kind: Kind of stage.
            dead_number: Of a lease that has run out.
            n_micro_batches: Parts that each batch is cut into.
            is_alone: Whether no other stage may run on the machine.
        """
        needs = self.needs(kind)
        return StageOrder(
            store_root=str(self.store.root),
            stop_file=str(self.stop_file),
            device="cuda" if needs.gpus else "cpu",
            n_threads=self.resources.threads_of(needs),
            is_exclusive=kind == "search" and self.resources.exclusive_search,
            time_to_live_s=self.resources.lease_s,
            dead_number=dead_number,
            submission=uuid.uuid4().hex,
            timeout_s=None if needs.timeout_min is None else 60 * needs.timeout_min,
            n_micro_batches=n_micro_batches,
            is_alone=is_alone,
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
    run.remove_notes()
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
        self.tries: dict[tuple[str, str], Tries] = defaultdict(Tries)
        self.orders: dict[tuple[str, str], StageOrder] = {}
        self.begun: dict[tuple[str, str], float] = {}
        self.killed: set[tuple[str, str]] = set()
        self.notes: set[Path] = set()
        self.whole_since: dict[tuple[str, str], float] = {}
        self.looked = time.monotonic()

    def advance(self, job: Job) -> None:
        """Hand the job's next stage to the executor, or end the job."""
        state = job_state(job, self.room.sources[job.dataset], self.records)
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
        elif (quarantine := self._quarantine(task)) is not None:
            self.failed[place] = quarantine
            self.progress.failures.append(quarantine)
            self._end(JobEnd(state=state, failure=quarantine))
        elif not self.room.stop_file.exists():
            self.waiting[place] = [job]
            self._submit(task)

    def take(self, task: StageTask, end: StageEnd) -> None:
        """Note how a stage ended and let its jobs go on."""
        place = (task.kind, task.key)
        if end.failure is not None and end.pid == 0:
            end = replace(end, failure=self._inquest(task, end.failure))
        if end.ending == "held":
            folder = self.room.store.lease_folder(task.kind, task.key)
            self.elsewhere[place] = task, LeaseWatch(folder, self.room.resources.lease_s)
            self.view.ended(task, end)
            return
        if end.ending == "done" and end.record is not None:
            self.records.add(end.record)
            if end.was_computed:
                last = end.record.attempts[-1]
                self.progress.executed[place] = last["end"] - last["start"]
        elif (pause_s := self._pause_s(place, end)) is not None:
            self.paused[place] = task, time.monotonic() + pause_s
            self.view.ended(task, end)
            return
        elif end.failure is not None:
            self.failed[place] = end.failure
            self.progress.failures.append(end.failure)
        self.view.ended(task, end)
        for job in self.waiting.pop(place, []):
            if end.ending not in ("stopped", "preempted"):
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
        for place, (task, watch) in list(self.elsewhere.items()):
            record = self.room.store.record(task.kind, task.key)
            dead_number = None if record is not None else watch.dead_number()
            if record is not None:
                del self.elsewhere[place]
                self.take(task, StageEnd(ending="done", record=record, was_computed=False))
            elif dead_number is not None:
                del self.elsewhere[place]
                self._submit(task, dead_number)

    def look_at_running(self) -> None:
        """Take stages that are whole although nothing is heard of their host; kill what hangs.

        Stages on nodes that go away are told so.
        """
        now = time.monotonic()
        if now - self.looked < _SECONDS_BETWEEN_LOOKS:
            return
        self.looked = now
        for node in self.executor.leaving_nodes():
            note = note_of_node(self.room.stop_file, node)
            if note not in self.notes:
                note.parent.mkdir(parents=True, exist_ok=True)
                note.touch()
                self.notes.add(note)
        for task in self.executor.running():
            place = (task.kind, task.key)
            record = self.room.store.record(task.kind, task.key)
            if record is None:
                self._kill_if_it_hangs(task, now)
                continue
            if now - self.whole_since.setdefault(place, now) >= _SECONDS_TO_SAY_SO:
                self.executor.forget(task)
                self.take(task, StageEnd(ending="done", record=record, was_computed=False))

    def _kill_if_it_hangs(self, task: StageTask, now: float) -> None:
        place = (task.kind, task.key)
        order = self.orders[place]
        if order.timeout_s is None or place in self.killed:
            return
        if place not in self.begun:
            if self.room.store.attempt_of(task.kind, task.key, order.submission) is not None:
                self.begun[place] = now
        elif now - self.begun[place] > order.timeout_s + HANG_GRACE_S:
            self.killed.add(place)
            self.executor.kill(task)

    def _inquest(self, task: StageTask, failure: Failure) -> Failure:
        """Add where and how far a stage was whose process died, and leave a note in its folder."""
        place, store = (task.kind, task.key), self.room.store
        order = self.orders[place]
        attempt = store.attempt_of(task.kind, task.key, order.submission)
        epoch = 0 if attempt is None else attempt["epoch"]
        if place in self.killed:
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
        if self.room.tries_quarantined:
            return None
        return quarantine(task, self.room.store, self.room.resources.quarantine_after)

    def _submit(self, task: StageTask, dead_number: int = 0) -> None:
        place = (task.kind, task.key)
        tries = self.tries[place]
        self.begun.pop(place, None)
        self.killed.discard(place)
        self.orders[place] = self.room.order(
            task.kind,
            dead_number,
            n_micro_batches=tries.n_micro_batches,
            is_alone=tries.is_alone,
        )
        needs = self.room.needs(task.kind, is_alone=tries.is_alone)
        self.executor.submit(task, self.orders[place], needs)
        self.view.submitted(task)

    def remove_notes(self) -> None:
        """Take away what stages on nodes that went away were told."""
        for note in self.notes:
            note.unlink(missing_ok=True)

    def refresh(self) -> None:
        """Bring the view up to date."""
        self.progress.running = self.executor.running()
        self.progress.elsewhere = [task for task, _ in self.elsewhere.values()]
        self.progress.is_stopping = self.room.stop_file.exists()
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

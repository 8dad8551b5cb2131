"""The worker's only entry: compute one stage, whatever happens, and say how it ended."""

import gc
import logging
import os
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from addresses.redaction import redact
from iac_core.checkpoint import is_whole_archive
from iac_core.errors import ConfigError, StopRequested
from workers.failures import PAUSE_S, FailureKind, kind_of
from workers.lease import TIME_TO_LIVE_S, Holder, LeaseLostError
from workers.memory import PeakMemory, gpu_limited, runs_apart
from workers.places import cache_folder
from workers.preemption import Preemption
from workers.provenance import provenance
from workers.reporting import FileReporter
from workers.stage_record import DamagedStageError
from workers.stage_store import Attempt, StageRecord, StageStore
from workers.stages.context import StageContext
from workers.stages.table import STAGES
from workers.task import StageTask

logger = logging.getLogger(__name__)
COMPLETIONS = "IAC_COMPLETIONS"
_PAUSES_OF_A_FINISH_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
Ending = Literal["done", "failed", "stopped", "preempted", "held"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOrder:
    """How a stage is to be computed: nothing here changes its result.

    Attributes:
        store_root: Folder or URL of the stages.
        stop_file: The stage checkpoints and ends when this file appears.
        device: ``cpu``, ``cuda`` or ``auto``.
        n_threads: Threads of torch in this process.
        is_exclusive: Whether the stage has its device to itself.
        time_to_live_s: Of the stage's lease.
        dead_number: A lease of the stage of this number or lower has run out, as the driver saw.
        submission: Name of this order; the attempt that it leads to carries it.
        timeout_s: The stage checkpoints and ends after so long; None is never.
        n_micro_batches: Parts that each batch is cut into, at least (`TrainingRoom`); a stage that
            was cut in an earlier attempt stays cut. Unlike all else here it can change a result,
            in the ways told there; the record of the stage says it.
        gpu_share: Of a GPU's memory, what the process may take at most.
        is_alone: Whether no other stage may run on the machine.
    """

    store_root: str
    stop_file: str
    device: str = "auto"
    n_threads: int = 1
    is_exclusive: bool = False
    time_to_live_s: float = TIME_TO_LIVE_S
    dead_number: int = 0
    submission: str = ""
    timeout_s: float | None = None
    n_micro_batches: int = 1
    gpu_share: float = 1.0
    is_alone: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a stage failed.

    Attributes:
        stage: Kind of stage.
        key: Its key.
        epoch: Epochs that had ended.
        error: Exception and message, one line or more.
        trace: The traceback.
        kind: What kind of failure it is (`workers.failures`).
        n_micro_batches: Parts that batches were cut into.
        gpu_share: Of a GPU's memory, what the process could take at most.
    """

    stage: str
    key: str
    epoch: int
    error: str
    trace: str
    kind: FailureKind = "code"
    n_micro_batches: int = 1
    gpu_share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEnd:
    """How an execution ended.

    Attributes:
        ending: ``done``, ``failed``, ``stopped`` by the user, ``preempted``: its host is going
            away, or ``held``: another process computes it.
        record: The manifest, if done.
        failure: The cause, if failed.
        was_computed: False if the stage was whole before this execution looked.
        pid: Process that ran it; 0 if it died and others say how it ended.
    """

    ending: Ending
    record: StageRecord | None = None
    failure: Failure | None = None
    was_computed: bool = True
    pid: int = 0


def run_stage(
    task: StageTask, order: StageOrder, preemption: Preemption | None = None
) -> StageEnd:
    """Compute a stage unless it is whole already.

    An exception becomes a failed end; it never leaves this function. The attempt's folder keeps
    its checkpoint and the cause. A stage that another process computes, or took over from this
    one, is held.

    Args:
        task: The stage.
        order: How to compute it.
        preemption: Warned when this host is going away.
    """
    end = _run_stage(task, order, preemption or Preemption())
    if end.failure is not None:
        gc.collect()  # frames of the failure, which held tensors
        torch.cuda.empty_cache()
    return end


def _run_stage(task: StageTask, order: StageOrder, preemption: Preemption) -> StageEnd:
    torch.set_num_threads(order.n_threads)
    device = _device(order.device)
    try:
        store = StageStore(order.store_root)
        attempt = _begin(task, order, store, device, preemption)
    except (OSError, ConfigError) as error:
        return _failed(task, order, error, epoch=0)
    if isinstance(attempt, StageEnd):
        return attempt
    reporter = FileReporter(attempt, Path(order.stop_file), preemption, order.timeout_s)
    try:
        found = store.publish_finished(task.kind, task.key)
        if found is not None:
            attempt.clear()
            return StageEnd(ending="done", record=found, was_computed=False, pid=os.getpid())
        return _compute(task, order, store, attempt, reporter, device)
    except StopRequested as stop:
        if reporter.cause == "timeout":
            end = _timed_out(task, order, epoch=reporter.last_epoch)
            return _given_up(attempt, end)
        ending = reporter.cause or "stopped"
        attempt.give_up(ending, reason=str(stop))
        return StageEnd(ending=ending, pid=os.getpid())
    except Exception as error:  # noqa: BLE001 - the one place that turns any failure into a row
        try:
            attempt.lease.check()
        except LeaseLostError:
            attempt.abandon()
            return StageEnd(ending="held", pid=os.getpid())
        except OSError:
            logger.warning("the lease of %s %s could not be looked at", task.kind, task.key)
        if isinstance(error, DamagedStageError):
            with suppress(OSError):  # the driver asks again
                store.set_aside(error)
        end = _failed(task, order, error, epoch=reporter.last_epoch)
        assert end.failure is not None
        failure = replace(
            end.failure, n_micro_batches=attempt.n_micro_batches, gpu_share=order.gpu_share
        )
        return _given_up(attempt, replace(end, failure=failure))


def _begin(
    task: StageTask,
    order: StageOrder,
    store: StageStore,
    device: torch.device,
    preemption: Preemption,
) -> Attempt | StageEnd:
    """A new attempt, or why there is nothing to compute here."""
    found = store.record(task.kind, task.key)
    if found is not None:
        return StageEnd(ending="done", record=found, was_computed=False, pid=os.getpid())
    if preemption.is_announced():
        return StageEnd(ending="preempted", pid=os.getpid())
    attempt = store.begin(
        task.kind,
        task.key,
        device=device.type,
        time_to_live_s=order.time_to_live_s,
        dead_number=order.dead_number,
        submission=order.submission,
        n_micro_batches=order.n_micro_batches,
        is_whole=is_whole_archive,
    )
    if isinstance(attempt, Holder):
        return StageEnd(ending="held", pid=os.getpid())
    return attempt


def timeout_failure(task: StageTask, timeout_s: float, *, epoch: int, words: str) -> Failure:
    """Return the failure of a stage that took too long.

    Args:
        task: The stage.
        timeout_s: What it was given.
        epoch: Epochs that had ended.
        words: How it ended.
    """
    return Failure(
        stage=task.kind,
        key=task.key,
        epoch=epoch,
        error=f"{task.kind} must end within resources.{task.kind}.timeout_min = "
        f"{timeout_s / 60:g}, got no end after epoch {epoch}; {words}",
        trace="",
        kind="timeout",
    )


def _timed_out(task: StageTask, order: StageOrder, *, epoch: int) -> StageEnd:
    assert order.timeout_s is not None
    words = "it has checkpointed, and the same command goes on from there"
    failure = timeout_failure(task, order.timeout_s, epoch=epoch, words=words)
    return StageEnd(ending="failed", failure=failure, pid=os.getpid())


def _given_up(attempt: Attempt, end: StageEnd) -> StageEnd:
    """The end of an attempt that failed, noted in its folder."""
    failure = end.failure
    assert failure is not None
    attempt.give_up("failed", error=failure.error, trace=failure.trace, kind=failure.kind)
    return end


def _failed(task: StageTask, order: StageOrder, error: Exception, *, epoch: int) -> StageEnd:
    """The end of an execution whose exception is being handled."""
    kind = kind_of(error)
    words = _full_disk(order) if kind == "disk_full" else f"{type(error).__name__}: {error}"
    failure = Failure(
        stage=task.kind,
        key=task.key,
        epoch=epoch,
        error=redact(words),
        trace=redact(traceback.format_exc()),
        kind=kind,
    )
    return StageEnd(ending="failed", failure=failure, pid=os.getpid())


def _full_disk(order: StageOrder) -> str:
    """What is said of a full disk; the error itself names a file of the moment, or none."""
    root = order.store_root if "://" not in order.store_root else cache_folder()
    return (
        f"{root}: the disk must have room, got none left on {socket.gethostname()}; "
        "make room there and the same command goes on"
    )


def _compute(
    task: StageTask,
    order: StageOrder,
    store: StageStore,
    attempt: Attempt,
    reporter: FileReporter,
    device: torch.device,
) -> StageEnd:
    context = StageContext(
        task=task,
        folder=attempt.folder,
        store=store,
        device=device,
        is_exclusive=order.is_exclusive,
        reporter=reporter,
        n_micro_batches=attempt.n_micro_batches,
    )
    # Looked up first: little may stand between the end of a stage and its manifest.
    facts = provenance(str(device), order.n_threads, n_micro_batches=attempt.n_micro_batches)
    peak = PeakMemory(device)
    with _reproducible(), gpu_limited(device, order.gpu_share):
        outcome = STAGES[task.kind].run(context)
    try:
        record = _finish(
            attempt,
            settings=dict(task.settings),
            outcome=outcome,
            provenance={
                **facts,
                **({} if runs_apart(task) else peak.measured()),
                "is_exclusive": order.is_exclusive,
                "job": task.names(),
            },
        )
    finally:
        _note_completion(task)
    return StageEnd(ending="done", record=record, pid=os.getpid())


def _finish(attempt: Attempt, **what: Mapping[str, Any]) -> StageRecord:
    """Make the outcome whole; a disk that is full for a minute costs no result."""
    for pause_s in _PAUSES_OF_A_FINISH_S:
        try:
            return attempt.finish(**what)
        except OSError as error:
            if kind_of(error) not in PAUSE_S:
                raise
            logger.warning("%s %s cannot be finished yet: %s", attempt.kind, attempt.key, error)
            time.sleep(pause_s)
    return attempt.finish(**what)


def _note_completion(task: StageTask) -> None:
    """Add a line to the file that ``IAC_COMPLETIONS`` names: what `benchmarks.chaos` counts.

    An execution has come to its end when its outcome was published, or was refused.
    """
    path = os.environ.get(COMPLETIONS)
    if path:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{task.kind} {task.key}\n")


@contextmanager
def _reproducible() -> Iterator[None]:
    """Choose deterministic kernels where there are any; leave the process as it was."""
    before = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = before


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)

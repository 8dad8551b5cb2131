"""The worker's only entry: compute one stage, whatever happens, and say how it ended."""

import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from iac_core.errors import ConfigError, StopRequested
from workers.failures import FailureKind, kind_of
from workers.lease import TIME_TO_LIVE_S, Holder, LeaseLostError
from workers.provenance import provenance
from workers.reporting import FileReporter
from workers.stage_store import Attempt, StageRecord, StageStore
from workers.stages import STAGES, StageRoom
from workers.tasks import StageTask

logger = logging.getLogger(__name__)
COMPLETIONS = "IAC_COMPLETIONS"
Ending = Literal["done", "failed", "stopped", "held"]


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
    """

    store_root: str
    stop_file: str
    device: str = "auto"
    n_threads: int = 1
    is_exclusive: bool = False
    time_to_live_s: float = TIME_TO_LIVE_S
    dead_number: int = 0


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
    """

    stage: str
    key: str
    epoch: int
    error: str
    trace: str
    kind: FailureKind = "code"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEnd:
    """How an execution ended.

    Attributes:
        ending: ``done``, ``failed``, ``stopped``, or ``held``: another process computes it.
        record: The manifest, if done.
        failure: The cause, if failed.
        was_computed: False if the stage was whole before this execution looked.
        pid: Process that ran it.
    """

    ending: Ending
    record: StageRecord | None = None
    failure: Failure | None = None
    was_computed: bool = True
    pid: int = 0


def run_stage(task: StageTask, order: StageOrder) -> StageEnd:
    """Compute a stage unless it is whole already.

    An exception becomes a failed end; it never leaves this function. The attempt's folder keeps
    its checkpoint and the cause. A stage that another process computes, or took over from this
    one, is held.
    """
    torch.set_num_threads(order.n_threads)
    device = _device(order.device)
    try:
        store = StageStore(order.store_root)
        found = store.record(task.kind, task.key)
        if found is not None:
            return StageEnd(ending="done", record=found, was_computed=False, pid=os.getpid())
        attempt = store.begin(
            task.kind,
            task.key,
            device=device.type,
            time_to_live_s=order.time_to_live_s,
            dead_number=order.dead_number,
        )
    except (OSError, ConfigError) as error:
        return _failed(task, error, epoch=0)
    if isinstance(attempt, Holder):
        return StageEnd(ending="held", pid=os.getpid())
    reporter = FileReporter(attempt, Path(order.stop_file))
    try:
        found = store.publish_finished(task.kind, task.key)
        if found is not None:
            attempt.clear()
            return StageEnd(ending="done", record=found, was_computed=False, pid=os.getpid())
        return _compute(task, order, store, attempt, reporter, device)
    except StopRequested as stop:
        attempt.give_up("stopped", reason=str(stop))
        return StageEnd(ending="stopped", pid=os.getpid())
    except Exception as error:  # noqa: BLE001 - the one place that turns any failure into a row
        try:
            attempt.lease.check()
        except LeaseLostError:
            attempt.abandon()
            return StageEnd(ending="held", pid=os.getpid())
        except OSError:
            logger.warning("the lease of %s %s could not be looked at", task.kind, task.key)
        end = _failed(task, error, epoch=reporter.last_epoch)
        assert end.failure is not None
        failure = end.failure
        attempt.give_up("failed", error=failure.error, trace=failure.trace, kind=failure.kind)
        return end


def _failed(task: StageTask, error: Exception, *, epoch: int) -> StageEnd:
    """The end of an execution whose exception is being handled."""
    failure = Failure(
        stage=task.kind,
        key=task.key,
        epoch=epoch,
        error=f"{type(error).__name__}: {error}",
        trace=traceback.format_exc(),
        kind=kind_of(error),
    )
    return StageEnd(ending="failed", failure=failure, pid=os.getpid())


def _compute(
    task: StageTask,
    order: StageOrder,
    store: StageStore,
    attempt: Attempt,
    reporter: FileReporter,
    device: torch.device,
) -> StageEnd:
    room = StageRoom(
        task=task,
        folder=attempt.folder,
        store=store,
        device=device,
        is_exclusive=order.is_exclusive,
        reporter=reporter,
    )
    with _reproducible():
        outcome = STAGES[task.kind](room)
    _note_completion(task)
    record = attempt.finish(
        settings=dict(task.settings),
        outcome=outcome,
        provenance=provenance(str(device), order.n_threads),
    )
    return StageEnd(ending="done", record=record, pid=os.getpid())


def _note_completion(task: StageTask) -> None:
    """Add a line to the file that ``IAC_COMPLETIONS`` names: what `benchmarks.chaos` counts."""
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

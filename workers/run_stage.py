"""The worker's only entry: compute one stage, whatever happens, and say how it ended."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from iac_core.errors import StopRequested
from workers.provenance import provenance
from workers.reporting import FileReporter
from workers.stage_store import Attempt, StageRecord, StageStore
from workers.stages import STAGES, StageRoom
from workers.tasks import StageTask

Ending = Literal["done", "failed", "stopped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOrder:
    """How a stage is to be computed: nothing here changes its result.

    Attributes:
        store_root: Folder of the stages.
        stop_file: The stage checkpoints and ends when this file appears.
        device: ``cpu``, ``cuda`` or ``auto``.
        n_threads: Threads of torch in this process.
        is_exclusive: Whether the stage has its device to itself.
    """

    store_root: str
    stop_file: str
    device: str = "auto"
    n_threads: int = 1
    is_exclusive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a stage failed.

    Attributes:
        stage: Kind of stage.
        key: Its key.
        epoch: Epochs that had ended.
        error: Exception and message, one line or more.
        trace: The traceback.
    """

    stage: str
    key: str
    epoch: int
    error: str
    trace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEnd:
    """How an execution ended.

    Attributes:
        ending: ``done``, ``failed`` or ``stopped``.
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
    its checkpoint and the cause.
    """
    store = StageStore(Path(order.store_root))
    found = store.record(task.kind, task.key)
    if found is not None:
        return StageEnd(ending="done", record=found, was_computed=False, pid=os.getpid())
    torch.set_num_threads(order.n_threads)
    device = _device(order.device)
    attempt = store.begin(task.kind, task.key, device=device.type)
    reporter = FileReporter(attempt, Path(order.stop_file))
    try:
        return _compute(task, order, store, attempt, reporter, device)
    except StopRequested as stop:
        attempt.give_up("stopped", reason=str(stop))
        return StageEnd(ending="stopped", pid=os.getpid())
    except Exception as error:  # noqa: BLE001 - the one place that turns any failure into a row
        failure = Failure(
            stage=task.kind,
            key=task.key,
            epoch=reporter.last_epoch,
            error=f"{type(error).__name__}: {error}",
            trace=traceback.format_exc(),
        )
        attempt.give_up("failed", error=failure.error, trace=failure.trace)
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
    record = attempt.finish(
        settings=dict(task.settings),
        outcome=outcome,
        provenance=provenance(str(device), order.n_threads),
    )
    return StageEnd(ending="done", record=record, pid=os.getpid())


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

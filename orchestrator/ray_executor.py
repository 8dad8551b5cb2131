"""Stages as Ray tasks, on a cluster that this command starts or on a running one.

Ray places the tasks; which stages exist and which are done is the stage store's business, so
nothing of Ray's state has to survive. Ray restarts nothing, since it would try what ran out of
memory for ever and with the same needs: every death comes to `orchestrator.run_sweep`, which
decides. Ray gets no more stages than twice what the cluster holds and a few: the others wait
here in order of priority, since every look at what has ended costs in proportion to what Ray has.
"""

import gc
import heapq
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray._private import services
from ray.exceptions import OutOfMemoryError, RayError

from iac_core.errors import ConfigError
from orchestrator.cluster import Node, n_places, requested
from orchestrator.environment import ray_folder
from orchestrator.resources import StageResources
from workers.preemption import Preemption, note_of_node
from workers.run_stage import Failure, StageEnd, StageOrder, run_stage
from workers.task import StageTask

ACCELERATOR_LABEL = "ray.io/accelerator-type"
"""Node label that Ray sets to the model of its GPUs."""
_KNOCK_S = 10.0
_MARGIN = 16
_SECONDS_BETWEEN_LOOKS = 5.0


def leave_ray() -> None:
    """Shut Ray down in this process, with no garbage collected meanwhile.

    A reference to one of Ray's objects that goes while Ray's worker has gone and Python's has not
    ends the process with status 1. Garbage is collected in any thread, such as that of tracking.
    """
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if was_enabled:
            gc.enable()


class RayExecutor:
    """Runs stages on Ray; a context manager that owns the connection.

    Args:
        n_cpus: CPUs of the cluster started here; None is all. Ignored with an address.
        address: A running cluster; None starts one on this machine.
        is_inside: Whether this process is one of Ray's own, which neither joins nor leaves.
        compute: What a worker does with a stage; a benchmark has its own.
    """

    def __init__(
        self,
        *,
        n_cpus: int | None = None,
        address: str | None = None,
        is_inside: bool = False,
        compute: Callable[[StageTask, StageOrder, Preemption], StageEnd] = run_stage,
    ) -> None:
        self._n_cpus = n_cpus
        self._address = address
        self._is_inside = is_inside
        self._compute = compute
        self._queues: dict[StageResources, _Queue] = {}
        self._handed: dict[Any, tuple[StageTask, StageResources]] = {}
        self._taken: dict[int, StageTask] = {}
        self._nodes: tuple[Node, ...] = ()
        self._most_handed: dict[StageResources, int] = {}
        self._looked = 0.0
        self._remote: Any = None

    def __enter__(self) -> "RayExecutor":
        if not self._is_inside:
            self._join()
        self._remote = ray.remote(_stage_function(self._compute))
        return self

    def _join(self) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        folder = ray_folder() if self._address is None else None
        try:
            _knock(self._address)
            ray.init(
                # Without an address Ray would join a cluster of anybody that was started here.
                address=self._address or "local",
                num_cpus=None if self._address else self._n_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=True,
                **({} if folder is None else {"_temp_dir": folder}),
            )
        except (OSError, ValueError, RuntimeError) as error:
            if self._address is None:
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise ConfigError(
                    "Ray must start on this machine",
                    value=reason,
                    way_out=(
                        "set RAY_TMPDIR and HOME to folders that can be written, or run --inline"
                    ),
                ) from error
            reason = str(error).splitlines()[0]
            raise ConfigError(
                "the address must be that of a running Ray cluster",
                value=f"{self._address} ({reason})",
                way_out="start one with `ray start --head`, or give its --address",
            ) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_inside:
            leave_ray()

    def submit(
        self, task: StageTask, order: StageOrder, resources: StageResources, priority: float = 0.0
    ) -> None:
        """Take a stage on; Ray gets it once the cluster may have room for it soon."""
        nodes = self.nodes()
        largest_gib = max((node.memory_gib or 0.0 for node in nodes), default=0.0)
        if resources.memory_gib is not None and largest_gib:
            # What the user asks for was held against the machines before; what was measured not.
            resources = replace(resources, memory_gib=min(resources.memory_gib, largest_gib))
        needs = requested(
            resources, nodes, is_exclusive=order.is_exclusive, is_alone=order.is_alone
        )
        queue = self._queues.setdefault(needs, _Queue())
        queue.add(task, order, priority)
        self._taken[id(task)] = task
        self._hand_over(needs, queue)

    def ended(self, timeout_s: float) -> Sequence[tuple[StageTask, StageEnd]]:
        """Return what has ended; a worker lost for good becomes a failed end."""
        stopped = [task for queue in self._queues.values() for task in queue.stopped()]
        for task in stopped:
            del self._taken[id(task)]
        if stopped or not self._handed:
            return [(task, StageEnd(ending="stopped")) for task in stopped]
        references = list(self._handed)
        ready, _ = ray.wait(references, num_returns=1, timeout=timeout_s)
        if ready and len(references) > 1:
            # Ends come faster than turns of the loop when stages are short.
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        ends = [self._collect(reference) for reference in ready]
        for needs, queue in self._queues.items():
            self._hand_over(needs, queue)
        return ends

    def running(self) -> Sequence[StageTask]:
        """Return the stages taken on that have not ended, waiting ones included."""
        return list(self._taken.values())

    def waiting(self) -> Sequence[StageTask]:
        """Return the stages that Ray does not have yet."""
        return [task for queue in self._queues.values() for task in queue.tasks()]

    def forget(self, task: StageTask) -> None:
        """Wait no more for a stage; Ray takes minutes to give up a host that has gone silent."""
        self._taken.pop(id(task), None)
        for reference, (waiting, needs) in list(self._handed.items()):
            if waiting is task:
                del self._handed[reference]
                self._queues[needs].n_handed -= 1
        for queue in self._queues.values():
            queue.forget(task)

    def kill(self, task: StageTask) -> None:
        """End the process that computes a stage, even one that hangs."""
        for reference, (handed, _) in self._handed.items():
            if handed is task:
                ray.cancel(reference, force=True)

    def leaving_nodes(self) -> Sequence[str]:
        """Return the nodes that Ray drains; it places nothing on them any more."""
        return tuple(ray._private.state.state.get_draining_nodes())

    def n_gpus(self) -> float:
        """Return the GPUs of the cluster."""
        return sum(node.gpus for node in self.nodes())

    def n_cpus(self) -> float:
        """Return the CPUs of the cluster."""
        return sum(node.cpus for node in self.nodes())

    def nodes(self) -> tuple[Node, ...]:
        """Return the cluster's machines, as of some seconds ago at most."""
        now = time.monotonic()
        if not self._nodes or now - self._looked >= _SECONDS_BETWEEN_LOOKS:
            # A cluster whose machines have all gone silent may get them back.
            self._nodes, self._looked = _living_nodes() or self._nodes, now
            self._most_handed.clear()
        return self._nodes

    def _hand_over(self, needs: StageResources, queue: "_Queue") -> None:
        nodes = self.nodes()
        if needs not in self._most_handed:
            self._most_handed[needs] = 2 * n_places(nodes, needs) + _MARGIN
        most = self._most_handed[needs]
        while queue.n_handed < most and (taken := queue.take()) is not None:
            task, order = taken
            options: dict[str, Any] = {
                "num_cpus": needs.cpus,
                "num_gpus": needs.gpus or 0,
                "max_retries": 0,
                "scheduling_strategy": "DEFAULT",  # anywhere, also from inside a Tune trial
                # Ray keeps counts per name for ever: one per stage would grow with the sweep.
                "name": task.kind,
            }
            if needs.memory_gib is not None:
                options["memory"] = int(needs.memory_gib * 2**30)
            if needs.accelerator is not None:
                options["label_selector"] = {ACCELERATOR_LABEL: needs.accelerator}
            reference = self._remote.options(**options).remote(task, order)
            self._handed[reference] = task, needs
            queue.n_handed += 1

    def _collect(self, reference: Any) -> tuple[StageTask, StageEnd]:  # noqa: ANN401
        task, needs = self._handed.pop(reference)
        del self._taken[id(task)]
        self._queues[needs].n_handed -= 1
        try:
            end: StageEnd = ray.get(reference)
        except RayError as error:
            failure = Failure(
                stage=task.kind,
                key=task.key,
                epoch=0,
                error=f"{type(error).__name__}: {_first_line(error)}",
                trace=str(error),
                kind="host_memory" if isinstance(error, OutOfMemoryError) else "lost",
            )
            return task, StageEnd(ending="failed", failure=failure)
        return task, end


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "it was lost")


class _Queue:
    """Stages with the same needs that Ray does not have yet, the highest priority first."""

    def __init__(self) -> None:
        self.n_handed = 0
        self._heap: list[tuple[float, int, StageTask, StageOrder]] = []
        self._n_added = 0

    def add(self, task: StageTask, order: StageOrder, priority: float) -> None:
        heapq.heappush(self._heap, (-priority, self._n_added, task, order))
        self._n_added += 1

    def take(self) -> tuple[StageTask, StageOrder] | None:
        if not self._heap:
            return None
        _, _, task, order = heapq.heappop(self._heap)
        return task, order

    def forget(self, task: StageTask) -> None:
        kept = [entry for entry in self._heap if entry[2] is not task]
        if len(kept) < len(self._heap):
            heapq.heapify(kept)
            self._heap = kept

    def tasks(self) -> list[StageTask]:
        return [task for _, _, task, _ in self._heap]

    def stopped(self) -> list[StageTask]:
        """Give everything back if the user asked to stop: it never began."""
        if not self._heap or not Path(self._heap[0][3].stop_file).exists():
            return []
        tasks = self.tasks()
        self._heap.clear()
        return tasks


def _living_nodes() -> tuple[Node, ...]:
    found = [(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]
    return tuple(
        Node(
            cpus=float(resources.get("CPU", 0.0)),
            gpus=float(resources.get("GPU", 0.0)),
            memory_gib=float(resources.get("memory", 0.0)) / 2**30,
            accelerator=labels.get(ACCELERATOR_LABEL),
        )
        for resources, labels in found
        if resources.get("CPU", 0.0) > 0
    )


def _stage_function(
    compute: Callable[[StageTask, StageOrder, Preemption], StageEnd],
) -> Callable[[StageTask, StageOrder], StageEnd]:
    """The function of a Ray task."""

    def run(task: StageTask, order: StageOrder) -> StageEnd:
        node = ray.get_runtime_context().get_node_id()
        preemption = Preemption(note_of_node(Path(order.stop_file), node))
        with preemption.heeding_sigterm():
            return compute(task, order, preemption)

    return run


def _knock(address: str | None) -> None:
    """Ask a cluster's port for a connection: Ray itself tries a dead one for minutes.

    Raises:
        OSError: If there is no cluster, or nothing answers at its address.
    """
    if address is None or "://" in address:
        return
    found = services.canonicalize_bootstrap_address(address)
    if found is None:  # "local"
        return
    host, _, port = found.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK_S):
        pass

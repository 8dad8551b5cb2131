"""Stages as Ray tasks, on a cluster that this command starts or on a running one.

Ray places the tasks; which stages exist and which are done is the stage store's business, so
nothing of Ray's state has to survive. Ray restarts nothing, since it would try what ran out of
memory for ever and with the same needs: every death comes to `orchestrator.run_sweep`, which
decides.
"""

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError

from orchestrator.resources import StageResources
from workers.preemption import Preemption, note_of_node
from workers.run_stage import Failure, StageEnd, StageOrder, run_stage
from workers.tasks import StageTask


class RayExecutor:
    """Runs stages on Ray; a context manager that owns the connection.

    Args:
        n_cpus: CPUs of the cluster started here; None is all. Ignored with an address.
        address: A running cluster; None starts one on this machine.
    """

    def __init__(self, *, n_cpus: int | None = None, address: str | None = None) -> None:
        self._n_cpus = n_cpus
        self._address = address
        self._tasks: dict[Any, StageTask] = {}
        self._ended_refs: dict[str, Any] = {}
        self._remote: Any = None

    def __enter__(self) -> "RayExecutor":
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(
            # Without an address Ray would join a cluster of anybody that was started here.
            address=self._address or "local",
            num_cpus=None if self._address else self._n_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
        )
        self._remote = ray.remote(_run_after)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ray.shutdown()

    def submit(self, task: StageTask, order: StageOrder, resources: StageResources) -> None:
        """Hand a stage to Ray, with the small records of the stages that it builds on."""
        gpus, cpus, memory_gib = resources.gpus or 0, resources.cpus, resources.memory_gib
        if order.is_alone or (order.is_exclusive and not gpus):
            largest = _largest_node(gpus)
            cpus = largest.get("CPU", cpus)
            if memory_gib is not None:
                memory_gib = min(memory_gib, largest.get("memory", math.inf) / 2**30)
        parents = [
            self._ended_refs[key] for key in task.parents.values() if key in self._ended_refs
        ]
        options: dict[str, Any] = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_retries": 0,
            "name": f"{task.kind} {task.key}",
        }
        if memory_gib is not None:
            options["memory"] = int(memory_gib * 2**30)
        reference = self._remote.options(**options).remote(task, order, *parents)
        self._tasks[reference] = task

    def ended(self, timeout_s: float) -> Sequence[tuple[StageTask, StageEnd]]:
        """Return what has ended; a worker lost for good becomes a failed end."""
        if not self._tasks:
            return []
        ready, _ = ray.wait(list(self._tasks), num_returns=1, timeout=timeout_s, fetch_local=True)
        return [self._collect(reference) for reference in ready]

    def running(self) -> Sequence[StageTask]:
        """Return the stages handed to Ray that have not ended, waiting ones included."""
        return list(self._tasks.values())

    def forget(self, task: StageTask) -> None:
        """Wait no more for a stage; Ray takes minutes to give up a host that has gone silent."""
        self._tasks = {ref: waiting for ref, waiting in self._tasks.items() if waiting is not task}

    def kill(self, task: StageTask) -> None:
        """End the process that computes a stage, even one that hangs."""
        for reference, waiting in self._tasks.items():
            if waiting is task:
                ray.cancel(reference, force=True)

    def leaving_nodes(self) -> Sequence[str]:
        """Return the nodes that Ray drains; it places nothing on them any more."""
        return tuple(ray._private.state.state.get_draining_nodes())

    def n_gpus(self) -> float:
        """Return the GPUs of the cluster."""
        return float(ray.cluster_resources().get("GPU", 0.0))

    def n_cpus(self) -> float:
        """Return the CPUs of the cluster."""
        return float(ray.cluster_resources().get("CPU", 1.0))

    def _collect(self, reference: Any) -> tuple[StageTask, StageEnd]:  # noqa: ANN401
        task = self._tasks.pop(reference)
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
        if end.ending == "done":
            self._ended_refs[task.key] = reference
        return task, end


def _largest_node(gpus: float) -> dict[str, float]:
    """Resources of the node with the most CPUs among those that have the GPUs; empty without."""
    nodes: list[dict[str, float]] = [
        node["Resources"]
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("GPU", 0.0) >= gpus
    ]
    return max(nodes, key=lambda node: node.get("CPU", 0.0), default={})


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), "it was lost")


def _run_after(task: StageTask, order: StageOrder, *parents: StageEnd) -> StageEnd:
    """Run a stage; the parents' records only make Ray wait for them."""
    node = ray.get_runtime_context().get_node_id()
    preemption = Preemption(note_of_node(Path(order.stop_file), node))
    with preemption.heeding_sigterm():
        return run_stage(task, order, preemption)

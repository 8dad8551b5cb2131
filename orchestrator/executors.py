"""What runs stages: the protocol, and the executor that runs them in this process."""

from collections.abc import Sequence
from typing import Protocol

from orchestrator.resources import StageResources
from workers.run_stage import StageEnd, StageOrder, run_stage
from workers.task import StageTask


class Executor(Protocol):
    """Runs stages and says how they ended."""

    def submit(
        self, task: StageTask, order: StageOrder, resources: StageResources, priority: float = 0.0
    ) -> None:
        """Take a stage on; every stage it builds on is whole. A higher priority starts sooner."""
        ...

    def ended(self, timeout_s: float) -> Sequence[tuple[StageTask, StageEnd]]:
        """Return the stages that have ended since the last call, after at most `timeout_s`."""
        ...

    def running(self) -> Sequence[StageTask]:
        """Return the stages taken on that have not ended."""
        ...

    def waiting(self) -> Sequence[StageTask]:
        """Return those of them that can still be given other needs: `forget`, then `submit`."""
        ...

    def forget(self, task: StageTask) -> None:
        """Wait no more for a stage that another process has finished."""
        ...

    def kill(self, task: StageTask) -> None:
        """End the process that computes a stage; its end is then reported as ``lost``."""
        ...

    def leaving_nodes(self) -> Sequence[str]:
        """Return the nodes that take no new stages since they go away."""
        ...


class InlineExecutor:
    """Runs each stage in this process, one after the other: for tests and breakpoints."""

    def __init__(self) -> None:
        self._waiting: list[tuple[StageTask, StageOrder]] = []

    def submit(
        self, task: StageTask, order: StageOrder, resources: StageResources, priority: float = 0.0
    ) -> None:
        """Queue a stage; the priority counts for nothing."""
        self._waiting.append((task, order))

    def ended(self, timeout_s: float) -> Sequence[tuple[StageTask, StageEnd]]:
        """Run the next stage of the queue to its end."""
        if not self._waiting:
            return []
        task, order = self._waiting[0]
        end = run_stage(task, order)
        self._waiting.pop(0)
        return [(task, end)]

    def running(self) -> Sequence[StageTask]:
        """Return the queue."""
        return [task for task, _ in self._waiting]

    def waiting(self) -> Sequence[StageTask]:
        """Return nothing: needs count for nothing here."""
        return ()

    def forget(self, task: StageTask) -> None:
        """Leave a stage out of the queue."""
        self._waiting = [entry for entry in self._waiting if entry[0] is not task]

    def kill(self, task: StageTask) -> None:
        """Do nothing: the stage would be this very process."""

    def leaving_nodes(self) -> Sequence[str]:
        """Return nothing: there are no nodes."""
        return ()

"""What a driver is, and the loop that runs one."""

from collections.abc import Callable, Sequence
from typing import Protocol

from iac_core.searches.interface import NoCandidate
from orchestrator.executors import Executor
from orchestrator.run_sweep import JobEnd, SweepProgress, SweepRoom, SweepRun, View
from workers.job import Job
from workers.task import StageTask

Ask = Sequence[Job] | NoCandidate
"""Jobs, at least one; ``IDLE`` while it waits for open ones; ``DONE`` if none will follow."""


class Driver(Protocol):
    """Decides which jobs exist.

    A driver is deterministic in its settings and in the ends that it was told, in whatever order
    they came. A run that was killed goes on by asking it again: every job that it asked for
    before is found whole in the store, and ends at once.
    """

    def ask(self) -> Ask:
        """Return all jobs that can be decided now, or why there are none."""
        ...

    def tell(self, end: JobEnd) -> None:
        """Take up how one of its jobs ended."""
        ...


def drive(
    driver: Driver,
    room: SweepRoom,
    executor: Executor,
    *,
    view: View,
    on_job_end: Callable[[JobEnd], None],
    priority: Callable[[StageTask], float] | None = None,
) -> SweepProgress:
    """Run the jobs of a driver until it wants no more, or nothing that it waits for can end.

    Args:
        driver: Decides which jobs exist.
        room: Store, stop file, data folders, resources.
        executor: What runs stages.
        view: Follows along.
        on_job_end: Called once per job, after the driver was told.
        priority: Of a stage, the highest starts first; None takes them as they come.
    """

    def tell(end: JobEnd) -> None:
        driver.tell(end)
        on_job_end(end)

    with SweepRun(room, executor, view=view, on_job_end=tell, priority=priority) as run:
        while True:
            while not room.stop_file.exists():
                asked = driver.ask()
                if isinstance(asked, NoCandidate):
                    break
                run.add(asked)
            if not run.is_busy:
                break
            run.step()
    return run.progress

"""The driver of a grid: it wants every job from the start."""

from collections.abc import Sequence

from iac_core.searches.interface import DONE
from orchestrator.drivers.driver import Ask
from orchestrator.run_sweep import JobEnd
from workers.job import Job


class GridDriver:
    """Asks for a list of jobs, at once.

    Args:
        jobs: The jobs.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._jobs: Sequence[Job] = jobs

    def ask(self) -> Ask:
        """See `orchestrator.drivers.driver.Driver`."""
        jobs, self._jobs = self._jobs, ()
        return jobs or DONE

    def tell(self, end: JobEnd) -> None:
        """See `orchestrator.drivers.driver.Driver`; nothing follows from how a job ends."""

"""The driver of a search: candidates become jobs, and what these come to becomes a score."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from iac_core.searches.interface import NoCandidate, Search
from iac_core.searches.record import Proposal
from orchestrator.drivers.driver import Ask
from orchestrator.run_sweep import JobEnd
from workers.failures import OF_THE_JOB
from workers.job import Job

C = TypeVar("C")


@dataclass(slots=True)
class _Open(Generic[C]):
    """A candidate whose jobs have not all ended."""

    proposal: Proposal[C]
    jobs: tuple[Job, ...]
    ends: dict[str, JobEnd] = field(default_factory=dict)


class SearchDriver(Generic[C]):
    """Runs a search whose candidates are scored by jobs.

    A candidate is told its score when all of its jobs are done. One that fails by itself
    (`workers.failures.OF_THE_JOB`) has no score and counts as worse than any other; one whose job
    was lost to the infrastructure is not scored at all: the search waits for it, and goes on when
    the same command is run again.

    Args:
        search: Names candidates.
        jobs_of: Returns the jobs of a candidate: folds, seeds.
        score_of: Returns the score of a candidate from the ends of its jobs, in the order of
            `jobs_of`; higher is better.

    Attributes:
        lost: Candidates that wait for jobs which were lost in this run.
    """

    def __init__(
        self,
        search: Search[C],
        *,
        jobs_of: Callable[[Proposal[C]], Sequence[Job]],
        score_of: Callable[[Sequence[JobEnd]], float],
    ) -> None:
        self.lost: list[Proposal[C]] = []
        self._search, self._jobs_of, self._score_of = search, jobs_of, score_of
        self._open: dict[int, _Open[C]] = {}
        self._wanted_by: dict[str, list[int]] = {}

    def ask(self) -> Ask:
        """See `orchestrator.drivers.driver.Driver`."""
        asked = self._search.ask()
        if isinstance(asked, NoCandidate):
            return asked
        jobs: dict[str, Job] = {}
        for proposal in asked:
            own = tuple(self._jobs_of(proposal))
            self._open[proposal.order] = _Open(proposal, own)
            for job in own:
                self._wanted_by.setdefault(job.job_id, []).append(proposal.order)
                jobs[job.job_id] = job
        return list(jobs.values())

    def tell(self, end: JobEnd) -> None:
        """See `orchestrator.drivers.driver.Driver`."""
        job_id = end.state.job.job_id
        for order in self._wanted_by.pop(job_id, ()):
            candidate = self._open[order]
            candidate.ends[job_id] = end
            if len(candidate.ends) == len({job.job_id for job in candidate.jobs}):
                self._settle(candidate)

    def _settle(self, candidate: _Open[C]) -> None:
        """Tell the search of a candidate whose jobs have all ended."""
        del self._open[candidate.proposal.order]
        ends = [candidate.ends[job.job_id] for job in candidate.jobs]
        failures = [end.failure for end in ends if end.failure is not None]
        if any(failure.kind in OF_THE_JOB for failure in failures):
            self._search.tell(candidate.proposal, math.nan)
        elif failures:
            self.lost.append(candidate.proposal)
        else:
            self._search.tell(candidate.proposal, self._score_of(ends))

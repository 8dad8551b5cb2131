"""Whether a stage that ended early is tried again in this run, when, and with what."""

from dataclasses import dataclass

from workers.failures import PAUSE_S, TRIES
from workers.run_stage import StageEnd

PREEMPTION_PAUSE_S = 10.0
"""Before a preempted stage is submitted again, since its host may still take work; each time in a
row it is twice as long, five minutes at most."""
_LONGEST_PREEMPTION_PAUSE_S = 300.0


@dataclass(slots=True, kw_only=True)
class Tries:
    """What a run has learnt of a stage that ended early.

    Attributes:
        n: Failures in a row that got no further than those before.
        epoch: The furthest epoch reported.
        n_preemptions: Times in a row that its host went away.
        n_micro_batches: Parts that its batches are to be cut into.
        is_alone: Whether it is to have a machine to itself.
        has_whole_gpu: Whether its share of a GPU was too little.
    """

    n: int = 0
    epoch: int = 0
    n_preemptions: int = 0
    n_micro_batches: int = 1
    is_alone: bool = False
    has_whole_gpu: bool = False

    def pause_s(self, end: StageEnd) -> float | None:
        """Take in how an execution ended.

        Args:
            end: The end.

        Returns:
            Seconds until the stage is to be submitted again; None if it is not.
        """
        if end.ending == "preempted":
            self.n_preemptions += 1
            longer = PREEMPTION_PAUSE_S * 2.0 ** (self.n_preemptions - 1)
            return min(_LONGEST_PREEMPTION_PAUSE_S, longer)
        failure = end.failure
        if failure is None:
            return None
        self.n = 1 if failure.epoch > self.epoch else self.n + 1
        self.epoch, self.n_preemptions = max(self.epoch, failure.epoch), 0
        if self.n > TRIES.get(failure.kind, 0):
            return None
        if failure.kind == "gpu_memory" and failure.gpu_share < 1:
            self.has_whole_gpu = True
        elif failure.kind == "gpu_memory":
            self.n_micro_batches = 2 * failure.n_micro_batches
        self.is_alone = self.is_alone or failure.kind == "host_memory"
        return PAUSE_S.get(failure.kind, 0.0) * 2.0 ** (self.n - 1)

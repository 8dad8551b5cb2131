"""Which ends of a stage are followed by another try in the same run."""

import pytest

from orchestrator.tries import PREEMPTION_PAUSE_S, Tries
from workers.failures import PAUSE_S, TRIES
from workers.run_stage import Failure, StageEnd


def failed(kind, epoch=0, **more):
    failure = Failure(stage="search", key="k", epoch=epoch, error="", trace="", kind=kind, **more)
    return StageEnd(ending="failed", failure=failure)


@pytest.mark.parametrize("kind", sorted(TRIES))
def test_a_kind_has_its_tries_in_a_row_and_no_more(kind):
    tries = Tries()
    assert all(tries.pause_s(failed(kind)) is not None for _ in range(TRIES[kind]))
    assert tries.pause_s(failed(kind)) is None


@pytest.mark.parametrize("kind", ["timeout", "not_finite", "data", "setting", "code"])
def test_what_another_try_cannot_mend_gets_none(kind):
    assert Tries().pause_s(failed(kind, epoch=5)) is None


def test_a_stage_that_advances_is_tried_on():
    tries = Tries()
    assert all(tries.pause_s(failed("lost", epoch)) == 0.0 for epoch in range(1, 20))
    assert [tries.pause_s(failed("lost", 19)) for _ in range(3)] == [0.0, 0.0, None]


def test_pauses_double_and_a_failure_ends_a_row_of_preemptions():
    tries, preempted = Tries(), StageEnd(ending="preempted")
    pauses = [tries.pause_s(preempted) for _ in range(9)]
    assert pauses[:3] == [PREEMPTION_PAUSE_S * factor for factor in (1, 2, 4)]
    assert pauses[-1] == 300.0
    first = PAUSE_S["disk_full"]
    assert [tries.pause_s(failed("disk_full")) for _ in range(2)] == [first, 2 * first]
    assert tries.pause_s(preempted) == PREEMPTION_PAUSE_S


def test_each_full_gpu_cuts_what_was_used_in_half():
    tries = Tries()
    tries.pause_s(failed("gpu_memory", n_micro_batches=4))  # cut in an earlier run
    assert (tries.n_micro_batches, tries.is_alone) == (8, False)
    tries.pause_s(failed("host_memory", epoch=1))
    assert (tries.n_micro_batches, tries.is_alone) == (8, True)


def test_what_is_done_or_stopped_is_not_tried():
    assert Tries().pause_s(StageEnd(ending="done")) is None
    assert Tries().pause_s(StageEnd(ending="stopped")) is None

"""Stages that share a GPU: measured once, kept, reserved, and given more if that is too little."""

from dataclasses import replace

import pytest
import torch

from orchestrator.executors import InlineExecutor
from orchestrator.packing import MARGIN, Packing, Peak, sort_of
from orchestrator.resources import ResourceSettings, StageResources
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep
from orchestrator.tries import Tries
from workers.memory import CONTEXT_MIB, PeakMemory, gpu_limited
from workers.places import LocalPlace
from workers.run_stage import Failure, StageEnd
from workers.stage_store import StageRecord

A100 = {"device": "A100", "gpu_mib": 80_000.0}


@pytest.fixture
def tasks(write_sweep, tmp_path):
    """Pre-trainings of two seeds, and a search."""
    session = open_sweep(write_sweep("[none]", "[0, 1]"), {}, tmp_path / "runs", needs_data=True)
    first, second = (state.tasks for state in session.plan().states)
    return first[1], second[1], first[2]


def record_of(task, **provenance):
    return StageRecord(
        kind=task.kind, key=task.key, settings={}, outcome={}, provenance=provenance
    )


def packing(tmp_path, **settings):
    return Packing(LocalPlace(tmp_path / "store"), ResourceSettings(**settings))


WHOLE = StageResources(gpus=1.0)


def test_a_stage_that_nobody_measured_gets_a_whole_gpu(tasks, tmp_path):
    assert packing(tmp_path).fill(tasks[0], WHOLE) == WHOLE


def test_what_one_stage_took_is_reserved_for_its_like_and_kept(tasks, tmp_path):
    first, second, search = tasks
    record = record_of(first, peak_host_mib=1500.0, peak_gpu_mib=10_000.0, **A100)
    assert packing(tmp_path).learn(first, record)
    later = packing(tmp_path)
    needs = later.fill(second, WHOLE)
    assert needs.gpus == pytest.approx(0.15)  # 10,000 × 1.15 of 80,000, in hundredths
    assert needs.memory_gib == 1.75  # 1,500 MiB × 1.15, in quarters
    assert later.fill(search, WHOLE) == WHOLE
    smaller = record_of(second, peak_host_mib=1400.0, peak_gpu_mib=9_000.0, **A100)
    assert not later.learn(second, smaller)


def test_a_larger_peak_counts_from_then_on_and_of_two_devices_the_larger_share(tasks, tmp_path):
    first, second, _ = tasks
    book = packing(tmp_path)
    for device, total, peak in [
        ("A100", 80_000.0, 10_000.0), ("A100", 80_000.0, 16_000.0), ("T4", 16_000.0, 5_600.0),
    ]:  # fmt: skip
        seen = {"device": device, "gpu_mib": total, "peak_gpu_mib": peak, "peak_host_mib": 900.0}
        assert book.learn(first, record_of(first, **seen))
    assert book.fill(second, WHOLE).gpus == pytest.approx(0.41)
    assert packing(tmp_path).fill(second, WHOLE).gpus == pytest.approx(0.41)


def test_two_that_do_not_fit_one_gpu_are_not_packed():
    peak = Peak(device="T4", host_mib=1.0, gpu_mib=16_000 * 0.45, total_gpu_mib=16_000)
    assert MARGIN * 0.45 > 0.5
    assert peak.share == 1.0


def test_what_the_sweep_says_wins_and_timed_searches_are_alone(tasks, tmp_path):
    _, _, search = tasks
    seen = {"peak_host_mib": 900.0, "peak_gpu_mib": 8_000.0, **A100}
    for settings, gpus in [
        ({}, 1.0),
        ({"exclusive_search": False}, 0.12),
        ({"exclusive_search": False, "pack": False}, 1.0),
        ({"exclusive_search": False, "search": StageResources(gpus=1.0)}, 1.0),
    ]:
        book = packing(tmp_path, **settings)
        book.learn(search, record_of(search, **seen))
        assert book.fill(search, WHOLE).gpus == pytest.approx(gpus), settings
    asked = StageResources(gpus=1.0, memory_gib=7.0)
    assert packing(tmp_path, search=asked).fill(search, asked).memory_gib == 7.0


def test_stages_whose_batches_were_cut_teach_nothing(tasks, tmp_path):
    seen = {"peak_host_mib": 900.0, "peak_gpu_mib": 8_000.0, **A100}
    record = record_of(tasks[0], n_micro_batches=2, **seen)
    assert not packing(tmp_path).learn(tasks[0], record)


def test_the_sort_of_a_stage_knows_network_and_batch_but_no_seed(tasks):
    first, second, search = tasks
    assert sort_of(first) == sort_of(second) != sort_of(search)
    settings = first.job.settings
    for changed in (
        replace(settings, pretrain=replace(settings.pretrain, batch_size=16)),
        replace(settings, prepare=replace(settings.prepare, size=64)),
        replace(settings, backbone=replace(settings.backbone, widths=(16, 32))),
    ):
        other = replace(first, job=replace(first.job, settings=changed))
        assert sort_of(other) != sort_of(first)
    longer = replace(settings, pretrain=replace(settings.pretrain, epochs=99))
    assert sort_of(replace(first, job=replace(first.job, settings=longer))) == sort_of(first)


def test_a_share_that_was_too_little_becomes_the_whole_gpu_before_batches_are_cut():
    tries = Tries()

    def out_of_memory(share, parts=1):
        return StageEnd(
            ending="failed",
            failure=Failure(
                stage="pretrain", key="k", epoch=0, error="", trace="", kind="gpu_memory",
                n_micro_batches=parts, gpu_share=share,
            ),
        )  # fmt: skip

    assert tries.pause_s(out_of_memory(0.15)) is not None
    assert (tries.has_whole_gpu, tries.n_micro_batches) == (True, 1)
    assert tries.pause_s(out_of_memory(1.0)) is not None
    assert tries.n_micro_batches == 2
    assert tries.pause_s(out_of_memory(1.0, 2)) is not None
    assert tries.n_micro_batches == 4


def test_the_peak_of_a_stage_is_its_own_not_that_of_the_one_before():
    before = PeakMemory(torch.device("cpu")).measured()["peak_host_mib"]
    large = torch.ones(100 * 2**20)  # 400 MiB
    during = PeakMemory(torch.device("cpu"))
    more = torch.ones(25 * 2**20)  # 100 MiB
    peak = during.measured()["peak_host_mib"]
    assert peak - before > 400
    del large, more
    after = PeakMemory(torch.device("cpu")).measured()["peak_host_mib"]
    assert peak - after > 400


@pytest.mark.slow
def test_a_sweep_measures_its_stages_and_the_next_one_reserves_it(write_sweep, tmp_path):
    session = open_sweep(write_sweep("[no_cell]"), {}, tmp_path / "runs", needs_data=True)
    run_sweep(
        session.expansion.jobs, session.room(), InlineExecutor(), view=View(),
        on_job_end=lambda end: None,
    )  # fmt: skip
    (state,) = session.plan().states
    pretrain = state.tasks[1]
    peak = session.store.record("pretrain", pretrain.key).provenance["peak_host_mib"]
    assert 100 < peak < 20_000
    book = Packing(session.store.place, session.spec.resources)
    reserved = book.fill(pretrain, StageResources()).memory_gib
    assert peak * MARGIN / 1024 <= reserved <= peak * MARGIN / 1024 + 0.25


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_share_of_a_gpu_is_measured_and_is_a_limit():
    device = torch.device("cuda")
    peak = PeakMemory(device)
    held = torch.ones(256 * 2**20, dtype=torch.uint8, device=device)
    seen = peak.measured()
    assert 256 + CONTEXT_MIB <= seen["peak_gpu_mib"] < 512 + CONTEXT_MIB
    del held
    torch.cuda.empty_cache()
    share = (CONTEXT_MIB + 128) / seen["gpu_mib"]
    with gpu_limited(device, share), pytest.raises(torch.cuda.OutOfMemoryError):
        torch.ones(256 * 2**20, dtype=torch.uint8, device=device)
    torch.ones(256 * 2**20, dtype=torch.uint8, device=device)

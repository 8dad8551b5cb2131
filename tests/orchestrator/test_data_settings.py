"""The largest volume that a sweep reads, and what a run says of its data folders."""

import logging

import pytest
from broken_volumes import flip, set_field, write_folder

from iac_core.config import DatasetOptions
from iac_core.data import open_dataset
from iac_core.data.check import check_dataset
from iac_core.errors import ConfigError, DataError
from orchestrator.executors import InlineExecutor
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep, tables
from orchestrator.spec import SweepError, load_sweep

SWEEP = """
metadata:
  sweep:
    name: volumes
    datasets: {small: {layout: folder, path: data}}
    grid: {dataset: [small], backbone: [unet], pruner: [no_cell], seed: [0]}
    stages:
      prepare: {size: 16, spacing_mm: 4.0}
      split: {n_folds: 3, validation_share: 0.25}
      pretrain: {epochs: 1, batch_size: 4, steps_per_epoch: 1}
    backbones: {unet: {widths: [4, 8]}}
    resources: {threads: 1, cpus: 1}
"""
LIMIT = "    data: {max_volume_gib: VALUE}\n"


@pytest.fixture
def write(tmp_path):
    """A function that writes the sweep with more lines; its data folder lies beside it."""

    def function(extra="", old="path: data", new="path: data"):
        path = tmp_path / "sweep.yaml"
        path.write_text(SWEEP.replace(old, new) + extra)
        return path

    return function


def opened(path, tmp_path):
    return open_sweep(path, {}, tmp_path / "runs", needs_data=True)


def test_the_sweep_says_the_largest_volume_and_a_dataset_may_say_another(write):
    plain = load_sweep(write(), tables=tables())
    assert plain.datasets["small"].most_gib == 4.0
    raised = load_sweep(write(LIMIT.replace("VALUE", "12.5")), tables=tables())
    assert raised.datasets["small"].most_gib == 12.5
    path = write(LIMIT.replace("VALUE", "12.5"), new="path: data, max_volume_gib: 2")
    assert load_sweep(path, tables=tables()).datasets["small"].most_gib == 2


@pytest.mark.parametrize("value", ["0", "-1", "1e9", "four", "[4]", "null"])
def test_a_limit_out_of_range_is_named_with_its_line(write, value):
    with pytest.raises(SweepError, match="max_volume_gib") as caught:
        load_sweep(write(LIMIT.replace("VALUE", value)), tables=tables())
    assert caught.value.problems[0].place == "13"


@pytest.mark.parametrize("value", [".inf", ".nan"])
def test_a_limit_that_is_not_finite_is_named_with_its_line(write, value):
    with pytest.raises(ConfigError, match=r":13: a number must be finite"):
        load_sweep(write(LIMIT.replace("VALUE", value)), tables=tables())


def test_an_unknown_key_of_data_is_named(write):
    with pytest.raises(SweepError, match="did you mean 'max_volume_gib'"):
        load_sweep(write("    data: {max_volume_gb: 4}\n"), tables=tables())


def test_the_limit_changes_no_key(write, tmp_path):
    write_folder(tmp_path / "data", n_cases=4)
    keys = []
    for extra in ("", LIMIT.replace("VALUE", "1")):
        session = opened(write(extra), tmp_path)
        keys.append(session.plan().missing)
    assert keys[0]
    assert keys[0] == keys[1]


def test_a_run_reads_nothing_beyond_the_limit(write, tmp_path):
    write_folder(tmp_path / "data", n_cases=4)
    opened(write(), tmp_path)
    with pytest.raises(SweepError, match=r"at most 1e-06 GiB \(data.max_volume_gib\)") as caught:
        opened(write(LIMIT.replace("VALUE", "0.000001")), tmp_path)
    assert len(caught.value.problems) == 8


def test_a_run_names_every_bad_volume_in_the_words_of_the_check(write, tmp_path):
    paths = write_folder(tmp_path / "data", n_cases=5)
    set_field(paths["case_1"][0], "datatype", 128)
    flip(paths["case_3"][1], -6)
    paths["case_4"][1].unlink()
    with pytest.raises(SweepError) as caught:
        opened(write(), tmp_path)
    dataset = open_dataset("folder", tmp_path / "data", DatasetOptions())
    assert len(caught.value.problems) == 3
    assert caught.value.problems == check_dataset(dataset).problems


def test_a_volume_that_goes_bad_after_the_check_fails_the_preparation_in_the_same_words(
    write, tmp_path
):
    paths = write_folder(tmp_path / "data", n_cases=4)
    session = opened(write(), tmp_path)
    flip(paths["case_2"][0], -6)
    dataset = open_dataset("folder", tmp_path / "data", DatasetOptions())
    expected = str(DataError(check_dataset(dataset).problems))
    ends = []
    run_sweep(
        session.expansion.jobs, session.room(), InlineExecutor(), view=View(),
        on_job_end=ends.append,
    )  # fmt: skip
    assert [end.failure.stage for end in ends] == ["prepare"]
    assert expected in ends[0].failure.error


def test_every_run_says_what_the_check_warned_of(write, tmp_path, caplog):
    paths = write_folder(tmp_path / "data", n_cases=4)
    for name in ("case_0", "case_3"):
        set_field(paths[name][0], "bitpix", 8)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="orchestrator.session"):
            opened(write(), tmp_path)
        (record,) = caplog.records
        assert str(paths["case_0"][0]) in record.message
        assert record.message.endswith("(and 1 more like it)")
    (note,) = (tmp_path / "runs" / "store" / "checks").glob("folder-*.json")
    note.write_text("{")  # a damaged note counts as none
    opened(write(), tmp_path)

"""What fits on which machines, and the order in which Ray gets stages."""

import re

import psutil
import pytest

from iac_core.errors import ConfigError
from orchestrator.cluster import Node, n_places, requested, this_machine, unplaceable
from orchestrator.ray_executor import RayExecutor, _Queue
from orchestrator.resources import ResourceSettings, StageResources
from workers.run_stage import StageOrder

FOUR_GPUS = Node(cpus=32, gpus=4, memory_gib=128)


def test_places_are_those_of_the_scarcest_resource_on_each_machine():
    needs = StageResources(cpus=2, gpus=0.5, memory_gib=30)
    assert FOUR_GPUS.n_places(needs) == 4
    assert FOUR_GPUS.n_places(StageResources(cpus=2, gpus=0.5)) == 8
    assert FOUR_GPUS.n_places(StageResources(cpus=0.1, gpus=0)) == 320
    assert n_places([FOUR_GPUS, Node(cpus=3)], StageResources(cpus=2, gpus=0)) == 17
    assert Node(cpus=4).n_places(StageResources(cpus=1, gpus=1)) == 0


def test_an_exclusive_search_without_a_gpu_takes_the_largest_machine_whole():
    nodes = [Node(cpus=4), Node(cpus=16)]
    needs = StageResources(cpus=1, gpus=0)
    assert requested(needs, nodes, is_exclusive=True).cpus == 16
    assert requested(needs, nodes, is_exclusive=False) == needs
    assert n_places(nodes, requested(needs, nodes, is_exclusive=True)) == 1


def test_what_no_machine_can_give_is_said_with_rule_value_and_way_out():
    resources = ResourceSettings(
        retrain=StageResources(gpus=8), prepare=StageResources(cpus=64, gpus=0)
    )
    kinds = ("prepare", "pretrain", "search", "retrain", "evaluate")
    prepare, retrain = unplaceable(resources, [FOUR_GPUS, Node(cpus=8)], kinds)
    assert retrain == (
        "resources.retrain must fit one machine, got 1 CPUs, 8 GPUs where the largest has 32 "
        "CPUs, 4 GPUs, 128.0 GiB; ask for less, add a machine that large, or wait for one to join "
        "with --wait-for-machines"
    )
    assert prepare.startswith("resources.prepare must fit one machine, got 64 CPUs")
    assert unplaceable(resources, [FOUR_GPUS], ("pretrain", "search")) == ()


def test_memory_that_no_machine_has_is_refused():
    resources = ResourceSettings(search=StageResources(memory_gib=10_000))
    (problem,) = unplaceable(resources, this_machine(), ("search",))
    assert "10000.0 GiB" in problem


def test_waiting_stages_go_in_order_of_priority_then_of_arrival(tmp_path):
    order = StageOrder(store_root="", stop_file=str(tmp_path / "stop"))
    queue = _Queue()
    for name, priority in (("a", 0.0), ("b", 2.0), ("c", 0.0), ("d", 1.0)):
        queue.add(name, order, priority)
    queue.forget("d")
    assert queue.stopped() == []
    assert [queue.take()[0] for _ in range(2)] == ["b", "a"]
    (tmp_path / "stop").touch()
    assert queue.stopped() == ["c"]
    assert queue.take() is None


def test_where_no_cluster_runs_the_way_out_is_said():
    if any(process.info["name"] == "gcs_server" for process in psutil.process_iter(["name"])):
        pytest.skip("a Ray cluster runs on this machine")
    with (
        pytest.raises(ConfigError, match=r"got auto .*start one with `ray start --head`"),
        RayExecutor(address="auto"),
    ):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:9", "no-such-host:6379", "127.0.0.1"])
def test_an_address_where_nothing_answers_is_named_at_once(address):
    with (
        pytest.raises(ConfigError, match=f"got {re.escape(address)} .*start one with"),
        RayExecutor(address=address),
    ):
        pass

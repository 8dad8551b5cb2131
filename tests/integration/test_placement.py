"""Where Ray puts stages: on the GPU model that was asked for, several on one GPU if they fit."""

import pytest
import ray
from ray.cluster_utils import Cluster

from orchestrator.ray_executor import ACCELERATOR_LABEL, RayExecutor
from orchestrator.resources import StageResources
from orchestrator.session import open_sweep
from workers.run_stage import Failure, StageEnd

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def say_where(task, order, preemption):
    """What a worker does: tell the node's label and the GPU that Ray has given."""
    context = ray.get_runtime_context()
    model = context.get_node_labels().get(ACCELERATOR_LABEL)
    where = f"{model} {context.get_accelerator_ids()['GPU']}"
    failure = Failure(stage=task.kind, key=task.key, epoch=0, error=where, trace="")
    return StageEnd(ending="failed", failure=failure, pid=1)


def test_stages_go_to_the_model_they_ask_for_and_share_its_gpu(write_sweep, tmp_path):
    seeds = "[0, 1, 2, 3]"
    session = open_sweep(write_sweep("[none]", seeds), {}, tmp_path / "runs", needs_data=True)
    tasks = [state.tasks[1] for state in session.plan().states]
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=4)
        cluster.add_node(num_cpus=4, num_gpus=1, labels={ACCELERATOR_LABEL: "T4"})
        cluster.add_node(num_cpus=4, num_gpus=1, labels={ACCELERATOR_LABEL: "A100"})
        with RayExecutor(address=cluster.address, compute=say_where) as executor:
            assert {node.accelerator for node in executor.nodes()} == {None, "T4", "A100"}
            needs = StageResources(cpus=0.5, gpus=0.25, accelerator="A100")
            for task in tasks:
                executor.submit(task, session.room().order("pretrain", needs), needs)
            ends = []
            while executor.running():
                ends += executor.ended(1.0)
    finally:
        cluster.shutdown()
    assert len(ends) == 4
    assert {end.failure.error for _, end in ends} == {"A100 ['0']"}

"""What the executor itself costs: jobs that do nothing, beside a Ray Tune grid that does nothing.

    python -m benchmarks.executor [--quick] [--jobs N]

A job is one stage that does nothing, through the real loop, the real `RayExecutor`, the real
store, leases and manifests (synced to the disk). A trial is a Tune trainable of one step that does
nothing, with and without ``reuse_actors``. Blocks of both run in turns on one local Ray of two
CPUs. Then the driver's memory over many jobs, their resuming, MLflow's mirror apart, the plan of
ten thousand jobs, and sweeps on a simulated cluster of a thousand GPUs with recorded stage times.
"""

import argparse
import contextlib
import io
import itertools
import json
import resource
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import psutil
import torch
from ray import tune

from benchmarks.interleaved import print_result
from iac_core.backbones.unet import UNetSettings
from iac_core.config import (
    AugmentationSettings,
    CellSettings,
    EvaluateSettings,
    PrepareSettings,
    PretrainSettings,
    RetrainSettings,
    SearchSettings,
    SplitSettings,
)
from orchestrator.cluster import Node
from orchestrator.costs import CostModel, observations_of_tables
from orchestrator.executors import InlineExecutor
from orchestrator.forecast import Forecast
from orchestrator.plan import KnownRecords, make_plan
from orchestrator.ray_executor import RayExecutor
from orchestrator.resources import ResourceSettings
from orchestrator.run_sweep import JobEnd, SweepProgress, SweepRoom, View, run_sweep
from orchestrator.session import open_sweep
from orchestrator.simulation import simulate
from orchestrator.tracking import FinishedJob, Tracker
from orchestrator.tracking_writer import BackgroundTracker
from workers.arms import ARMS, Known, Step
from workers.job import Job, JobSettings
from workers.preemption import Preemption
from workers.run_stage import StageEnd, StageOrder, run_stage
from workers.stage_store import StageStore
from workers.stages.context import StageContext
from workers.stages.pretrain import PRETRAIN
from workers.stages.table import STAGES
from workers.task import DataSource, Outcome, StageTask

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "records"
N_CPUS = 2
SETTINGS = JobSettings(
    prepare=PrepareSettings(),
    split=SplitSettings(),
    augmentation=AugmentationSettings(),
    pretrain=PretrainSettings(),
    cell=CellSettings(),
    search=SearchSettings(),
    retrain=RetrainSettings(),
    evaluate=EvaluateSettings(),
    backbone=UNetSettings(),
    pruner=None,
)
CLUSTER = (Node(cpus=32, gpus=4),) * 250
N_GPUS = 1000
SOURCES = {"nothing": DataSource(layout="acdc", path="/", fingerprint="0" * 16)}


def _nothing(context: StageContext) -> Outcome:
    """What the stage computes."""
    return {}


NOTHING = replace(PRETRAIN, run=_nothing)
"""A pre-training that does nothing."""


class JobOfNothing:
    """The arm of one stage."""

    name = "nothing"
    settings = None
    searches = has_cells = False

    def steps(self, job: Job, known: Known) -> Sequence[Step]:
        """See `workers.arms.Arm`."""
        return [Step(role="pretrain", kind="pretrain")]


def compute(task: StageTask, order: StageOrder, preemption: Preemption) -> StageEnd:
    """What a worker does: the real entry, on a table whose pre-training does nothing."""
    STAGES["pretrain"] = NOTHING
    return run_stage(task, order, preemption)


def jobs_of_nothing(first: int, n: int) -> list[Job]:
    """Jobs of one stage each, all different."""
    return [
        Job(
            dataset="nothing",
            backbone="unet",
            pruner="nothing",
            seed=seed,
            settings=SETTINGS,
            control="nothing",
        )
        for seed in range(first, first + n)
    ]


class Nothing(tune.Trainable):
    """The trainable."""

    def setup(self, config: dict[str, object]) -> None:
        """Nothing."""

    def step(self) -> dict[str, object]:
        """Nothing."""
        return {"done": True}

    def reset_config(self, new_config: dict[str, object]) -> bool:
        """Let the actor be used again."""
        return True


def room_in(folder: Path) -> SweepRoom:
    """Where the jobs run."""
    return SweepRoom(
        store=StageStore(folder / "store"),
        stop_file=folder / "stop",
        sources=SOURCES,
        resources=ResourceSettings(exclusive_search=False),
    )


def ours_s(jobs: list[Job], room: SweepRoom, executor: RayExecutor) -> float:
    """Seconds per job of the real loop."""
    started = time.perf_counter()
    progress = _run(jobs, room, executor)
    seconds = time.perf_counter() - started
    assert len(progress.executed) == len(jobs), progress.failures[:1]
    return seconds / len(jobs)


def tune_s(n: int, folder: Path, *, reuses_actors: bool) -> float:
    """Seconds per trial of a Tune grid."""
    tuner = tune.Tuner(
        tune.with_resources(Nothing, {"cpu": 1}),
        param_space={"trial": tune.grid_search(list(range(n)))},
        tune_config=tune.TuneConfig(reuse_actors=reuses_actors),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    )
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):  # a table per trial, whatever is asked for
        results = tuner.fit()
    seconds = time.perf_counter() - started
    assert len(results) == n
    assert not results.errors
    return seconds / n


def _run(
    jobs: list[Job],
    room: SweepRoom,
    executor: RayExecutor | InlineExecutor,
    ends: list[JobEnd] | None = None,
) -> SweepProgress:
    return run_sweep(
        jobs, room, executor, view=View(), on_job_end=(ends if ends is not None else []).append
    )


def measure_overhead(
    folder: Path, executor: RayExecutor, *, n_rounds: int, n_jobs: int, n_trials: int
) -> dict[str, list[float]]:
    """Seconds per job and per trial, blocks in turns."""
    found: dict[str, list[float]] = {"ours": [], "tune": [], "tune_reuse": []}
    room = room_in(folder / "blocks")
    _run(jobs_of_nothing(10**6, 20), room, executor)  # workers start
    for index in range(n_rounds):
        found["ours"].append(ours_s(jobs_of_nothing(index * n_jobs, n_jobs), room, executor))
        found["tune"].append(tune_s(n_trials, folder / f"tune{index}", reuses_actors=False))
        found["tune_reuse"].append(tune_s(n_trials, folder / f"reuse{index}", reuses_actors=True))
    return found


def measure_memory(
    folder: Path, executor: RayExecutor, n_jobs: int
) -> tuple[dict[int, float], float]:
    """Driver's MiB after so many jobs, and seconds per job of the whole."""
    looks = sorted({max(1, n_jobs // 10), n_jobs // 2, n_jobs})
    found: dict[int, float] = {}
    ended = 0

    def note(end: JobEnd) -> None:
        nonlocal ended
        ended += 1
        if ended in looks:
            found[ended] = round(psutil.Process().memory_info().rss / 2**20, 1)

    started = time.perf_counter()
    run_sweep(jobs_of_nothing(0, n_jobs), room_in(folder), executor, view=View(), on_job_end=note)
    return found, (time.perf_counter() - started) / n_jobs


def measure_resume(folder: Path, n_jobs: int) -> float:
    """Seconds until plan and loop have seen that nothing is left."""
    jobs, room = jobs_of_nothing(0, n_jobs), room_in(folder)
    started = time.perf_counter()
    assert not make_plan(jobs, SOURCES, room.store).missing
    progress = _run(jobs, room, InlineExecutor())
    assert len(progress.ended) == n_jobs
    assert not progress.executed
    return time.perf_counter() - started


def measure_mirror(folder: Path, n_jobs: int) -> float:
    """Seconds per job that the MLflow writer needs for finished jobs, on a SQLite file."""
    room, ends = room_in(folder / "blocks"), []
    _run(jobs_of_nothing(0, n_jobs), room, InlineExecutor(), ends)
    tracker = Tracker(f"sqlite:///{folder / 'mlflow.db'}", "nothing", "nothing", room.store)
    with BackgroundTracker(tracker, folder / "lease") as tracking:
        tracking.put(_finished(ends[0]))
        while not tracking.n_written and not tracking.trouble:  # the database is made
            time.sleep(0.1)
        started = time.perf_counter()
        for end in ends[1:]:
            tracking.put(_finished(end))
        tracking.close("FINISHED")
        seconds = time.perf_counter() - started
    assert not tracking.trouble, tracking.trouble
    return seconds / (n_jobs - 1)


def _finished(end: JobEnd) -> FinishedJob:
    return FinishedJob(job=end.state.job, tasks=end.state.tasks)


def large_sweep(folder: Path, n_seeds: int) -> Path:
    """Write sweeps/full_grid.yaml with so many seeds."""
    text = (ROOT / "sweeps" / "full_grid.yaml").read_text(encoding="utf-8")
    assert "seed: [0, 1, 2, 3, 4]" in text
    path = folder / f"seeds{n_seeds}.yaml"
    text = text.replace("seed: [0, 1, 2, 3, 4]", f"seed: {list(range(n_seeds))}")
    path.write_text(text, encoding="utf-8")
    return path


def measure_plan(folder: Path) -> dict[str, float]:
    """Seconds to open and to plan ten thousand jobs."""
    path = large_sweep(folder, 23)
    started = time.perf_counter()
    session = open_sweep(path, {}, folder / "runs", needs_data=False)
    opened = time.perf_counter()
    plan = session.plan()
    return {
        "jobs": len(plan.states),
        "open_s": round(opened - started, 2),
        "plan_s": round(time.perf_counter() - opened, 2),
    }


def measure_simulation(folder: Path, n_seeds: int) -> dict[str, float]:
    """Makespan over lower bound of sweeps/full_grid.yaml on 250 machines of 4 GPUs.

    The recorded seconds are a CPU's; here they stand for those of the simulated GPUs, so that
    arms, networks and data sets differ as they were measured to.
    """
    session = open_sweep(large_sweep(folder, n_seeds), {}, folder / "runs", needs_data=False)
    recorded = itertools.chain.from_iterable(
        observations_of_tables(RECORDS / name) for name in ("acdc_claims_withdrawn", "backbones")
    )
    as_on_gpus = (
        replace(one, of=replace(one.of, device="", on_gpu=one.of.kind != "prepare"))
        for one in recorded
    )
    forecast = Forecast(
        session.plan(),
        KnownRecords(session.store),
        CostModel(as_on_gpus),
        resources=session.spec.resources,
        nodes=CLUSTER,
    )
    graph = forecast.graph()
    bound = graph.lower_bound_s(CLUSTER)
    started = time.perf_counter()
    longest_first = simulate(graph, CLUSTER, priority=graph.priorities().__getitem__)
    simulated = time.perf_counter() - started
    return {
        "jobs": len(forecast.stages_of),
        "stages": len(graph.stages),
        "work_over_longest_chain": round(
            graph.work_s() / N_GPUS / max(graph.priorities().values()), 2
        ),
        "as_they_come": round(simulate(graph, CLUSTER) / bound, 3),
        "longest_first": round(longest_first / bound, 3),
        "simulation_s": round(simulated, 2),
    }


def main() -> None:
    """Print the parts as they end, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute: few jobs and trials")
    parser.add_argument("--jobs", type=int, default=10_000)
    options = parser.parse_args()
    n_jobs = 300 if options.quick else options.jobs
    n_rounds, n_block, n_trials = (2, 100, 6) if options.quick else (3, 200, 8)
    ARMS["nothing"] = JobOfNothing()
    STAGES["pretrain"] = NOTHING
    folder = Path(tempfile.mkdtemp(prefix="executor-"))
    try:
        planned = measure_plan(folder)
        print(f"plan: {json.dumps(planned)}", flush=True)
        played = [measure_simulation(folder, n_seeds) for n_seeds in (5, 23)]
        for line in played:
            print(f"1,000 GPUs: {json.dumps(line)}", flush=True)
        with RayExecutor(n_cpus=N_CPUS, compute=compute) as executor:
            overhead = measure_overhead(
                folder, executor, n_rounds=n_rounds, n_jobs=n_block, n_trials=n_trials
            )
            middle = {name: round(median(values), 4) for name, values in overhead.items()}
            print(f"seconds per job or trial: {json.dumps(middle)}", flush=True)
            memory, per_job = measure_memory(folder / "many", executor, n_jobs)
            print(
                f"driver MiB after jobs: {json.dumps(memory)}, {per_job:.4f} s a job", flush=True
            )
        resumed = measure_resume(folder / "many", n_jobs)
        mirror = measure_mirror(folder, 10 if options.quick else 50)
        print(f"resume {resumed:.2f} s, MLflow {mirror:.3f} s a job", flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    pairs = zip(overhead["tune"], overhead["ours"], strict=True)
    print_result(
        "executor",
        median(theirs / ours for theirs, ours in pairs),
        n=n_rounds,
        device=torch.device("cpu"),
        seconds=middle,
        plan=planned,
        jobs=n_jobs,
        seconds_a_job=round(per_job, 4),
        driver_mib=memory,
        peak_mib=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, 1),
        resume_s=round(resumed, 2),
        mlflow_s_a_job=round(mirror, 3),
        simulated=played,
    )


if __name__ == "__main__":
    main()

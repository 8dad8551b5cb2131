"""Kill whatever can die, at random, while a sweep of small real stages runs; then compare.

    python -m benchmarks.chaos [--kills N] [--seed S] [--every SECONDS] [--quick]

Victims are a worker in the middle of a stage, a node (its raylet), the driver, the MLflow server,
its database (PostgreSQL where it is installed, otherwise a SQLite file that nobody kills), and the
disk of the store (filled for a moment; a RAM disk, so this takes root). Each death is a SIGKILL.
The same command goes on until the sweep is whole; then the next round starts with an empty store,
until the kills are used up. Every round is compared with an undisturbed sweep.

The last line is JSON: ``lost`` (jobs missing or failed), ``repeated`` (stages that came to their
end more than once; an execution killed before its manifest had not), ``orphans`` (MLflow runs too
many or not finished), ``differing`` (tables that are not equal, wall-clock columns aside). All of
them must be 0.
"""

import argparse
import contextlib
import functools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
from mlflow.tracking import MlflowClient
from pandas.testing import assert_frame_equal

from benchmarks.servers import MlflowServer, PostgresServer, Server
from iac_core.data.phantom import PhantomSettings, write_phantom
from results.schema import wall_clock_columns
from results.store import read_tables
from workers.run_stage import COMPLETIONS

ROOT = Path(__file__).parents[1]
COMPARED = ("jobs", "patients", "trajectories", "events")
DISK_MIB = 200
SWEEP = """
metadata:
  sweep:
    name: chaos
    datasets: {phantom: {layout: acdc, path: DATA}}
    store: STORE
    tracking: {uri: "URI", experiment: EXPERIMENT}
    grid:
      dataset: [phantom]
      backbone: [unet]
      pruner: [no_cell, random, none, js_stability]
      seed: [0, 1]
    stages:
      prepare: {size: 32, spacing_mm: 5.0}
      split: {n_folds: 4, validation_share: 0.2}
      pretrain: {epochs: 20, batch_size: 4, steps_per_epoch: 4, checkpoint_every_epochs: 2}
      cell: {n_nodes: 2}
      search: {epochs: 30, batch_size: 4, steps_per_epoch: 2, alpha_warmup_epochs: 1,
               checkpoint_every_epochs: 2}
      retrain: {epochs: 10, batch_size: 4, steps_per_epoch: 4, checkpoint_every_epochs: 2}
    backbones: {unet: {widths: [8, 16]}}
    pruners:
      js_stability: {type: js_absolute, window_epochs: 1, patience_epochs: 1, threshold: 0.5,
                     living_edges_only: false}
    resources: {threads: 1, cpus: 2, exclusive_search: false, lease_s: 10}
"""


class Round:
    """One sweep from an empty store to its end."""

    def __init__(self, folder: Path, data: Path, server: MlflowServer, name: str) -> None:
        self.folder, self.server, self.experiment = folder / name, server, f"chaos-{name}"
        self.store = self.folder / "store"
        self.store.mkdir(parents=True)
        self.has_own_disk = (
            os.getuid() == 0
            and not subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", self.store],
                check=False,
            ).returncode
        )
        self.completions = self.folder / "completions"
        self.sweep = self.folder / "sweep.yaml"
        text = SWEEP.replace("DATA", str(data)).replace("STORE", str(self.store))
        text = text.replace("URI", server.uri).replace("EXPERIMENT", self.experiment)
        self.sweep.write_text(text, encoding="utf-8")

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        """Start the driver."""
        kept = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        log = (self.folder / "driver.log").open("ab")
        with log:
            return subprocess.Popen(
                self.command("run", *words),
                env=kept | {
                    "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
                    "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
                    COMPLETIONS: str(self.completions),
                },
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def command(self, *words: str) -> list[str]:
        """Words of the command line on this round's sweep."""
        first, *rest = words
        runs = ["--runs", str(self.folder / "runs")]
        return [sys.executable, "-m", "orchestrator", first, str(self.sweep), *runs, *rest]

    def tables(self) -> dict[str, object]:
        """Return the tables without wall-clock columns."""
        found = read_tables(self.folder / "runs" / "chaos" / "tables")
        return {name: found[name].drop(columns=wall_clock_columns(name)) for name in COMPARED}

    def close(self) -> None:
        """Let go of the disk."""
        if self.has_own_disk:
            subprocess.run(["umount", "-l", self.store], check=False)

    def compare(self, calm: "Round") -> Counter[str]:
        """Count what is not as in an undisturbed sweep."""
        found: Counter[str] = Counter()
        ours, theirs = self.tables(), calm.tables()
        jobs = ours["jobs"]
        done = set(jobs.loc[jobs["status"] == "done", "job_id"])  # type: ignore[attr-defined,index]
        found["lost"] = len(set(theirs["jobs"]["job_id"]) - done)  # type: ignore[index]
        lines = Counter(self.completions.read_text(encoding="utf-8").splitlines())
        found["repeated"] = sum(number - 1 for number in lines.values())
        found["orphans"] = self._orphans(len(theirs["jobs"]))  # type: ignore[arg-type]
        for name in COMPARED:
            try:
                assert_frame_equal(ours[name], theirs[name], obj=name)  # type: ignore[arg-type]
            except AssertionError as error:
                _say(f"{name} differs: {error}")
                found["differing"] += 1
        return found

    def _orphans(self, n_jobs: int) -> int:
        client = MlflowClient(tracking_uri=self.server.uri)
        experiment = client.get_experiment_by_name(self.experiment)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], max_results=1000)
        unfinished = sum(run.info.status != "FINISHED" for run in runs)
        return unfinished + max(0, len(runs) - n_jobs - 1)


class Killer:
    """Chooses victims and kills them."""

    def __init__(self, seed: int, database: PostgresServer | None) -> None:
        self.random, self.by_kind = random.Random(seed), Counter[str]()
        self._database = database

    def strike(self, round_: Round, driver: "subprocess.Popen[bytes]") -> None:
        """Kill one victim; one that is not there yet is waited for as long as the driver lives."""
        kinds: dict[str, Callable[[], bool]] = {
            "driver": lambda: _kill([psutil.Process(driver.pid)]),
            "node": lambda: _kill(_raylets(driver.pid)),
            "worker": lambda: _kill(self._shuffled(_stage_processes(round_.store))),
            "mlflow": lambda: self._restart(round_.server),
        }
        if self._database is not None:
            kinds["postgres"] = functools.partial(self._restart, self._database)
        if round_.has_own_disk:
            kinds["disk"] = lambda: self._fill(round_.store)
        kind = self.random.choice(sorted(kinds))
        while driver.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                if kinds[kind]():
                    self.by_kind[kind] += 1
                    _say(f"kill {sum(self.by_kind.values())}: {kind}")
                    return
            time.sleep(0.1)

    def _shuffled(self, processes: Iterator[psutil.Process]) -> list[psutil.Process]:
        found = list(processes)
        self.random.shuffle(found)
        return found

    def _restart(self, server: Server) -> bool:
        server.kill()
        time.sleep(self.random.uniform(0, 4))
        server.start()
        return True

    def _fill(self, disk: Path) -> bool:
        ballast = disk / "ballast"
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(2**20))
        time.sleep(self.random.uniform(0.5, 3))
        ballast.unlink(missing_ok=True)
        return True


def main() -> None:
    """Run rounds until the kills are used up; print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=4.0, help="mean seconds between kills")
    parser.add_argument("--quick", action="store_true", help="three kills")
    options = parser.parse_args()
    n_kills = 3 if options.quick else options.kills
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    rounds: list[Round] = []
    with ExitStack() as stack:
        stack.callback(lambda: [round_.close() for round_ in rounds])
        database = _database(stack)
        uri = None if database is None else database.create("mlflow")
        server = stack.enter_context(MlflowServer(folder, uri))
        write_phantom(folder / "data", PhantomSettings(n_patients=8))
        calm = Round(folder, folder / "data", server, "calm")
        rounds.append(calm)
        _until_whole(calm, lambda driver: None)
        killer, found = Killer(options.seed, database), Counter[str]()
        while sum(killer.by_kind.values()) < n_kills:
            round_ = Round(folder, folder / "data", server, f"round{len(rounds)}")
            rounds.append(round_)
            _until_whole(round_, _killing(killer, round_, n_kills, options.every))
            counted = round_.compare(calm)
            _say(f"round {len(rounds) - 1}: {dict(counted)}")
            found += counted
    result = {
        "name": "chaos", "kills": sum(killer.by_kind.values()), "by_kind": dict(killer.by_kind),
        "rounds": len(rounds) - 1,
        **{name: found[name] for name in ("lost", "repeated", "orphans", "differing")},
    }  # fmt: skip
    if any(result[name] for name in ("lost", "repeated", "orphans", "differing")):
        _say(f"kept for a look: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result))


def _database(stack: ExitStack) -> PostgresServer | None:
    try:
        return stack.enter_context(PostgresServer())
    except FileNotFoundError as error:
        _say(f"{error}: MLflow's database is a SQLite file, which is no victim")
        return None


def _killing(
    killer: Killer, round_: Round, n_kills: int, mean_s: float
) -> Callable[["subprocess.Popen[bytes]"], None]:
    """What strikes at random moments while a driver runs."""

    def watch(driver: "subprocess.Popen[bytes]") -> None:
        while driver.poll() is None and sum(killer.by_kind.values()) < n_kills:
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(timeout=killer.random.expovariate(1 / mean_s))
            if driver.poll() is None:
                killer.strike(round_, driver)

    return watch


def _until_whole(round_: Round, watch: Callable[["subprocess.Popen[bytes]"], None]) -> None:
    """Give the same command until it ends well, then send what MLflow lacks."""
    for _ in range(1000):
        driver = round_.start()
        watch(driver)
        if driver.wait() == 0 and (round_.folder / "runs/chaos/report/report.md").exists():
            break
    else:
        raise RuntimeError(f"the sweep does not come to its end: {round_.folder}/driver.log")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words in (["sync"], ["report"]):
        subprocess.run(
            round_.command(*words), env=environment, check=True, stdout=subprocess.DEVNULL
        )


def _stage_processes(store: Path) -> Iterator[psutil.Process]:
    """Processes that compute a stage now."""
    for note in (store / "attempts").glob("*/*/attempt.json"):
        with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
            if not (note.parent / "outcome.json").exists():
                process = psutil.Process(json.loads(note.read_text(encoding="utf-8"))["pid"])
                if process.name().startswith("ray::"):  # its number may have been given again
                    yield process


def _raylets(driver: int) -> list[psutil.Process]:
    children = psutil.Process(driver).children(recursive=True)
    return [process for process in children if process.name() == "raylet"]


def _kill(processes: Sequence[psutil.Process]) -> bool:
    """Kill the first; False if there is none."""
    for process in processes[:1]:
        process.kill()
    return bool(processes)


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()

"""Replays of recorded full searches: how many settings a minute, and how right they are.

    python -m benchmarks.replay [--quick] [--records FOLDER] [--live --data FOLDER]

Random settings of `js_absolute` are replayed on the recorded 200-epoch searches. ``per_minute``
counts settings, each on one search; ``per_minute_all`` counts settings that were tried on every
search. The searches that were really run with the default settings tell how far a replay is off
after its first removal, and that it is right until then.

``--live`` also runs four searches of 200 epochs with trained backbones on real volumes (about
twenty minutes) while twenty rules of random settings look on, each until it would have removed
something, and compares that with their replay on the trajectory that was recorded meanwhile.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.interleaved import device_name
from benchmarks.searches import backbone_settings, make_search, prepared
from iac_core.cells.genotype import Genotype
from iac_core.config import SearchPace, SearchSettings
from iac_core.pruners import build_pruner
from iac_core.pruners.js_absolute import JsAbsolute, JsAbsoluteSettings
from iac_core.pruners.replay import ReplayedSearch, Trajectory, agreement, replay
from iac_core.training.search import Search
from iac_core.types import Decision, Reason, SearchState
from results.store import read_table
from results.trajectory_arrays import arrays_of

RECORDS = Path(__file__).parent / "records" / "acdc_claims_withdrawn"
N_RULES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RealSearch:
    """A search that was run with the default rule, beside the full one of the same seed."""

    label: str
    full: Trajectory
    full_genotype: Genotype
    genotype: Genotype
    n_epochs: int
    epoch_equivalents: float
    first: frozenset[tuple[int, int, int, str]]


def main() -> None:
    """Print what was found as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--settings", type=int, default=200, help="random settings to time")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--data", type=Path, help="folder in the ACDC layout, for --live")
    options = parser.parse_args()
    torch.set_num_threads(1)
    searches = list(_real_searches(options.records))
    rules = random_rules(20 if options.quick else options.settings, seed=0)
    result = {"name": "replay", **_timed([one.full for one in searches], rules)}
    result |= _against_real_searches(searches)
    if options.live:
        result |= _against_live_searches(options.data, quick=options.quick)
    print(json.dumps(result))


def random_rules(n: int, seed: int) -> list[JsAbsoluteSettings]:
    """Draw settings widely around the defaults."""
    generator = np.random.default_rng(seed)
    return [
        JsAbsoluteSettings(
            window_epochs=int(generator.integers(1, 11)),
            threshold=float(10 ** generator.uniform(-3.5, -1)),
            patience_epochs=int(generator.integers(1, 7)),
            rank_guard=bool(generator.integers(2)),
            first_check_epoch=[None, 20, 30][int(generator.integers(3))],
            weak_share=float(generator.uniform(0.25, 1.0)),
            max_share=float(generator.uniform(0.2, 0.8)),
            stop_operations=int(generator.integers(1, 5)),
            stop_patience_epochs=int(generator.integers(1, 16)),
            prune_edges=bool(generator.integers(2)),
            living_edges_only=False,  # the recorded searches are from before liveness was known
        )
        for _ in range(n)
    ]


def first_removal(found: ReplayedSearch) -> frozenset[tuple[int, int, int, str]]:
    """Epoch, level, edge and operations of what goes first."""
    return frozenset(
        _event(epoch, reason)
        for epoch, reason in found.events
        if epoch == found.first_removal_epoch and reason.operations
    )


def _event(epoch: int, reason: Reason) -> tuple[int, int, int, str]:
    return epoch, reason.level, reason.edge, ",".join(reason.operations)


def _timed(
    trajectories: Sequence[Trajectory], rules: Sequence[JsAbsoluteSettings]
) -> dict[str, Any]:
    for trajectory in trajectories:
        replay(trajectory, build_pruner(rules[0]))  # compiled, and in the cache
    seconds = []
    for rule in rules:
        started = time.perf_counter()
        for trajectory in trajectories:
            replay(trajectory, build_pruner(rule))
        seconds.append(time.perf_counter() - started)
    per_rule = median(seconds)
    return {
        "per_minute": round(60 * len(trajectories) / per_rule),
        "per_minute_all": round(60 / per_rule),
        "n_settings": len(rules),
        "n_searches": len(trajectories),
        "epochs": sorted({len(trajectory.alpha) for trajectory in trajectories}),
        "device": device_name(torch.device("cpu")),
        "threads": torch.get_num_threads(),
    }


def _real_searches(folder: Path) -> Iterator[RealSearch]:
    """Searches of the default rule whose full search is recorded too."""
    jobs, trajectories, events = (
        read_table(folder / f"{name}.parquet", name) for name in ("jobs", "trajectories", "events")
    )
    for _, full in jobs[jobs["pruner"] == "none"].iterrows():
        like = (jobs["backbone"] == full["backbone"]) & (jobs["seed"] == full["seed"])
        for _, real in jobs[like & (jobs["pruner"] == "js_stability")].iterrows():
            recorded = arrays_of(trajectories, real["job_id"])
            of_real = events[(events["job_id"] == real["job_id"]) & (events["operations"] != "")]
            first = of_real[of_real["epoch"] == of_real["epoch"].min()]
            yield RealSearch(
                label=f"{full['backbone']} seed {full['seed']}",
                full=_trajectory(full, trajectories),
                full_genotype=Genotype.from_json(full["genotype"]),
                genotype=Genotype.from_json(real["genotype"]),
                n_epochs=int(real["search_epochs"]),
                epoch_equivalents=float(recorded.active.mean(axis=(1, 2, 3)).sum()),
                first=frozenset(
                    (int(row.epoch), int(row.level), int(row.edge), str(row.operations))
                    for row in first.itertuples()
                ),
            )


def _trajectory(job: "pd.Series[Any]", trajectories: pd.DataFrame) -> Trajectory:
    found = arrays_of(trajectories, job["job_id"])
    return Trajectory(
        alpha=found.alpha,
        beta=found.beta,
        importance=found.importance,
        operations=found.operations,
        edges=found.edges,
        search=SearchSettings(
            epochs=int(job["search_epochs_full"]),
            batch_size=int(job["config_search_batch_size"]),
            alpha_warmup_epochs=int(job["config_search_alpha_warmup_epochs"]),
        ),
        n_weight_steps=found.n_weight_steps,
        n_architecture_steps=found.n_architecture_steps,
        seed=int(job["seed"]),
    )


def _against_real_searches(searches: Sequence[RealSearch]) -> dict[str, Any]:
    """How replays of the default rule compare with the searches that were run."""
    replays = [
        replay(one.full, build_pruner(JsAbsoluteSettings(living_edges_only=False)))
        for one in searches
    ]
    pairs = list(zip(replays, searches, strict=True))
    equivalents = [found.epoch_equivalents / real.epoch_equivalents for found, real in pairs]
    return {
        "real_searches": len(searches),
        "first_removals_right": sum(first_removal(found) == real.first for found, real in pairs),
        "epochs_off": [found.n_epochs - real.n_epochs for found, real in pairs],
        "epoch_equivalents_ratio": round(median(equivalents), 3),
        "genotype_agreement": round(mean(agreement(f.genotype, r.genotype) for f, r in pairs), 3),
        "genotypes_equal": sum(found.genotype == real.genotype for found, real in pairs),
        "agreement_with_full": {
            "replayed": round(mean(agreement(f.genotype, r.full_genotype) for f, r in pairs), 3),
            "real": round(mean(agreement(r.genotype, r.full_genotype) for _, r in pairs), 3),
        },
    }


@dataclass(slots=True)
class LookingOn:
    """An operation pruner that keeps everything while others say when they would first remove.

    Attributes:
        rules: The others.
        first: Rule → what it would have removed first, once it would.
    """

    rules: Sequence[JsAbsolute]
    first: dict[int, frozenset[tuple[int, int, int, str]]] = field(default_factory=dict)
    pace: SearchPace = field(default_factory=SearchPace)
    needs_evidence: bool = False

    def decide(self, state: SearchState) -> Decision:
        """Ask every rule that has not removed anything yet."""
        for number, rule in enumerate(self.rules):
            if number not in self.first:
                decision = rule.decide(state)
                if (decision.keep != state.active).any():
                    self.first[number] = frozenset(
                        _event(state.epoch, reason)
                        for reason in decision.reasons
                        if reason.operations
                    )
        return Decision(keep=state.active)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: these searches are not resumed."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up nothing."""


def _against_live_searches(folder: Path | None, *, quick: bool) -> dict[str, Any]:
    """Run searches while rules look on; replay the rules on what was recorded."""
    device = torch.device("cpu")
    n_equal = n_compared = n_fired = 0
    seeds = (0,) if quick else (0, 1)
    with tempfile.TemporaryDirectory() as into:
        data = prepared(folder, 48, Path(into))
        for backbone in ("unet", "resnet18_unet"):
            for seed in seeds:
                rules = random_rules(N_RULES, seed=1 + seed)
                panel = LookingOn([JsAbsolute(rule) for rule in rules])
                search = make_search(
                    data,
                    backbone_settings(backbone),
                    device,
                    pretrain_epochs=2 if quick else 15,
                    seed=seed,
                )
                search.pruner = panel
                epochs = 40 if quick else 200
                search.settings = replace(search.settings, epochs=epochs)
                while not search.is_over:
                    search.run_epoch()
                recorded = _recorded(search)
                for number, rule in enumerate(rules):
                    found = replay(recorded, build_pruner(rule))
                    n_equal += first_removal(found) == panel.first.get(number, frozenset())
                    n_compared += 1
                    n_fired += number in panel.first
    return {
        "live_searches": 2 * len(seeds),
        "live_rules": n_compared,
        "live_rules_that_removed": n_fired,
        "live_first_removals_right": n_equal,
    }


def _recorded(search: Search) -> Trajectory:
    record = search.record()
    return Trajectory(
        alpha=record.alpha,
        beta=record.beta,
        importance=record.importance,
        operations=record.operations,
        edges=record.edges,
        search=search.settings,
        n_weight_steps=np.array([epoch["n_weight_steps"] for epoch in record.curve]),
        n_architecture_steps=np.array([epoch["n_architecture_steps"] for epoch in record.curve]),
        seed=search.seed,
    )


if __name__ == "__main__":
    main()

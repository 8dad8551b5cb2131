"""How often verdicts are wrong: ``python -m benchmarks.verdicts [--quick]``.

Draws sweeps in which no arm differs from its reference, with the variances of recorded sweeps, and
counts how often Student's interval over searches covers the truth and how often a claim gets a
verdict: one claim alone, and any of a family of five arms after Holm's correction. Intervals that
take patients for independent stand beside it. In the heavy-tailed law one search in ten, of either
arm, loses ten points; in the lopsided one only the arm's searches do, so the truth is -1 point.
"""

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from results.statistics.intervals import Interval, student
from results.statistics.pairs import mean_per_patient, paired, scored
from results.statistics.verdicts import LEVEL, holm
from results.store import read_table

RECORDS = Path(__file__).parent / "records" / "acdc_claims_withdrawn"
N_SEARCHES = (5, 10, 20)
N_PATIENTS = (8, 26, 52)
N_ARMS = 5
CRASH = 0.1
"""Dice that a search loses in the heavy-tailed law …"""
CRASH_SHARE = 0.1
"""… and the share of searches that do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """How gaps scatter.

    Attributes:
        name: As it is printed.
        between: Deviation of a search's effect on its own arm.
        within: Deviation of a patient's gap within a search.
        arm_crashes: Whether searches of the arm may lose ten points.
        reference_crashes: Whether those of the reference may.
    """

    name: str
    between: float
    within: float
    arm_crashes: bool = False
    reference_crashes: bool = False

    @property
    def truth(self) -> float:
        """Mean gap."""
        return CRASH * CRASH_SHARE * (self.reference_crashes - self.arm_crashes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What came out of many sweeps.

    Attributes:
        coverage: Share of 95 % intervals over searches that hold the truth.
        single: Share of claims alone that get a verdict though nothing differs.
        family: Share of families in which any does, after Holm.
        by_patients: Share of 95 % intervals over patients that leave out the truth.
    """

    coverage: float
    single: float
    family: float
    by_patients: float


def recorded_deviations(folder: Path) -> tuple[list[float], float]:
    """Return between-search deviations of every pair of arms with cells, and the within one.

    Gaps of patients are split by a one-way analysis of variance over searches; a negative
    component counts as zero.

    Args:
        folder: Tables of a sweep.
    """
    jobs = read_table(folder / "jobs.parquet", "jobs")
    patients = read_table(folder / "patients.parquet", "patients")
    between, within = [], []
    with_cells = jobs[jobs["genotype"].fillna("") != ""]
    for _, part in with_cells.groupby("backbone"):
        values = scored(part, patients, "test")
        arms = sorted(part["pruner"].unique())
        for arm, reference in product(arms, ("none", "random")):
            if arm == reference:
                continue
            per_patient = mean_per_patient(paired(values, arm, reference))
            groups = [own.to_numpy() for _, own in per_patient.groupby(level=0)]
            s2 = float(np.mean([own.var(ddof=1) for own in groups]))
            of_means = float(np.var([own.mean() for own in groups], ddof=1))
            share = float(np.mean([1 / len(own) for own in groups]))
            between.append(max(0.0, of_means - s2 * share) ** 0.5)
            within.append(s2)
    return between, float(np.mean(within)) ** 0.5


def draw(
    law: Law, n_searches: int, n_patients: int, generator: np.random.Generator
) -> Float[ndarray, "arms searches patients"]:
    """Return gaps of every patient of a sweep whose arms share one reference."""

    def effect(shape: tuple[int, ...], *, crashes: bool) -> ndarray:
        # The deviation between searches is that of a difference, so of two arms' effects.
        found = law.between / 2**0.5 * generator.standard_normal(shape)
        return found - CRASH * crashes * (generator.random(shape) < CRASH_SHARE)

    arms = effect((N_ARMS, n_searches), crashes=law.arm_crashes)
    gaps = arms - effect((n_searches,), crashes=law.reference_crashes)
    shape = (n_searches, n_patients)
    noise = generator.standard_normal((N_ARMS, *shape)) - generator.standard_normal(shape)
    return np.asarray(gaps[..., None] + law.within / 2**0.5 * noise)


def rates_of(law: Law, n_searches: int, n_patients: int, n_sweeps: int) -> Rates:
    """Return how often sweeps of one size go wrong."""
    generator = np.random.default_rng([n_searches, n_patients])
    covered, single, family, patients = [], [], [], []
    for _ in range(n_sweeps):
        gaps = draw(law, n_searches, n_patients, generator)
        found = [student(arm.mean(axis=-1)) for arm in gaps]
        covered += [one.low <= law.truth <= one.high for one in found]
        p_values = [one.p for one in found]
        single += [p < LEVEL for p in p_values]
        family.append(min(holm(p_values)) < LEVEL)
        patients.append(not _holds(student(gaps[0].ravel()), law.truth))
    return Rates(
        coverage=float(np.mean(covered)),
        single=float(np.mean(single)),
        family=float(np.mean(family)),
        by_patients=float(np.mean(patients)),
    )


def _holds(interval: Interval, value: float) -> bool:
    return interval.low <= value <= interval.high


def main() -> None:
    """Print a table, and a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute at most")
    n_sweeps = 100 if parser.parse_args().quick else 4000
    between, within = recorded_deviations(RECORDS)
    median, rms = float(np.median(between)), float(np.sqrt(np.mean(np.square(between))))
    print(
        f"recorded ({RECORDS.name}): between searches {100 * median:.2f} points (median of "
        f"{len(between)} pairs), {100 * rms:.2f} (rms); within {100 * within:.2f}"
    )
    laws = (
        Law(name="median", between=median, within=within),
        Law(name="rms", between=rms, within=within),
        Law(
            name="heavy",
            between=median,
            within=within,
            arm_crashes=True,
            reference_crashes=True,
        ),
        Law(name="lopsided", between=median, within=within, arm_crashes=True),
    )
    print(
        f"{'law':9} {'searches':>8} {'patients':>8}   {'coverage':>8} {'one claim':>9} "
        f"{'family':>7}   {'missed by patients':>18}"
    )
    rows = []
    for law, n_searches, n_patients in product(laws, N_SEARCHES, N_PATIENTS):
        found = rates_of(law, n_searches, n_patients, n_sweeps)
        is_null = law.truth == 0
        print(
            f"{law.name:9} {n_searches:8} {n_patients:8}   {_percent(found.coverage):>8} "
            f"{_percent(found.single) if is_null else '—':>9} "
            f"{_percent(found.family) if is_null else '—':>7}   "
            f"{_percent(found.by_patients):>18}"
        )
        rows.append((law, found))
    null = [found for law, found in rows if law.truth == 0]
    print(
        json.dumps(
            {
                "name": "verdicts",
                "n": n_sweeps,
                "unit": "shares of intervals, of claims and of families of five",
                "coverage": _span(found.coverage for found in null),
                "false_single": _span(found.single for found in null),
                "false_family": _span(found.family for found in null),
                "coverage_lopsided": _span(
                    found.coverage for law, found in rows if law.truth != 0
                ),
            }
        )
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _span(values: Iterable[float]) -> list[float]:
    listed = list(values)
    return [round(min(listed), 4), round(max(listed), 4)]


if __name__ == "__main__":
    main()

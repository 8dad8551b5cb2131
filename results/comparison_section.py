"""The report's tables of comparisons: claims, other differences, other methods, Friedman."""

import pandas as pd

from results.arms import REFERENCES, ArmTypes
from results.comparison import (
    comparison_table,
    friedman_table,
    sensitivity_table,
)
from results.declared import Declaration
from results.liveness import ArmNames
from results.statistics.intervals import Interval
from results.statistics.verdicts import FEW_SEARCHES, MARGIN, MIN_PATIENTS, MIN_SEARCHES
from results.tables.cells import (
    COUNT,
    DICE_POINTS,
    P_VALUE,
    Cell,
    Number,
    NumberFormat,
    interval,
    number,
)
from results.tables.table import Column, Table, plain

_UNDEFINED = "undefined for these values"
_DIFFERENCE = plain("difference", "95 % interval", form=DICE_POINTS)
_UNITS = plain("searches", "patients", form=COUNT)
_KINDS = {
    "different": "differs",
    "better": "is better",
    "not_inferior": "is not inferior",
    "equivalent": "is equivalent",
}


def comparison_sections(
    jobs: pd.DataFrame,
    patients: pd.DataFrame,
    declared: Declaration,
    claims: pd.DataFrame,
    *,
    title: str,
    subset: str,
) -> list[Table]:
    """Return the tables of one group of the report.

    Args:
        jobs: Its finished jobs.
        patients: Of all jobs.
        declared: The sweep's family of claims.
        claims: The group's rows of it, as `results.comparison.with_verdicts` returns them.
        title: What the group stands for; empty if it is the only one.
        subset: ``validation`` or ``test``.
    """
    names = ArmNames(jobs)
    named = f" ({title})" if title else ""
    of_claims = [(claim.arm, claim.reference) for claim in declared.claims]
    others = [pair for pair in _usual_pairs(jobs) if pair not in of_claims]
    differences = comparison_table(jobs, patients, others, subset)
    first = [pair for pair in others if pair[1] == others[0][1]]
    checked = sensitivity_table(jobs, patients, of_claims or first, subset)
    return [
        _claims_section(claims, declared, names, named, subset),
        _differences_section(differences, names, named, subset),
        _sensitivity_section(checked, names, named),
        _friedman_section(friedman_table(jobs, patients, subset), names, named),
    ]


def _usual_pairs(jobs: pd.DataFrame) -> list[tuple[str, str]]:
    """Every arm against every usual reference, none of them twice."""
    types = ArmTypes(jobs)
    references = [arm for each in REFERENCES if (arm := types.the_one(each)) is not None]
    return [
        (arm, reference)
        for place, reference in enumerate(references)
        for arm in sorted(jobs["pruner"].unique())
        if arm not in references[: place + 1]
    ]


def _claims_section(
    table: pd.DataFrame, declared: Declaration, names: ArmNames, named: str, subset: str
) -> Table:
    rows = tuple(
        (
            str(row["dataset"]),
            str(row["backbone"]),
            names.of(row["dataset"], row["backbone"], row["pruner"]),
            _KINDS[row["kind"]],
            names.of(row["dataset"], row["backbone"], row["reference"]),
            _verdict(row),
            Number(row["difference"]),
            interval(row["low"], row["high"], _UNDEFINED),
            number(row["p_holm"], _UNDEFINED),
            Number(row["n_searches"]),
            Number(row["n_patients"]),
        )
        for _, row in table.iterrows()
    )
    return Table(
        title="Declared claims" + named,
        caption=f"Dice points, arm minus reference, on {subset} patients: one mean paired "
        "difference per search (over volumes and retrainings, then patients, then classes; pairs "
        "share seed, split, patient, volume and class), with Student's 95 % interval over "
        "searches. p is of the claim, corrected by Holm's method for all claims of the sweep; the "
        "interval is not corrected. The margin of “not inferior” and “equivalent” is "
        f"{100 * MARGIN:g} point. No verdict below {MIN_SEARCHES} searches or {MIN_PATIENTS} "
        "patients, or where an arm predicts a class nowhere. With one search on each side the "
        "patients are the unit, and the verdict is on these two networks alone. "
        f"{declared.when}",
        columns=(
            *plain("dataset", "backbone", "arm", "claim", "reference", "verdict"),
            *_DIFFERENCE,
            Column(heading="p (Holm)", format=P_VALUE),
            *_UNITS,
        ),
        rows=rows,
    )


def _differences_section(table: pd.DataFrame, names: ArmNames, named: str, subset: str) -> Table:
    rows = tuple(
        (
            str(row["dataset"]),
            str(row["backbone"]),
            names.of(row["dataset"], row["backbone"], row["pruner"]),
            names.of(row["dataset"], row["backbone"], row["reference"]),
            Number(row["difference"]),
            interval(row["low"], row["high"], _UNDEFINED),
            number(row["p"], _UNDEFINED),
            Number(1, detail="over patients")
            if row["comparison"].is_of_patients
            else Number(row["n_searches"]),
            Number(row["n_patients"]),
        )
        for _, row in table.iterrows()
    )
    return Table(
        title="Differences of patient Dice" + named,
        caption=f"Dice points, arm minus reference, on {subset} patients, computed as declared "
        "claims are; p is Student's, two-sided and not corrected. These pairs were not declared "
        "(under compare in the sweep file), so they have no verdict. The interval is over "
        "searches; over patients where there is one search, and then it holds for these two "
        "trained networks alone.",
        columns=(
            *plain("dataset", "backbone", "arm", "reference"),
            *_DIFFERENCE,
            Column(heading="p", format=P_VALUE),
            *_UNITS,
        ),
        rows=rows,
    )


def _sensitivity_section(table: pd.DataFrame, names: ArmNames, named: str) -> Table:
    rows = tuple(
        (
            str(row["dataset"]),
            str(row["backbone"]),
            names.of(row["dataset"], row["backbone"], row["pruner"]),
            names.of(row["dataset"], row["backbone"], row["reference"]),
            *(_interval(row[name]) for name in ("bca", "hierarchical", "mixed", "corrected_t")),
            Number(row["sign_flip"], detail=P_VALUE.text(row["smallest_p"])),
        )
        for _, row in table.iterrows()
    )
    return Table(
        title="The same differences by other methods" + named,
        caption="95 % intervals in Dice points; they decide nothing. BCa: bootstrap over "
        "searches. Hierarchical: bootstrap of searches, then of their patients. Mixed model: "
        "gap ~ 1 + (1 | search) + (1 | patient), REML. Corrected t: Nadeau and Bengio's, for "
        "folds whose training patients overlap. Sign flip: p over searches, and the smallest it "
        "can have.",
        columns=(
            *plain("dataset", "backbone", "arm", "reference"),
            *plain("BCa", "hierarchical", "mixed model", "corrected t", form=DICE_POINTS),
            Column(heading="sign flip", format=P_VALUE),
        ),
        rows=rows,
    )


def _friedman_section(table: pd.DataFrame, names: ArmNames, named: str) -> Table:
    rows = tuple(
        (
            str(row["dataset"]),
            str(row["backbone"]),
            Number(row["n_arms"]),
            Number(row["n_blocks"]),
            Number(row["statistic"]),
            number(row["p"], _UNDEFINED),
            ", ".join(
                f"{names.of(row['dataset'], row['backbone'], arm)} {rank:.1f}"
                for rank, arm in row["ranks"]
            ),
        )
        for _, row in table.iterrows()
    )
    return Table(
        title="Are the arms with cells different at all?" + named,
        caption="Friedman's test; blocks are the searches that all arms have (same seed and "
        "split). Rank 1 is the best.",
        columns=(
            *plain("dataset", "backbone"),
            *plain("arms", "searches", form=COUNT),
            Column(heading="χ²", format=NumberFormat(spec=".1f")),
            Column(heading="p", format=P_VALUE),
            *plain("mean ranks"),
        ),
        rows=rows,
    )


def _verdict(row: "pd.Series") -> str:
    found = row["comparison"]
    is_few = MIN_SEARCHES <= found.n_searches < FEW_SEARCHES and not found.obstacle
    return f"{row['verdict']} (few searches)" if is_few else str(row["verdict"])


def _interval(found: Interval) -> Cell:
    return interval(found.low, found.high, "the method gives no interval for these searches")

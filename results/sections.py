"""The tables of the report below the main one, and that of failed jobs."""

from collections.abc import Mapping, Sequence

import pandas as pd

from results.aggregate import reported_subset, varying_settings
from results.agreement import agreement_section, agreement_table
from results.comparison import claims_table, with_verdicts
from results.comparison_section import comparison_sections
from results.declared import Declaration
from results.early_decision import early_decision_section
from results.liveness import ArmNames, liveness_section
from results.main_table import done_in, setting_text
from results.presence import presence_section
from results.schema import empty
from results.tables.cells import COUNT
from results.tables.table import Column, Table, plain
from results.transfer import TunedArm, transfer_section, transfer_table


def sections(
    jobs: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    tuned: Sequence[TunedArm] = (),
    declared: Declaration | None = None,
) -> list[Table]:
    """Return the tables below the main one: liveness, comparisons, agreement, presence and so on.

    Args:
        jobs: One row per expected job.
        tables: Table name → rows.
        tuned: Arms whose settings a study chose.
        declared: The claims that the sweep declares; None is none.
    """
    declared = declared or Declaration()
    looks = tables.get("liveness", empty("liveness"))
    done = done_in(jobs)
    subset = reported_subset(jobs)
    found: list[Table] = []
    groups = groups_of(done)
    claims = with_verdicts(
        [claims_table(part, tables["patients"], declared.claims, subset) for _, part in groups]
    )
    for (title, part), claimed in zip(groups, claims, strict=True):
        names = ArmNames(part)
        found.append(liveness_section(part, looks, title))
        found += comparison_sections(
            part, tables["patients"], declared, claimed, title=title, subset=subset
        )
        transfer = transfer_table(part, tables["patients"], tables["trajectories"], tuned, subset)
        found.append(transfer_section(transfer, title, subset, names))
        agreement = agreement_table(part, tables["trajectories"])
        found.append(agreement_section(agreement, title, names))
        found.append(early_decision_section(part, tables["trajectories"], title))
        found.append(presence_section(part, tables["patients"], title, subset))
    return [table for table in found if table.rows]


def groups_of(done: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Return finished jobs by the settings that the grid varies.

    Args:
        done: Finished jobs.

    Returns:
        The settings in words, empty if none varies, and the jobs.
    """
    varying = varying_settings(done)
    if not varying:
        return [("", done)]
    found = []
    for key, part in done.groupby(varying, dropna=False):
        named = zip(varying, key, strict=True)
        settings = (
            f"{name.removeprefix('config_')} {setting_text(value)}" for name, value in named
        )
        found.append((", ".join(settings), part))
    return found


def failures(jobs: pd.DataFrame) -> list[Table]:
    """Return the table of failed jobs; none if no job failed."""
    failed = jobs[jobs["status"] == "failed"]
    if len(failed) == 0:
        return []
    names = ["dataset", "backbone", "pruner", "seed", "failed_stage", "error"]
    return [
        Table(
            title="Failed jobs",
            columns=(
                *plain("dataset", "backbone", "arm"),
                Column(heading="seed", format=COUNT, align="right"),
                *plain("stage", "error"),
            ),
            rows=tuple(map(tuple, failed[names].astype(str).to_numpy().tolist())),
        )
    ]

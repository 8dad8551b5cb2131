"""The report from the tables alone: Markdown, LaTeX (booktabs) and one HTML page."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from files.writing import write_text
from results.aggregate import (
    SHORT_SUBSETS,
    Mean,
    Speedup,
    mean_over_seeds,
    package_versions,
    reported_subset,
    speedup,
    varying_settings,
)
from results.agreement import MEASURES, agreement_table
from results.chance import N_DRAWS
from results.comparison import claims_table, with_verdicts
from results.comparison_section import comparison_sections, p_value
from results.declared import Declaration
from results.early_decision import early_decision_curves, early_decision_section
from results.escaping import escape_latex, escape_markdown, file_name, visible
from results.figures import (
    cell_drawing,
    dice_against_seconds,
    importance_trajectories,
    jsd_trajectories,
    leading_operations,
)
from results.liveness import DEAD, ArmNames, dead_jobs, liveness_section, marked_arm_name
from results.presence import presence_section
from results.schema import empty
from results.section import Section
from results.transfer import TunedArm, transfer_table

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_CELLS = 12
_PRUNER_ORDER = ("no_cell", "no_cell_longer", "random", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPaths:
    """Where the report was written."""

    markdown: Path
    latex: Path
    html: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the main table: a pruner on a dataset and backbone.

    Attributes:
        pruner: Value of the pruner axis.
        arm: Its name in the table, saying so if its searches were dead.
        dice: Dice ± sd over seeds, of test patients unless no job scored any.
        hd95: HD95 in mm ± sd.
        search: Seconds of search, ± sd.
        epochs: Epochs that searches ran of the full number.
        speedup: Against the full search, or a dash with the footnote's mark.
        seeds: Jobs it rests on, and of how many if some are missing or failed.
    """

    pruner: str
    arm: str
    dice: str
    hd95: str
    search: str
    epochs: str
    speedup: str
    seeds: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPages:
    """What a report shows of a sweep's own study.

    Attributes:
        sections: Tables.
        figures: Plots.
    """

    sections: tuple[Section, ...] = ()
    figures: tuple["Illustration", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A group of the main table: dataset, backbone, further settings that the grid varies."""

    names: tuple[str, ...]
    entries: tuple[Entry, ...]


@dataclass(slots=True, kw_only=True)
class _Notes:
    """Footnotes, each said once and referred to by a number."""

    texts: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"({self.texts.index(text) + 1})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Illustration:
    """A figure: its file name, what it shows, its SVG."""

    name: str
    caption: str
    svg: str


def write_report(
    tables: Mapping[str, pd.DataFrame],
    into: Path,
    *,
    sweep: str,
    expected_jobs: pd.DataFrame | None = None,
    tuned: Sequence[TunedArm] = (),
    study: StudyPages | None = None,
    declared: Declaration | None = None,
) -> ReportPaths:
    """Write the report of a sweep; the same tables give the same bytes.

    Args:
        tables: Table name → rows, as `results.collect.collect` returns them.
        into: Folder of the report; made.
        sweep: Name of the sweep.
        expected_jobs: Every job that the sweep should have: ids and ``config_*`` columns. Jobs
            that are not in the tables are shown as missing; None expects those that are there.
        tuned: Arms whose settings a study chose.
        study: What the sweep's own study has come to; None if it has none.
        declared: The claims that the sweep declares; None is none.
    """
    jobs = _with_missing(tables["jobs"], expected_jobs)
    notes = _Notes()
    header, rows = main_table(jobs, notes)
    subset = reported_subset(jobs)
    study = study or StudyPages()
    figures = [*study.figures, *_illustrations(jobs, tables)]
    failed = jobs[jobs["status"] == "failed"]
    context = {
        "sweep": sweep,
        "header": header,
        "subset": "" if subset == "test" else f", {subset}",
        "rows": rows,
        "notes": notes.texts,
        "sections": [*study.sections, *sections(jobs, tables, tuned, declared)],
        "figures": figures,
        "counts": _counts(jobs),
        "facts": _facts(jobs, tables),
        "failures": failed[["dataset", "backbone", "pruner", "seed", "failed_stage", "error"]]
        .astype(str)
        .values.tolist(),
    }
    into.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        _write(into / "figures" / f"{figure.name}.svg", figure.svg)
    environment = _environment()
    written = {}
    for kind, name in (
        ("markdown", "report.md"),
        ("latex", "report.tex"),
        ("html", "report.html"),
    ):
        text = environment[kind].get_template(f"{name}.j2").render(context)
        written[kind] = into / name
        _write(into / name, text)
    return ReportPaths(**written)


def _setting(value: object) -> str:
    """Return a setting's value as a table shows it: a job that left it unset has a null."""
    is_null = value is None or value is pd.NA or value != value
    return "unset" if is_null else str(value)


def main_table(
    jobs: pd.DataFrame, notes: _Notes | None = None
) -> tuple[tuple[str, ...], tuple[Row, ...]]:
    """Return the names of the row headings and the rows.

    Args:
        jobs: One row per expected job; ``status`` is ``missing`` where there is none.
        notes: Collects footnotes.
    """
    notes = notes if notes is not None else _Notes()
    varying = varying_settings(jobs)
    header = ("dataset", "backbone", *(name.removeprefix("config_") for name in varying))
    if len(jobs) == 0:
        return header, ()
    rows, subset = [], reported_subset(jobs)
    for key, part in jobs.groupby(["dataset", "backbone", *varying], sort=True, dropna=False):
        names = tuple(map(_setting, key))
        entries = tuple(
            _entry(part, pruner, SHORT_SUBSETS[subset], notes)
            for pruner in _ordered(list(part["pruner"].unique()))
        )
        rows.append(Row(names=names, entries=entries))
    return header, tuple(rows)


def sections(
    jobs: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    tuned: Sequence[TunedArm] = (),
    declared: Declaration | None = None,
) -> list[Section]:
    """Return the tables below the main one: liveness, comparisons, agreement, presence and so on.

    Args:
        jobs: One row per expected job.
        tables: Table name → rows.
        tuned: Arms whose settings a study chose.
        declared: The claims that the sweep declares; None is none.
    """
    declared = declared or Declaration()
    looks = tables.get("liveness", empty("liveness"))
    done = jobs[jobs["status"] == "done"]
    subset = reported_subset(jobs)
    found: list[Section] = []
    groups = _groups(done)
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
        found.append(_transfer_section(transfer, title, subset, names))
        agreement = agreement_table(part, tables["trajectories"])
        found.append(_agreement_section(agreement, title, names))
        found.append(early_decision_section(part, tables["trajectories"], title))
        found.append(presence_section(part, tables["patients"], title, subset))
    return [section for section in found if section.lines]


def _groups(done: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Finished jobs by the settings that the grid varies, with these in words; empty if none."""
    varying = varying_settings(done)
    if not varying:
        return [("", done)]
    found = []
    for key, part in done.groupby(varying, dropna=False):
        named = zip(varying, key, strict=True)
        settings = (f"{name.removeprefix('config_')} {_setting(value)}" for name, value in named)
        found.append((", ".join(settings), part))
    return found


def _transfer_section(table: pd.DataFrame, title: str, subset: str, names: ArmNames) -> Section:
    lines = tuple(
        (
            names.of(row["dataset"], row["backbone"], row["pruner"]),
            str(row["tuned_on"]),
            f"{row['dataset']} · {row['backbone']}, {row['exposure']}",
            str(row["n_cells"]),
            names.of(row["dataset"], row["backbone"], row["reference"]),
            f"{row['dice']:.3f}",
            f"{100 * row['difference']:+.2f}",
            f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}",
            p_value(float(row["p"])),
            f"{row['epochs']:.0f}",
            _times(row["reference_epoch_equivalents"], row["epoch_equivalents"]),
        )
        for row in table.to_dict("records")
    )
    return Section(
        title="Tuned settings where they were tuned, and elsewhere"
        + (f" ({title})" if title else ""),
        text="A study chose the arm's settings by validation patients of the cells under “tuned "
        f"on”. Never seen: other cells, of whose {subset} patients none trained or validated in a "
        "split of the study's cells; not known to be unseen: such a split is no longer at hand. "
        f"Dice as in the differences above, on {subset} patients. Epochs: of the arm's searches, "
        "in the mean. Fewer operations: epochs counted in the operations that were there, the "
        "reference's over the arm's.",
        header=(
            *("arm", "tuned on", "judged on", "cells", "reference", "Dice", "difference"),
            *("95 % interval", "p", "epochs", "fewer operations"),
        ),
        lines=lines,
    )


def _times(before: float, after: float) -> str:
    return "—" if math.isnan(before) or math.isnan(after) else f"{before / after:.1f}×"


def _agreement_section(table: pd.DataFrame, title: str, names: ArmNames) -> Section:
    def beside_chance(row: pd.Series, measure: str) -> str:
        value, p = float(row[measure]), float(row[f"{measure}_p"])
        if math.isnan(value):
            return "—"
        if math.isnan(p):
            return f"{value:.2f}"
        low, high = float(row[f"{measure}_low"]), float(row[f"{measure}_high"])
        return f"{value:.2f} ({low:.2f} to {high:.2f}; p {p_value(p)})"

    lines = tuple(
        (
            *(str(row[name]) for name in ("dataset", "backbone")),
            names.of(row["dataset"], row["backbone"], row["pruner"]),
            str(row["n"]),
            *(beside_chance(row, measure) for measure in MEASURES),
        )
        for _, row in table.iterrows()
        if int(row["n"]) > 1
    )
    return Section(
        title="Agreement over seeds" + (f" ({title})" if title else ""),
        text="Mean pairwise Jaccard index of the chosen (edge, operation) sets, Fleiss' κ of the "
        "operation on each edge that any cell chose, mean Kendall τ of the final rankings of an "
        "edge's operations other than none. In brackets: the central 95 % of the values for "
        "chance, then p, the share of these that are as large or larger (one-sided, not corrected "
        f"for the number of lines). Chance: {N_DRAWS} draws of as many random cells, with the "
        "same levels and nodes and the arm's candidate operations; for τ, of a random ranking for "
        "every search and edge. The κ of random cells is not 0, since only chosen edges count.",
        header=("dataset", "backbone", "arm", "cells", "Jaccard", "Fleiss κ", "Kendall τ"),
        lines=lines,
    )


def _entry(part: pd.DataFrame, pruner: str, subset: str, notes: _Notes) -> Entry:
    own = part[part["pruner"] == pruner]
    done = own[own["status"] == "done"]
    searches = done[done["search_s"].notna()]
    return Entry(
        pruner=pruner,
        arm=marked_arm_name(own, pruner, notes.mark),
        dice=_number(mean_over_seeds(done[f"{subset}_dice"]), 3),
        hd95=_number(mean_over_seeds(done[f"{subset}_hd95_mm"]), 1),
        search=_number(mean_over_seeds(searches["search_s"]), 0),
        epochs=_epochs(searches),
        speedup=_speedup(speedup(done_in(part), pruner), pruner, len(searches), notes),
        seeds=_seeds(own, done),
    )


def done_in(part: pd.DataFrame) -> pd.DataFrame:
    """Return the jobs that are done."""
    return part[part["status"] == "done"]


def _number(mean: Mean, digits: int) -> str:
    value, sd = mean.mean, mean.sd
    if math.isnan(value):
        return "—"
    text = f"{value:.{digits}f}"
    return text if math.isnan(sd) else f"{text} ± {sd:.{digits}f}"


def _epochs(searches: pd.DataFrame) -> str:
    if len(searches) == 0:
        return "—"
    ran = sorted({int(value) for value in searches["search_epochs"]})
    text = str(ran[0]) if len(ran) == 1 else f"{ran[0]}–{ran[-1]}"
    return f"{text} / {int(searches['search_epochs_full'].max())}"


def _speedup(found: Speedup, pruner: str, n_searches: int, notes: _Notes) -> str:
    if n_searches == 0:
        return "—"
    if found.refusal:
        return f"— {notes.mark(f'No speed-up is given: {found.refusal}.')}"
    return "1" if pruner == "none" else f"{found.ratio:.1f}×"


def _seeds(own: pd.DataFrame, done: pd.DataFrame) -> str:
    if len(done) == len(own):
        return str(len(done))
    n_failed = int((own["status"] == "failed").sum())
    n_missing = int((own["status"] == "missing").sum())
    causes = [f"{n} {word}" for n, word in ((n_failed, "failed"), (n_missing, "missing")) if n]
    return f"{len(done)} of {len(own)} ({', '.join(causes)})"


def _ordered(pruners: Sequence[str]) -> list[str]:
    known = [name for name in _PRUNER_ORDER if name in set(pruners)]
    return known + sorted(set(pruners) - set(known))


def _with_missing(jobs: pd.DataFrame, expected: pd.DataFrame | None) -> pd.DataFrame:
    """Add a row with status ``missing`` for every expected job that has none.

    A job that an older version ran has no value of a setting that came later: it gets the value
    that its id stands for, so that it is the same kind of job as its newer siblings.
    """
    if expected is None:
        return jobs
    jobs = jobs.copy()
    by_id = expected.drop_duplicates("job_id").set_index("job_id")
    for name in by_id.columns:
        if str(name).startswith("config_") and (name not in jobs or jobs[name].isna().any()):
            implied = jobs["job_id"].map(by_id[name])
            known = jobs[name].astype(object) if name in jobs else implied
            jobs[name] = known.where(known.notna(), implied)
    absent = expected[~expected["job_id"].isin(set(jobs["job_id"]))]
    if len(absent) == 0:
        return jobs
    added = absent.assign(status="missing")
    return pd.concat([jobs.astype(object), added.astype(object)], ignore_index=True)


def _counts(jobs: pd.DataFrame) -> str:
    n = len(jobs)
    words = [f"{n} jobs"]
    for status in ("done", "failed", "missing"):
        count = int((jobs["status"] == status).sum())
        if count:
            words.append(f"{count} {status}")
    return ", ".join(words)


def _facts(jobs: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> list[tuple[str, str]]:
    """What a reader needs to repeat the sweep."""
    done = jobs[jobs["status"] == "done"]
    if len(done) == 0:
        return []
    subset = reported_subset(jobs)
    scored = tables["patients"]
    scored = scored[scored["subset"] == subset]
    stages = tables["stages"]
    computed = stages[stages["outcome"] == "done"].groupby("kind")["key"].nunique()
    return [
        (f"{subset.capitalize()} patients", str(scored["patient_id"].nunique())),
        ("Classes", ", ".join(sorted(scored["class_name"].dropna().unique()))),
        ("Stages computed", ", ".join(f"{n} {kind}" for kind, n in computed.items())),
        *_compilation(done),
        ("Device", ", ".join(sorted(done["device"].dropna().unique()))),
        ("Threads", ", ".join(sorted({str(n) for n in done["n_threads"].dropna()}))),
        ("Commit", ", ".join(sorted({str(c) for c in done["commit"].dropna() if c})) or "unknown"),
        ("Versions", ", ".join(f"{k} {v}" for k, v in package_versions(done).items() if v)),
    ]


def _compilation(done: pd.DataFrame) -> list[tuple[str, str]]:
    """What compiling cost before a search, beside the seconds of searches."""
    seconds = done["search_compile_s"].dropna()
    if len(seconds) == 0:
        return []
    words = f"{seconds.max():.0f} s before the first search on a machine, in no search's seconds"
    return [("Compilation", words)]


def _illustrations(jobs: pd.DataFrame, tables: Mapping[str, pd.DataFrame]) -> list[Illustration]:
    trajectories, events = tables["trajectories"], tables["events"]
    subset, dead = reported_subset(jobs), dead_jobs(jobs)
    found = [
        Illustration(
            name="dice_against_seconds",
            caption=f"{subset.capitalize()} Dice against seconds of search, a point per job."
            + (" What dead searches found are random cells." if dead else ""),
            svg=dice_against_seconds(jobs, f"{SHORT_SUBSETS[subset]}_dice"),
        ),
        Illustration(
            name="jsd",
            caption="Jensen–Shannon divergence of every edge between adjacent windows of epochs. "
            "Dots: an edge lost operations. Dashed: the threshold of an absolute rule.",
            svg=jsd_trajectories(trajectories, events),
        ),
    ]
    found += _early_decisions(jobs, trajectories)
    for pruner in _ordered(list(trajectories["pruner"].dropna().unique())):
        part = trajectories[trajectories["pruner"] == pruner]
        first = part.iloc[0]
        own = part[part["job_id"] == first["job_id"]]
        found.append(
            Illustration(
                name=file_name(f"importance_{pruner}"),
                caption="Importance of the operations on each edge, "
                f"{_search_name(first, dead)}. A line ends where its operation was removed.",
                svg=importance_trajectories(own),
            )
        )
    drawn = jobs[jobs["genotype"].notna() & (jobs["genotype"] != "")]
    for index, (_, job) in enumerate(drawn.head(_MOST_CELLS).iterrows()):
        title = _search_name(job, dead)
        shown = (
            f" ({min(len(drawn), _MOST_CELLS)} of {len(drawn)} cells are drawn)"
            if not index
            else ""
        )
        found.append(
            Illustration(
                name=file_name(f"cell_{job['job_id']}"),
                caption=f"Cell of {title}{shown}.",
                svg=cell_drawing(str(job["genotype"]), title),
            )
        )
    return [figure for figure in found if figure.svg]


def _early_decisions(jobs: pd.DataFrame, trajectories: pd.DataFrame) -> list[Illustration]:
    """A figure for each group of settings."""
    return [
        Illustration(
            name="early_decision" + (f"_{index}" if index else ""),
            caption="Final operations among the top 3 of their edge's importances after so many "
            "epochs, mean over an arm's searches" + (f" ({title})" if title else "") + ". Dashed: "
            "by chance, which rises as operations are removed. A line ends with the first of its "
            "searches.",
            svg=leading_operations(early_decision_curves(part, trajectories)),
        )
        for index, (title, part) in enumerate(_groups(done_in(jobs)))
    ]


def _search_name(row: pd.Series, dead: Collection[str]) -> str:
    name = f"{row['dataset']} · {row['backbone']} · {row['pruner']} · seed {row['seed']}"
    return f"{name} · {DEAD}" if row["job_id"] in dead else name


class _Ready(str):
    """Text that is escaped already."""

    __slots__ = ()


def _environment() -> dict[str, jinja2.Environment]:
    """An environment for each format; whatever a template prints is escaped, once."""
    loader = jinja2.FileSystemLoader(_TEMPLATES)
    common = {"loader": loader, "trim_blocks": True, "lstrip_blocks": True}
    html = jinja2.Environment(
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
        **common,  # type: ignore[arg-type]
    )
    html.filters["svg"] = _inline_svg
    markdown = jinja2.Environment(
        autoescape=False,
        finalize=_once(escape_markdown),
        **common,  # type: ignore[arg-type]
    )
    markdown.filters["row"] = _row(escape_markdown, " | ")
    latex = jinja2.Environment(
        autoescape=False,
        finalize=_once(escape_latex),
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        **common,  # type: ignore[arg-type]
    )
    latex.filters["row"] = _row(escape_latex, " & ")
    return {"html": html, "markdown": markdown, "latex": latex}


def _once(escape: Callable[[object], str]) -> Callable[[object], str]:
    return lambda value: value if isinstance(value, _Ready) else escape(value)


def _row(escape: Callable[[object], str], between: str) -> Callable[[Iterable[object]], _Ready]:
    return lambda values: _Ready(between.join(map(escape, values)))


def _inline_svg(figure: Illustration) -> Markup:
    """The SVG with ids of its own, so that several stand in one page."""
    prefix = re.sub(r"\W", "_", figure.name)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}_", figure.svg)
    return Markup(text)


def _write(path: Path, text: str) -> None:
    write_text(path, text)

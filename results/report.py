"""The report from the tables alone: Markdown, LaTeX (booktabs) and one HTML page."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pandas as pd

from files.writing import write_text
from results.aggregate import package_versions, reported_subset
from results.declared import Declaration
from results.illustrations import Illustration, illustrations
from results.main_table import done_in, main_table
from results.sections import failures, sections
from results.tables.table import Table
from results.tables.writers import WRITERS, Writer
from results.transfer import TunedArm

_TEMPLATES = Path(__file__).parent / "templates"
_FILES = {"markdown": "report.md", "latex": "report.tex", "html": "report.html"}
_LATEX_MARKS = {
    "block_start_string": "<%",
    "block_end_string": "%>",
    "variable_start_string": "<<",
    "variable_end_string": ">>",
    "comment_start_string": "<#",
    "comment_end_string": "#>",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPaths:
    """Where the report was written."""

    markdown: Path
    latex: Path
    html: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPages:
    """What a report shows of a sweep's own study.

    Attributes:
        sections: Tables.
        figures: Plots.
    """

    sections: tuple[Table, ...] = ()
    figures: tuple[Illustration, ...] = ()


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
    study, counts = study or StudyPages(), _counts(jobs)
    figures = [*study.figures, *illustrations(jobs, tables)]
    context = {
        "sweep": sweep,
        "counts": counts,
        "main": main_table(jobs, caption=f"{sweep}: {counts}."),
        "sections": [*study.sections, *sections(jobs, tables, tuned, declared)],
        "failures": failures(jobs),
        "facts": _facts(jobs, tables),
        "figures": figures,
    }
    into.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        write_text(into / "figures" / f"{figure.name}.svg", figure.svg)
    written = {kind: into / name for kind, name in _FILES.items()}
    for kind, path in written.items():
        template = _environment(kind).get_template(f"{path.name}.j2")
        write_text(path, template.render(context))
    return ReportPaths(**written)


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
    done = done_in(jobs)
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


class _Ready(str):
    """Text that is escaped already."""

    __slots__ = ()


def _environment(kind: str) -> jinja2.Environment:
    """An environment for a format; its writer escapes whatever a template prints, once."""
    writer: Writer = WRITERS[kind]
    marks = _LATEX_MARKS if kind == "latex" else {}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=False,
        finalize=lambda value: value if isinstance(value, _Ready) else writer.escape(value),
        trim_blocks=True,
        lstrip_blocks=True,
        **marks,  # type: ignore[arg-type]
    )
    environment.filters["table"] = lambda table: _Ready(writer.table(table))
    environment.filters["paragraphs"] = lambda texts: _Ready(writer.paragraphs(texts))
    environment.filters["svg"] = _inline_svg
    return environment


def _inline_svg(figure: Illustration) -> _Ready:
    """The SVG with ids of its own, so that several stand in one page."""
    prefix = re.sub(r"\W", "_", figure.name)
    return _Ready(re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}_", figure.svg))

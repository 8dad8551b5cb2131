"""What a sweep will take: plan."""

import json
from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from orchestrator.cluster import Node
from orchestrator.commands.opening import opened
from orchestrator.consoles import out
from orchestrator.expand import is_on_cell
from orchestrator.forecast import Forecast
from orchestrator.live_view import plan_table
from orchestrator.plan import KeptFeatureSize, KnownRecords, Plan, kept_feature_sizes
from orchestrator.price import device_here, forecast_lines, forecast_of, machines_of
from orchestrator.printed import Typed
from orchestrator.session import Session
from orchestrator.study_settings import StudySettings
from workers.arms import is_full_search

_MOST_DROPPED = 10


def plan(
    typed: Typed,
    *,
    jobs: bool,
    machines: int,
    gpus: int | None,
    cpus: int | None,
    price_per_hour: float | None,
    measure: bool,
) -> None:
    """Do what `orchestrator plan` says of itself."""
    session = opened(typed, needs="names", checks_rules=True)
    found = session.plan()
    if found.is_provisional:
        _print_without_keys(session, found)
    else:
        n_done = sum(state.is_done for state in found.states)
        out.print(f"{session.spec.name}: {len(found.states)} jobs, {n_done} done")
        out.print(plan_table(found))
        nodes = machines_of(machines, gpus, cpus or session.spec.resources.cpus)
        _print_forecast(session, found, nodes, price_per_hour, measure=measure)
    if session.spec.study is not None:
        out.print(_study_plan(session, session.spec.study), soft_wrap=True)
    dropped = session.expansion.dropped
    for cell in dropped if jobs else dropped[:_MOST_DROPPED]:
        out.print(Text(f"left out: {json.dumps(cell)}"), soft_wrap=True)
    if len(dropped) > _MOST_DROPPED and not jobs:
        out.print(f"… {len(dropped)} cells are left out in all; --jobs lists them.")
    for size, names in _by_size(
        kept_feature_sizes(found, KnownRecords(session.store), where=str(session.spec.path))
    ):
        total = ""
        if size.n_slices is not None:
            total = f", at most {size.mib_per_slice * size.n_slices:,.0f} MiB"
        out.print(
            f"A search on {names} · {size.backbone} keeps {size.mib_per_slice:.2f} MiB of "
            f"encoder features per slice{total} in a temporary file.",
            soft_wrap=True,
        )
    if jobs:
        for state in found.states:
            mark = (
                "done"
                if state.is_done
                else f"{len(state.tasks)}/{len(state.graph.steps)} keys known"
            )
            if found.is_provisional:
                mark = ""
            out.print(Text(f"{state.job.job_id}  {state.job.label}  {mark}"), soft_wrap=True)


def _print_without_keys(session: Session, found: Plan) -> None:
    """Say what holds of a sweep whose data are not at hand: not what is done, nor how long."""
    missing = [name for name, source in found.sources.items() if not source.fingerprint]
    n_jobs = len(found.states)
    out.print(f"{session.spec.name}: {n_jobs} jobs; how many are done cannot be said")
    table = Table(box=None, pad_edge=False)
    for name in ("stage", "wanted", "distinct"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for row in found.counts():
        if row["wanted"]:
            table.add_row(str(row["kind"]), str(row["wanted"]), str(row["distinct"]))
    out.print(table)
    how = " ".join(f"--data {name}=PATH" for name in missing)
    out.print(
        f"The folder of {', '.join(missing)} is not at hand, so keys are provisional: which "
        f"stages are done and what the rest takes follow from its content. Give it with {how}.",
        soft_wrap=True,
    )


def _study_plan(session: Session, study: StudySettings) -> str:
    """What the study takes beside the grid, in words."""
    full = [job for job in session.expansion.jobs if is_full_search(job)]
    n_cells = sum(is_on_cell(job, study.judged_on) for job in full)
    return (
        f"Then the study: {study.replayed} trials replayed, {study.confirmed} searched for, "
        f"retrained and scored on {n_cells} of {len(full)} cells each: at most "
        f"{n_cells * study.confirmed} searches that are not counted above."
    )


def _print_forecast(
    session: Session,
    found: Plan,
    nodes: Sequence[Node],
    price_per_hour: float | None,
    *,
    measure: bool,
) -> None:
    """Say what the missing stages of a plan take."""
    forecast = forecast_of(session, found, nodes)
    if not forecast.questions:
        return
    if measure:
        _probe(session, forecast)
    for line in forecast_lines(session, forecast, price_per_hour):
        out.print(line, soft_wrap=True)


def _probe(session: Session, forecast: Forecast) -> None:
    """Measure what the forecast cannot answer, and say what."""
    from orchestrator.probe import probe

    wanted = [(forecast.jobs[place], one) for place, one in forecast.questions.items()]
    resources = session.spec.resources
    done = probe(
        wanted,
        forecast.model,
        session.store,
        device=device_here(),
        n_threads=resources.threads_of(resources.of("pretrain")),
    )
    for line in done.measured:
        out.print(Text(f"measured: {line}"), soft_wrap=True)
    for line in done.left_out:
        out.print(Text(f"not measured: {line}"), soft_wrap=True)


def _by_size(sizes: Iterable[KeptFeatureSize]) -> Iterator[tuple[KeptFeatureSize, str]]:
    """Sizes that differ, each with the datasets that it holds for."""
    same: dict[tuple[str, float, int | None], list[KeptFeatureSize]] = {}
    for size in sizes:
        same.setdefault((size.backbone, size.mib_per_slice, size.n_slices), []).append(size)
    for group in same.values():
        yield group[0], ", ".join(size.dataset for size in group)

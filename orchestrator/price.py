"""What the user reads of a forecast: hours, money, disk and time left, with their intervals."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from files.reading import read_json, warn_damaged
from files.writing import write_json
from orchestrator.cluster import Node, this_machine, unplaceable
from orchestrator.costs import SHARE, CostModel, Total, known_costs
from orchestrator.forecast import NOTHING_OBSERVED, Forecast, KindForecast, added, free_bytes
from orchestrator.plan import KnownRecords, Plan
from orchestrator.session import Session
from orchestrator.simulation import StageId
from workers.provenance import device_name
from workers.stage_store import StageStore
from workers.task import StageTask

_NODES = "cluster.json"


def duration(seconds: float) -> str:
    """Return seconds as a person would say them.

    Examples:
        >>> duration(3), duration(75), duration(7300), duration(200_000)
        ('3 s', '1 min 15 s', '2 h 01 min', '2 d 07 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def device_here() -> str:
    """Return the kind of device that stages run on here: ``cuda`` or ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def machines_of(n: int, gpus: int | None, cpus: int | None) -> tuple[Node, ...]:
    """Return a cluster of equal machines; whatever is not given is as on this one."""
    (here,) = this_machine(cpus)
    if n == 1 and gpus is None:
        return (here,)
    memory_gib = here.memory_gib if gpus is None else None
    gpus_each = here.gpus if gpus is None else float(gpus)
    return (Node(cpus=here.cpus, gpus=gpus_each, memory_gib=memory_gib),) * n


def forecast_of(session: Session, plan: Plan, nodes: Sequence[Node]) -> Forecast:
    """Return what a plan will take on some machines, from all that was ever observed."""
    has_gpus = any(node.gpus for node in nodes)
    # Of other machines than this one only the kind of device is known.
    is_like_here = has_gpus == (device_here() == "cuda")
    is_whole = not plan.missing and not plan.n_undetermined
    model = CostModel() if is_whole else known_costs(session.store, session.runs_dir)
    return Forecast(
        plan,
        KnownRecords(session.store),
        model,
        resources=session.spec.resources,
        nodes=nodes,
        device=device_name(device_here()) if is_like_here else "",
    )


def keep_nodes(session: Session, nodes: Sequence[Node]) -> None:
    """Leave the machines of a running sweep where `status` finds them."""
    noted = {"nodes": [asdict(node) for node in nodes]}
    write_json(session.run_dir / _NODES, noted, is_durable=False)


def kept_nodes(session: Session) -> tuple[Node, ...]:
    """Return the machines of the sweep's last run; none if it never ran."""
    path = session.run_dir / _NODES
    noted = read_json(path, object)
    if noted is None:
        return ()
    try:
        # A list is of an older version.
        found = noted if isinstance(noted, list) else noted["nodes"]  # type: ignore[index]
        return tuple(Node(**entry) for entry in found)
    except (KeyError, TypeError) as error:
        warn_damaged(str(path), f"must list machines, got {error}")
        return ()


def begun_seconds(store: StageStore, tasks: Iterable[StageTask]) -> dict[StageId, float]:
    """Return the seconds since stages that are under way were begun, by the clocks of hosts."""
    now, found = time.time(), {}
    for task in store.begun(tasks):
        attempts = store.attempts(task.kind, task.key)
        if attempts and attempts[-1]["outcome"] == "lost":
            found[(task.kind, task.key)] = max(0.0, now - attempts[-1]["start"])
    return found


def time_left(left: Total) -> str:
    """Return the end of a line about a running sweep; empty if nothing is known of some kind."""
    if left.n == 0 or left.n_unknown:
        return ""
    return f" · about {duration(left.value)} left ({duration(left.low)} to {duration(left.high)})"


def forecast_lines(
    session: Session, forecast: Forecast, price_per_hour: float | None
) -> Iterator[RenderableType]:
    """Yield what `plan` says of time, money and disk."""
    rows = forecast.by_kind()
    yield Text()
    yield _table(rows, price_per_hour)
    groups = sum((Counter(row.groups) for row in rows), Counter[str]())
    groups.pop(NOTHING_OBSERVED, None)
    if groups:
        yield Text(
            f"Intervals hold {SHARE:.0%} of what is expected. Stages answered by observations of: "
            + ", ".join(f"{name} ({n})" for name, n in groups.most_common())
            + "."
        )
    kinds = [row.kind for row in rows]
    for problem in unplaceable(session.spec.resources, forecast.nodes, kinds):
        yield Text(f"`run` will refuse: {problem}", style="red")
    unknown = [row.kind for row in rows if row.hours.n_unknown]
    if unknown:
        yield Text(
            f"Of {', '.join(unknown)} nothing was ever observed: "
            f"`{session.command('plan', options=['--probe'])}` measures steps of every network "
            "in about a minute."
        )
    if not unknown and not unplaceable(session.spec.resources, forecast.nodes, kinds):
        yield _wall_clock(forecast)
    yield from _disk(session, rows)


def _table(rows: Sequence[KindForecast], price_per_hour: float | None) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    for name in ("to run", "device hours", "interval", "disk"):
        table.add_column(name, justify="right")
    if price_per_hour is not None:
        table.add_column("cost", justify="right")
        table.add_column("interval", justify="right")
    totals = [
        (f"all, {device}", [row for row in rows if row.on_gpus == on_gpus])
        for device, on_gpus in (("GPU", True), ("CPU", False))
    ]
    # A price is that of a GPU where there are any.
    prices_gpus = any(row.on_gpus for row in rows)
    for name, of in [*((row.kind, [row]) for row in rows), *(one for one in totals if one[1])]:
        hours = added([row.hours for row in of])
        is_known = hours.n_unknown == 0
        cells = [name, str(hours.n)]
        cells += [_hours(hours.value), _range(hours, 1.0)] if is_known else ["unknown", ""]
        sizes = [row.n_bytes for row in of]
        known = [size for size in sizes if size is not None]
        cells.append(size_in_words(sum(known)) if len(known) == len(sizes) else "unknown")
        if price_per_hour is not None and is_known and of[0].on_gpus == prices_gpus:
            cells += [f"{hours.value * price_per_hour:,.2f}", _range(hours, price_per_hour)]
        table.add_row(*cells)
    return table


def _hours(value: float) -> str:
    return f"{value:,.1f}" if value >= 10 else f"{value:.3f}"


def _range(total: Total, factor: float) -> str:
    return f"{_hours(total.low * factor)} to {_hours(total.high * factor)}"


def _wall_clock(forecast: Forecast) -> Text:
    left, nodes = forecast.seconds_left(), forecast.nodes
    machines = Counter(f"{node.cpus:g} CPUs and {node.gpus:g} GPUs" for node in nodes)
    words = ", ".join(f"{n} × {what}" for what, n in machines.items())
    bound = forecast.graph().lower_bound_s(nodes)
    return Text(
        f"On {words}: {duration(left.value)} ({duration(left.low)} to {duration(left.high)}); "
        f"no order of the stages can take less than {duration(bound)}."
    )


def _disk(session: Session, rows: Sequence[KindForecast]) -> Iterator[Text]:
    if session.store.place.is_remote:
        return
    free = free_bytes(Path(session.store.root))
    sizes = [row.n_bytes for row in rows if row.n_bytes is not None]
    at_least = "" if len(sizes) == len(rows) else "at least "
    if sizes:
        yield Text(f"Disk: {at_least}{size_in_words(sum(sizes))}, {size_in_words(free)} are free.")
    if sum(sizes) > free:
        yield Text(
            f"The store must fit its disk, got {size_in_words(sum(sizes))} where "
            f"{size_in_words(free)} are free; make room, or set `store` to a larger disk.",
            style="red",
        )


def size_in_words(n_bytes: float) -> str:
    """Return bytes as a person would say them.

    Examples:
        >>> size_in_words(2_000_000), size_in_words(5_368_709_120)
        ('1.9 MiB', '5.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.1f} {unit}" if unit != "B" else f"{n_bytes:.0f} B"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"

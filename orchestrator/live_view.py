"""What the user sees of a running sweep: one screen on a terminal, else one line per event."""

import time
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.forecast import Forecast
from orchestrator.plan import Plan
from orchestrator.price import begun_seconds, duration, time_left
from orchestrator.run_sweep import Looks, SweepProgress, View
from workers.places import StoreAwayError
from workers.run_stage import StageEnd
from workers.stage_store import StageStore
from workers.stages.table import STAGES
from workers.task import StageTask

PROGRESS_HEADINGS = ("epoch", "loss", "operations", "live edges", "Dice")
"""Headings of `progress_cells`."""
_MOST_RUNNING_ROWS = 12
_MOST_FAILURES = 3
_SECONDS_BETWEEN_ESTIMATES = 5.0
_SECONDS_BETWEEN_LINES = 120.0


def stage_label(task: StageTask) -> str:
    """Return what a stage computes, in the words of the sweep."""
    job = task.job
    names = {
        "dataset": job.dataset,
        "backbone": job.backbone,
        "pruner": job.pruner,
        "seed": f"seed {job.seed}",
    }
    return " · ".join(names[axis] for axis in STAGES[task.kind].axes)


def plan_table(plan: Plan) -> Table:
    """Return the table of a plan: stages wanted, distinct, done, to run."""
    table = Table(title=None, box=None, pad_edge=False)
    table.add_column("stage")
    for name in ("wanted by jobs", "distinct", "done", "to run"):
        table.add_column(name, justify="right")
    for row in plan.counts():
        table.add_row(
            str(row["kind"]),
            *(str(row[name]) for name in ("wanted", "distinct", "done", "to_run")),
        )
    return table


class LineView(View):
    """One line per event, and now and then the time left: for logs and pipes.

    Args:
        console: Where lines go.
        store: Where running stages leave their progress.
        forecast: What is left to do.
    """

    def __init__(self, console: Console, store: StageStore, forecast: Forecast) -> None:
        self._console, self._store, self._forecast = console, store, forecast
        self._said = time.monotonic()

    def submitted(self, task: StageTask) -> None:
        """Say that a stage starts."""
        self._forecast.note_submitted(task)
        self._say(f"start   {task.kind:<9} {stage_label(task)}  [{task.key}]")

    def ended(self, task: StageTask, end: StageEnd) -> None:
        """Say how a stage ended."""
        text = f"{end.ending:<7} {task.kind:<9} {stage_label(task)}  [{task.key}]"
        if end.record is not None:
            last = end.record.attempts[-1]
            text += f"  {duration(last['end'] - last['start'])}"
        if end.failure is not None:
            text += f"  {end.failure.error}"
        if end.ending == "preempted":
            text += "  its host is going away; it is submitted again after a pause"
        if end.record is not None:
            self._forecast.note_end(task, end.record, was_computed=end.was_computed)
        self._say(text)

    def refresh(self, progress: SweepProgress) -> None:
        """Say every few minutes how long it will take."""
        if time.monotonic() - self._said < _SECONDS_BETWEEN_LINES:
            return
        self._said, left = time.monotonic(), ""
        with suppress(StoreAwayError):
            begun = begun_seconds(self._store, progress.running)
            left = time_left(self._forecast.seconds_left_while_running(progress.ended, begun))
        self._say(f"{len(progress.ended)} of {progress.n_jobs} jobs ended{left}")

    def _say(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        self._console.print(f"{stamp}  {text}", markup=False, highlight=False, soft_wrap=True)


class LiveView(View):
    """One screen that is redrawn in place; a context manager.

    Args:
        console: The terminal.
        plan: What the sweep needed when it started.
        store: Where running stages leave their progress.
        forecast: What is left to do.
    """

    def __init__(
        self, console: Console, plan: Plan, store: StageStore, forecast: Forecast
    ) -> None:
        self._plan = plan
        self._store = store
        self._forecast = forecast
        self._left, self._next_estimate = "", 0.0
        self._started = time.monotonic()
        self._progress = SweepProgress(n_jobs=len(plan.states))
        self._looks = Looks(store.place)
        self._under_way: list[StageTask] = []
        self._reports: list[dict[str, Any]] = []
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def submitted(self, task: StageTask) -> None:
        """Learn the stage's key."""
        self._forecast.note_submitted(task)

    def ended(self, task: StageTask, end: StageEnd) -> None:
        """Learn what the stage took."""
        if end.record is not None:
            self._forecast.note_end(task, end.record, was_computed=end.was_computed)

    def refresh(self, progress: SweepProgress) -> None:
        """Redraw."""
        self._progress = progress
        self._live.update(self.draw(), refresh=True)

    def draw(self) -> RenderableType:
        """Return the screen."""
        progress = self._progress
        self._look()
        parts: list[RenderableType] = [self._stage_counts(), Text()]
        if progress.running:
            parts += [self._running_rows(), Text()]
        parts += [
            Text(f"failed  {failure.stage} [{failure.key}]: {failure.error}", style="red")
            for failure in progress.failures[-_MOST_FAILURES:]
        ]
        parts.append(Text(self._summary()))
        return Group(*parts)

    def _stage_counts(self) -> Table:
        progress = self._progress
        executed = Counter(kind for kind, _ in progress.executed)
        reused = Counter(kind for kind, _ in progress.reused)
        running = Counter(task.kind for task in self._under_way)
        failed = Counter(failure.stage for failure in progress.failures)
        table = Table(box=None, pad_edge=False)
        table.add_column("stage")
        for name in ("done", "reused", "running", "failed", "left"):
            table.add_column(name, justify="right")
        for row in self._plan.counts():
            kind = str(row["kind"])
            left = int(row["distinct"]) - executed[kind] - reused[kind] - failed[kind]
            numbers = (executed, reused, running, failed)
            table.add_row(
                kind, *(str(number[kind] or "·") for number in numbers), str(max(0, left) or "·")
            )
        return table

    def _running_rows(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for name in ("running", "", *PROGRESS_HEADINGS):
            table.add_column(name, justify="left" if name in ("running", "") else "right")
        for task, seen in zip(self._under_way, self._reports, strict=False):
            table.add_row(task.kind, stage_label(task), *progress_cells(seen))
        hidden = len(self._under_way) - _MOST_RUNNING_ROWS
        if hidden > 0:
            table.add_row("…", f"and {hidden} more")
        return table

    def _look(self) -> None:
        """Find the stages that a worker has begun, the others wait, and what they report."""
        if not self._looks.begin():
            return
        with suppress(StoreAwayError):
            self._under_way = [
                task
                for task in self._store.begun(self._progress.running)
                if self._store.is_under_way(task.kind, task.key)
            ]
            self._reports = [
                self._store.progress(task.kind, task.key) or {}
                for task in self._under_way[:_MOST_RUNNING_ROWS]
            ]
        self._looks.end()

    def _summary(self) -> str:
        progress = self._progress
        elapsed = time.monotonic() - self._started
        text = f"{len(progress.ended)} of {progress.n_jobs} jobs ended · {duration(elapsed)}"
        if progress.is_stopping:
            text += " · stopping: the running stages write their checkpoints"
        elif progress.running:
            text += self._time_left()
        if progress.elsewhere:
            text += f" · {len(progress.elsewhere)} stages computed by other drivers"
        return text

    def _time_left(self) -> str:
        """The estimate, made anew every few seconds, for a fiftieth of the time at most."""
        now = time.monotonic()
        if now >= self._next_estimate:
            with suppress(StoreAwayError):
                begun = begun_seconds(self._store, self._under_way)
                left = self._forecast.seconds_left_while_running(self._progress.ended, begun)
                self._left = time_left(left)
            taken = time.monotonic() - now
            self._next_estimate = now + max(_SECONDS_BETWEEN_ESTIMATES, 50 * taken)
        return self._left


def progress_cells(seen: dict[str, Any]) -> tuple[str, ...]:
    """Return what a progress report says under each of `PROGRESS_HEADINGS`, as text.

    Args:
        seen: The report; ``live_edges`` is the share of a search's edges that are alive.

    Examples:
        >>> progress_cells({"epoch": 3, "n_epochs": 9, "loss": 0.25, "live_edges": 0.5})
        ('3/9', '0.250', '', '50 %', '')
    """

    def number(name: str, form: str) -> str:
        value = seen.get(name)
        return "" if value is None or value != value else format(value, form)

    epoch = f"{seen['epoch']}/{seen.get('n_epochs', '?')}" if "epoch" in seen else "starting"
    return (
        epoch,
        number("loss", ".3f"),
        number("n_operations", ".0f"),
        number("live_edges", ".0%").replace("%", " %"),
        number("validation_dice", ".3f"),
    )

"""What `orchestrator run` does: stages, then the study, MLflow beside them, the report at last."""

import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.text import Text

from iac_core.errors import ConfigError
from orchestrator.cluster import Node, this_machine, unplaceable
from orchestrator.consoles import err, out
from orchestrator.disk import problem_of, write_trouble
from orchestrator.drivers.driver import drive
from orchestrator.drivers.grid import GridDriver
from orchestrator.live_view import LineView, LiveView, plan_table
from orchestrator.plan import Plan
from orchestrator.price import forecast_of, keep_nodes
from orchestrator.resources import ResourceSettings
from orchestrator.run_sweep import JobEnd, SweepProgress, View, request_stop
from orchestrator.session import Session
from orchestrator.stopping import interrupt
from orchestrator.store_care import clean_up
from results.errors import ResultsError

if TYPE_CHECKING:
    from orchestrator.tracking_writer import BackgroundTracker

_PATIENCE_WITH_ANOTHER_WRITER_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How `run` runs.

    Attributes:
        address: A running cluster; None starts one on this machine.
        inline: Run stages in this process.
        reports: Write the report at the end.
        unchecked: Do not compare the nodes of a cluster first.
        again: Also try quarantined stages.
        waits_for_machines: Start although stages fit no machine there is now.
    """

    address: str | None
    inline: bool
    reports: bool
    unchecked: bool
    again: bool
    waits_for_machines: bool


def run_session(session: Session, how: RunOptions) -> bool:
    """Run stages, keep MLflow up to date beside them, report at the end if all jobs were meant.

    Returns:
        Whether no job and no trial of the study failed, as far as they were run, MLflow has them
        all, and the report was written if it was asked for.

    Raises:
        TrackingError: If MLflow cannot be used, and waiting would not help: nothing was started.
    """
    from orchestrator.reporting import note_declaration, open_tracking
    from orchestrator.tracking import FinishedJob

    clean_up(session)
    found = session.plan()
    out.print(f"{session.spec.name}: {len(found.states)} jobs")
    out.print(plan_table(found))
    note_declaration(session, sum(state.is_done for state in found.states))
    with open_tracking(session, patience_s=_PATIENCE_WITH_ANOTHER_WRITER_S) as tracking:
        tracking.wait_until_open()

        def on_job_end(end: JobEnd) -> None:
            finished = FinishedJob(job=end.state.job, tasks=end.state.tasks, failure=end.failure)
            tracking.put(finished)

        progress = _execute(session, found, on_job_end, how)
        is_tuned = True
        if session.spec.study is not None and how.reports and not session.stop_file.exists():
            is_tuned = _tune(session, tracking, how)
        failed = [failure for failure in progress.ended.values() if failure is not None]
        stopped = len(progress.ended) < progress.n_jobs or session.stop_file.exists()
        is_whole = is_tuned and not failed
        tracking.close("KILLED" if stopped else "FINISHED" if is_whole else "FAILED")
        _print_failures(session, progress)
        if tracking.trouble:
            err.print(
                Text(
                    f"{tracking_line(session, tracking.trouble)}: {len(tracking.unsent)} jobs are "
                    f"kept and sent by `{session.command('sync')}`, or by the next run or report."
                ),
                style="red",
                soft_wrap=True,
            )
            return False
        if progress.ended and how.reports:
            is_changed = tracking.n_written > 0 or session.spec.study is not None
            is_whole &= _report(session, is_changed=is_changed)
    return is_whole


def tracking_line(session: Session, trouble: str) -> str:
    """Return what is said when MLflow could not be written: a disk is in the way, or it is away.

    Args:
        session: The sweep.
        trouble: What the writer met with.
    """
    folders = [Path(root) for root in (session.store.root, session.runs_dir) if _is_here(root)]
    for folder in folders:
        problem = write_trouble(folder)
        if problem is not None:
            return str(problem)
    return f"MLflow is away ({trouble})"


def _is_here(root: Path | str) -> bool:
    return isinstance(root, Path) or "://" not in root


def _report(session: Session, *, is_changed: bool) -> bool:
    """Write the report and say where it is; False if it could not be written."""
    from orchestrator.reporting import report_if_stale

    try:
        paths = report_if_stale(session, is_changed=is_changed)
    except (ResultsError, OSError) as error:
        cause = problem_of(error, [session.run_dir]) if isinstance(error, OSError) else error
        text = f"no report was written: {cause}\n`{session.command('report')}` writes it"
        err.print(Text(text), style="red", soft_wrap=True)
        return False
    out.print(Text(f"\nreport       {paths.html}"), soft_wrap=True)
    out.print(Text(f"             {paths.markdown}"), soft_wrap=True)
    out.print(Text(f"tables       {session.run_dir / 'tables'}"), soft_wrap=True)
    out.print(Text(f"MLflow       {_mlflow_command(session)}"), soft_wrap=True)
    return True


def _tune(session: Session, tracking: "BackgroundTracker", how: RunOptions) -> bool:
    """Run what is missing of the sweep's study; False if it could not go on, or a trial failed."""
    from orchestrator.confirmed import TrialFailedError, finished_trials
    from orchestrator.ray_executor import RayExecutor
    from orchestrator.study import StorageAwayError, leading, storage_answers
    from orchestrator.tracking import FinishedTrial
    from orchestrator.tuning import study_lines, trial_line, tune

    if how.inline:
        err.print("The study is left out: its trials run on Ray (leave out --inline).")
        return True

    def on_told(number: int) -> None:
        trial = None
        for finished in finished_trials(session, number):
            tracking.put(finished)
            trial = finished if isinstance(finished, FinishedTrial) else finished.trial
        if trial is not None:
            out.print(Text(trial_line(trial)), soft_wrap=True)

    try:
        with (
            storage_answers(),
            leading(session),
            RayExecutor(n_cpus=session.spec.resources.cpus, address=how.address) as executor,
            _stop_on_interrupt(session),
        ):
            room = session.room(has_gpus=executor.n_gpus() > 0, tries_quarantined=how.again)
            # A kill may have come between the end of a trial and its run in MLflow.
            for finished in finished_trials(session):
                tracking.put(finished)
            tuned = tune(
                session,
                room,
                executor,
                view=View(),
                say=lambda line: out.print(Text(line), soft_wrap=True),
                on_told=on_told,
            )
            if tuned is None:
                return True
            for line in study_lines(session, tuned.confirmed):
                out.print(Text(line), soft_wrap=True)
            return tuned.n_failed == 0
    except (StorageAwayError, TrialFailedError) as error:
        err.print(Text(str(error)), style="red", soft_wrap=True)
        return False


def _execute(
    session: Session,
    found: Plan,
    on_job_end: Callable[[JobEnd], None],
    how: RunOptions,
) -> SweepProgress:
    from orchestrator.executors import Executor, InlineExecutor

    resources = session.spec.resources
    room = session.room(tries_quarantined=how.again)
    with ExitStack() as stack:
        nodes = this_machine(resources.cpus)
        executor: Executor = InlineExecutor()
        if how.inline and not how.waits_for_machines:
            _refuse_unplaceable(found, resources, nodes)
        if not how.inline and any(not state.is_done for state in found.states):
            from orchestrator.ray_executor import RayExecutor

            on_ray = stack.enter_context(RayExecutor(n_cpus=resources.cpus, address=how.address))
            executor, nodes = on_ray, on_ray.nodes()
            room = replace(room, has_gpus=on_ray.n_gpus() > 0)
            if not how.waits_for_machines:
                _refuse_unplaceable(found, resources, nodes)
            if len(nodes) > 1 and not how.unchecked:
                _refuse_unlike_nodes(session)
        keep_nodes(session, nodes)
        forecast = forecast_of(session, found, nodes)
        view: View = LineView(out, session.store, forecast)
        if out.is_terminal:
            view = stack.enter_context(LiveView(out, found, session.store, forecast))
        stack.enter_context(_stop_on_interrupt(session))
        return drive(
            GridDriver(session.expansion.jobs),
            room,
            executor,
            view=view,
            on_job_end=on_job_end,
            priority=forecast.priority,
        )


def _refuse_unlike_nodes(session: Session) -> None:
    """Look at every node before anything runs there.

    Raises:
        ConfigError: If one differs in what matters.
    """
    from orchestrator.nodes import examine_nodes

    wrong = [finding for finding in examine_nodes(session) if not finding.is_ok]
    if wrong:
        lines = "".join(f"\n    {finding.what}: {finding.text}" for finding in wrong)
        raise ConfigError(
            f"the nodes of a cluster must see the same, got{lines}\n"
            f"`{session.command('doctor', options=['--cluster'])}` looks again; --unchecked runs "
            "all the same"
        )


def _refuse_unplaceable(found: Plan, resources: ResourceSettings, nodes: Sequence[Node]) -> None:
    """End before anything starts if a stage could wait for ever.

    Raises:
        ConfigError: With a line for each kind of stage that no machine can hold.
    """
    kinds = [str(row["kind"]) for row in found.counts() if row["to_run"]]
    problems = unplaceable(resources, nodes, kinds)
    if problems:
        raise ConfigError("\n".join(problems))


@contextmanager
def _stop_on_interrupt(session: Session) -> Iterator[None]:
    """First Ctrl-C: running stages checkpoint and end. Second: leave at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        if session.stop_file.exists():
            raise KeyboardInterrupt
        try:
            request_stop(session.stop_file)
        except OSError:  # a full disk: the stages cannot be told
            raise KeyboardInterrupt from None

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # Ray has put a handler of its own into its place.
        signal.signal(signal.SIGTERM, interrupt)


def _mlflow_command(session: Session) -> str:
    uri = session.tracking_uri
    if uri.startswith("sqlite"):
        program = str(Path(sys.executable).parent / "mlflow")
        return shlex.join([program, "ui", "--backend-store-uri", uri])
    return uri


def _print_failures(session: Session, progress: SweepProgress) -> None:
    for failure in progress.failures:
        text = (
            f"failed  {failure.stage} [{failure.key}] after epoch {failure.epoch}, "
            f"{failure.kind}: {failure.error}"
        )
        err.print(Text(text), style="red", soft_wrap=True)
    if any(failure.kind == "quarantined" for failure in progress.failures):
        command = session.command("run", options=["--again"])
        err.print(Text(f"    again: {command}"), soft_wrap=True)

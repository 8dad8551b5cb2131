"""The graph of a job's stages: built once, and grown as its stages return what later keys need."""

from collections.abc import Callable, Mapping

from workers.arms import Arm, Step, arm_of
from workers.job import Job, content_hash
from workers.stages.table import STAGES
from workers.task import DataSource, Outcome, Parent, StageTask


class JobGraph:
    """The stages of a job whose keys are known, and those that are still to come.

    Args:
        job: The job.
        source: The data folder of its dataset.

    Attributes:
        job: As given.
        arm: The job's arm.
        steps: Every step that is known now, with a key or without, each after those it builds on.
        tasks: Role → the stage, for the steps that have a key.
    """

    def __init__(self, job: Job, source: DataSource) -> None:
        self.job, self.arm = job, arm_of(job)
        self.steps: tuple[Step, ...] = ()
        self.tasks: dict[str, StageTask] = {}
        self._source = source
        self._known: dict[str, Outcome] = {}
        self._grow()

    def grow(self, outcome_of: Callable[[StageTask], Outcome | None]) -> None:
        """Take in what the job's stages have returned, until nothing new follows from it.

        What followed from a stage that is not whole any more is taken back.

        Args:
            outcome_of: Returns the outcome of a stage, None if it is not whole.
        """
        if any(outcome_of(self.tasks[role]) is None for role in self._known):
            self._known.clear()
            self.tasks.clear()
            self._grow()
        while len(self.tasks) < len(self.steps):
            new = {
                role: outcome
                for role, task in self.tasks.items()
                if role not in self._known and (outcome := outcome_of(task)) is not None
            }
            if not new:
                return
            self._known |= new
            self._grow()

    def _grow(self) -> None:
        self.steps = tuple(self.arm.steps(self.job, self._known))
        for step in self.steps:
            is_known = step.genotype is not None and all(role in self.tasks for role in step.after)
            if is_known and step.role not in self.tasks:
                self.tasks[step.role] = _task(step, self.job, self.arm, self._source, self.tasks)


def stage_tasks(
    job: Job, source: DataSource, known: Mapping[tuple[str, str], Outcome]
) -> tuple[StageTask, ...]:
    """Return the job's stages whose keys are known, each after those it builds on.

    Args:
        job: The job.
        source: The data folder of its dataset.
        known: Kind and key of a stage that is whole → its outcome.
    """
    graph = JobGraph(job, source)
    graph.grow(lambda task: known.get(task.id))
    return tuple(graph.tasks.values())


def _task(
    step: Step, job: Job, arm: Arm, source: DataSource, tasks: Mapping[str, StageTask]
) -> StageTask:
    kind, as_seen = STAGES[step.kind], step.job or job
    parents = tuple(
        Parent(role=name, kind=tasks[role].kind, key=tasks[role].key, is_in_key=is_in_key)
        for is_in_key, given in ((True, step.parents), (False, step.implied))
        for name, role in given.items()
    )
    settings = {
        "kind": kind.name,
        "version": kind.version,
        "parents": {parent.role: parent.key for parent in parents if parent.is_in_key},
        **kind.inputs(as_seen, source, step.genotype or ""),
    }
    return StageTask(
        role=step.role,
        kind=kind.name,
        key=content_hash(settings),
        settings=settings,
        parents=parents,
        job=as_seen,
        owner=job,
        source=source,
        has_cells=arm.has_cells,
        genotype=step.genotype or "",
    )

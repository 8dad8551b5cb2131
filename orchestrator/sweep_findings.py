"""What `doctor` says of a sweep: its store, its rules, what its stages ask of this machine."""

from collections.abc import Iterator
from pathlib import Path

from iac_core.errors import ConfigError
from orchestrator.cluster import this_machine, unplaceable
from orchestrator.disk import write_trouble
from orchestrator.doctor import Finding
from orchestrator.rules import rule_problems
from orchestrator.session import Session
from workers.arms import arm_of


def examine_sweep(session: Session) -> Iterator[Finding]:
    """Look at what `run` would refuse a sweep for, beside its data folders.

    Args:
        session: The sweep.
    """
    yield _store(session)
    problems = rule_problems(
        session.spec, session.expansion, session.sources, session.store, notes=False
    )
    for problem in problems:
        yield Finding(what="sweep", is_ok=False, text=str(problem))
    if not problems:
        n = len({job.backbone for job in session.expansion.jobs})
        text = f"splits fit the patients, {n} networks can be built"
        yield Finding(what="sweep", is_ok=True, text=text)
    refusals = machine_refusals(session)
    for text in refusals:
        yield Finding(what="resources", is_ok=False, text=text)
    if not refusals:
        yield Finding(what="resources", is_ok=True, text="every stage fits this machine")


def machine_refusals(session: Session) -> tuple[str, ...]:
    """Return a line for each kind of stage of the sweep that does not fit this machine."""
    kinds = dict.fromkeys(
        step.kind for job in session.expansion.jobs for step in arm_of(job).steps(job, {})
    )
    resources = session.spec.resources
    return unplaceable(resources, this_machine(resources.cpus), kinds)


def _store(session: Session) -> Finding:
    place = session.store.place
    trouble = ""
    if isinstance(place.root, Path):
        problem = write_trouble(place.root)
        trouble = "" if problem is None else str(problem)
    else:
        try:
            place.check(writes=True)
        except (ConfigError, OSError) as error:
            trouble = str(error)
    return Finding(what="store", is_ok=not trouble, text=trouble or str(place.root))

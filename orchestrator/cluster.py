"""What machines there are, what of them a stage asks for, and what none of them can give."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import psutil
import torch

from orchestrator.resources import ResourceSettings, StageResources

_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One machine.

    Attributes:
        cpus: Its CPUs.
        gpus: Its GPUs.
        memory_gib: Memory that stages may reserve; None if nobody counts it.
        accelerator: Model of its GPUs, as Ray names it; None if it has none.
    """

    cpus: float
    gpus: float = 0.0
    memory_gib: float | None = None
    accelerator: str | None = None

    def n_places(self, needs: StageResources) -> int:
        """Return how many stages with these needs the machine holds at a time."""
        if needs.accelerator not in (None, self.accelerator):
            return 0
        places = [self.cpus / needs.cpus]
        if needs.gpus:
            places.append(self.gpus / needs.gpus)
        if needs.memory_gib is not None and self.memory_gib is not None:
            places.append(self.memory_gib / needs.memory_gib)
        return int(min(places) + _ROUNDING)


def this_machine(n_cpus: int | None = None) -> tuple[Node, ...]:
    """Return this machine as a cluster of one.

    Args:
        n_cpus: CPUs that stages may use; None is all of them.
    """
    return (
        Node(
            cpus=float(n_cpus or os.cpu_count() or 1),
            gpus=float(torch.cuda.device_count()),
            memory_gib=psutil.virtual_memory().total / 2**30,
        ),
    )


def requested(
    needs: StageResources, nodes: Sequence[Node], *, is_exclusive: bool, is_alone: bool = False
) -> StageResources:
    """Return what a stage reserves: to be alone on a machine, all CPUs of the largest.

    Args:
        needs: What the sweep says, GPUs filled in.
        nodes: The machines; at least one.
        is_exclusive: Whether the stage has its device to itself: its GPU, or without one the
            machine.
        is_alone: Whether it has the machine to itself; memory is then what a machine can give at
            most.
    """
    if not is_alone and (not is_exclusive or needs.gpus):
        return needs
    fitting = [node for node in nodes if node.gpus >= (needs.gpus or 0)] or list(nodes)
    largest = max(fitting, key=lambda node: node.cpus)
    memory_gib = needs.memory_gib
    if is_alone and memory_gib is not None and largest.memory_gib is not None:
        memory_gib = min(memory_gib, largest.memory_gib)
    return replace(needs, cpus=largest.cpus, memory_gib=memory_gib)


def n_places(nodes: Iterable[Node], needs: StageResources) -> int:
    """Return how many stages with these needs the machines hold at a time."""
    return sum(node.n_places(needs) for node in nodes)


def unplaceable(
    resources: ResourceSettings, nodes: Sequence[Node], kinds: Iterable[str]
) -> tuple[str, ...]:
    """Return a line for each kind of stage that would wait for ever: no machine is large enough.

    Args:
        resources: What the sweep's stages need.
        nodes: The machines; at least one.
        kinds: Kinds of stages that are to run.
    """
    has_gpus = any(node.gpus for node in nodes)
    problems = []
    for kind in kinds:
        needs = requested(
            resources.for_kind(kind, has_gpus=has_gpus),
            nodes,
            is_exclusive=resources.is_exclusive(kind),
        )
        if n_places(nodes, needs) == 0:
            of_model = [node for node in nodes if node.accelerator == needs.accelerator]
            largest = max(of_model or nodes, key=lambda node: (node.gpus, node.cpus))
            problems.append(
                f"resources.{kind} must fit one machine, got {_in_words(needs)} where the largest "
                f"has {_in_words(largest)}; ask for less, add a machine that large, or wait for "
                "one to join with --wait-for-machines"
            )
    return tuple(problems)


def _in_words(what: StageResources | Node) -> str:
    words = [f"{what.cpus:g} CPUs", f"{what.gpus or 0:g} GPUs"]
    if what.accelerator is not None:
        words[1] += f" ({what.accelerator})"
    if what.memory_gib is not None:
        words.append(f"{what.memory_gib:.1f} GiB")
    return ", ".join(words)

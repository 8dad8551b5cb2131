"""What a kind of stage is: one value says all that the rest of the project asks of it.

A new kind is one module with such a value in `workers.stages`, and one line in
`workers.stages.table`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from workers.job import Job
from workers.stages.context import StageContext
from workers.task import DataSource, Outcome
from workers.work import DataSize, Sections, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class StageKind:
    """A kind of stage.

    Attributes:
        name: Its name: folder of the store, section of ``resources``, word of every screen.
        version: Part of every key; raise it whenever the stage's results change.
        section: Section of ``stages`` in a sweep file that holds its settings.
        settings: Class of that section.
        inputs: Called as ``inputs(job, source, genotype)``: what its key is made of, beside kind,
            version and parents, as plain values. The genotype is JSON, empty without cells.
        run: Computes it: writes its files into the context's folder and returns the outcome.
        work: Called as ``work(sections, size, data)``: how much there is to do, from the settings
            that its key or its job holds, the rows of a slice and the size of the data.
        axes: Axes of a sweep that its result depends on, for people.
        varies_with: What of an arm its seconds and memory depend on: the ``pruner``, whether the
            network has ``cells``, or nothing.
        uses_gpu: Whether it gets a GPU where there is one.
        is_timed: Whether it gets its device to itself (``resources.exclusive_search``).
        is_on_demand: Whether it is computed only for a missing stage that builds on it.
        promises: Names that its outcome must hold, because later keys or estimates need them.
        files: Its files that tables and curves are made of.
        columns: Name in the outcome → column of the table ``jobs``.
    """

    name: str
    version: int
    section: str
    settings: type
    inputs: Callable[[Job, DataSource, str], dict[str, Any]]
    run: Callable[[StageContext], Outcome]
    work: Callable[[Sections, int, DataSize], Work]
    axes: tuple[str, ...] = ("dataset", "backbone", "pruner", "seed")
    varies_with: Literal["", "pruner", "cells"] = ""
    uses_gpu: bool = True
    is_timed: bool = False
    is_on_demand: bool = False
    promises: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    def needs_backbone(self) -> bool:
        """Whether it runs a network."""
        return "backbone" in self.axes

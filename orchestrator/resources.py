"""What each kind of stage asks of a machine. Nothing here changes a result."""

from dataclasses import dataclass, field, make_dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from iac_core.config import require_at_least, require_positive
from workers.lease import TIME_TO_LIVE_S
from workers.stages.table import STAGES

_FORBID_UNKNOWN: dict[str, Any] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResources:
    """What one stage needs.

    Attributes:
        cpus: CPUs reserved, fractions allowed.
        gpus: GPUs reserved, fractions allowed; None is one if the cluster has any and the stage
            can use it, or less where it is known to suffice (`ResourceSettings.pack`).
        memory_gib: Memory reserved; None is what is known to suffice, or none.
        accelerator: Model of GPU that it needs, as Ray's label ``ray.io/accelerator-type`` names
            it, such as ``A100``; None is any.
        timeout_min: Minutes that one attempt may take, fractions allowed; then it checkpoints and
            fails as ``timeout``, and the next run goes on. None is no limit.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    cpus: float = 1.0
    gpus: float | None = None
    memory_gib: float | None = None
    accelerator: str | None = None
    timeout_min: float | None = None

    def __post_init__(self) -> None:
        require_positive(cpus=self.cpus, memory_gib=self.memory_gib, timeout_min=self.timeout_min)
        require_at_least(0, gpus=self.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralResources:
    """What the stages of a sweep need, beside one entry for each kind (`ResourceSettings`).

    Attributes:
        cpus: CPUs of the cluster that is started on this machine; None is all of them.
        threads: Threads of torch in a stage; None is its whole CPUs, at least 1. The result of a
            stage is the same bit for bit only with the same number of threads.
        lease_s: A process that computes a stage counts as dead after so many seconds without a
            sign of life, if it is not known to be gone; then another takes the stage over.
        exclusive_search: Whether a search gets its device to itself: a whole GPU, or on a machine
            without one all of the CPUs. Seconds are compared only then.
        pack: Whether stages reserve what stages like them took at most, measured once and kept
            with a margin, so that several share a GPU; otherwise each gets a whole one.
        quarantine_after: A stage is not tried again once so many attempts in a row, over all runs,
            have failed or died without getting further than those before.
    """

    __pydantic_config__: ClassVar = _FORBID_UNKNOWN
    cpus: int | None = None
    threads: int | None = None
    lease_s: float = TIME_TO_LIVE_S
    exclusive_search: bool = True
    pack: bool = True
    quarantine_after: int = 5

    def __post_init__(self) -> None:
        require_at_least(
            1,
            cpus=self.cpus,
            threads=self.threads,
            lease_s=self.lease_s,
            quarantine_after=self.quarantine_after,
        )

    def of(self, kind: str) -> StageResources:
        """Return what the sweep says that a kind of stage needs."""
        needs: StageResources = getattr(self, kind)
        return needs

    def for_kind(self, kind: str, *, has_gpus: bool) -> StageResources:
        """Return the needs of a kind of stage with the GPUs filled in."""
        needs = self.of(kind)
        if needs.gpus is not None:
            return needs
        return replace(needs, gpus=1.0 if has_gpus and STAGES[kind].uses_gpu else 0.0)

    def is_exclusive(self, kind: str) -> bool:
        """Whether a kind of stage gets its device to itself."""
        return STAGES[kind].is_timed and self.exclusive_search

    def threads_of(self, needs: StageResources) -> int:
        """Return the threads of torch for a stage: the given number, or its whole CPUs."""
        return self.threads if self.threads is not None else max(1, int(needs.cpus))


def _needs_of(kind: str) -> StageResources:
    """What a kind of stage needs if a sweep does not say it."""
    return StageResources() if STAGES[kind].uses_gpu else StageResources(gpus=0.0)


if TYPE_CHECKING:

    class ResourceSettings(GeneralResources):
        """What the stages of a sweep need: `GeneralResources`, and a `StageResources` a kind."""

        def __init__(self, **settings: Any) -> None: ...  # noqa: ANN401

else:
    ResourceSettings = make_dataclass(
        "ResourceSettings",
        [
            (kind, StageResources, field(default_factory=partial(_needs_of, kind)))
            for kind in STAGES
        ],
        bases=(GeneralResources,),
        frozen=True,
        slots=True,
        kw_only=True,
    )
    ResourceSettings.__module__ = __name__
    ResourceSettings.__doc__ = "What the stages of a sweep need: see `GeneralResources`."

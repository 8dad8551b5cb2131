"""Claims that a sweep declares before it runs: one family, judged together. Imports nothing."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

ClaimKind = Literal["different", "better", "not_inferior", "equivalent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a sweep sets out to show of two arms.

    Attributes:
        arm: Value of the pruner axis.
        reference: The arm that it is compared with.
        kind: ``different`` (two-sided), ``better`` (one-sided), ``not_inferior`` (one-sided, by
            less than the margin) or ``equivalent`` (both ways, by less than the margin).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    arm: str
    reference: str
    kind: ClaimKind = "different"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """The family of claims of a sweep, and when it was declared.

    Attributes:
        claims: The family.
        n_jobs_done: Jobs that were done when it was declared; None if nobody noted it.
    """

    claims: tuple[Claim, ...] = ()
    n_jobs_done: int | None = None

    @property
    def when(self) -> str:
        """When it was declared, as a sentence."""
        if self.n_jobs_done is None:
            return "When they were declared is not on record."
        if self.n_jobs_done == 0:
            return "They were declared before any job was done."
        return (
            f"They were declared or changed when {self.n_jobs_done} jobs were done, so the "
            "verdicts are exploratory."
        )

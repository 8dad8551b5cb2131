"""What the values of the pruner axis stand for: a sweep may call the full search ``full``."""

from collections.abc import Sequence

import pandas as pd

FULL_SEARCH = "none"
"""Type of the arm that searches without pruning."""
REFERENCES = (FULL_SEARCH, "no_cell", "no_cell_longer", "random")
"""Types of the arms that others are compared with, where nothing is declared."""
_FIRST = ("no_cell", "no_cell_longer", "random", FULL_SEARCH)


class ArmTypes:
    """The types of the arms of a sweep; in tables of older versions an arm is called by its type.

    Args:
        jobs: Rows of the table ``jobs``.
    """

    def __init__(self, jobs: pd.DataFrame) -> None:
        self._arms = [str(arm) for arm in jobs["pruner"].dropna().unique()]
        self._types: dict[str, str] = {}
        if "arm_type" in jobs:
            known = jobs[["pruner", "arm_type"]].dropna().drop_duplicates()
            self._types = dict(
                zip(known["pruner"].astype(str), known["arm_type"].astype(str), strict=True)
            )

    def of(self, arm: str) -> str:
        """Return the type of an arm."""
        return self._types.get(arm, arm)

    def is_full_search(self, arm: str) -> bool:
        """Whether an arm searches without pruning."""
        return self.of(arm) == FULL_SEARCH

    def the_one(self, arm_type: str, arms: Sequence[str] | None = None) -> str | None:
        """Return the arm of a type, None if there is none or no single one.

        Args:
            arm_type: The type; of several arms the one that is called like it counts.
            arms: Where to look; None is all of the sweep's.
        """
        found = [arm for arm in (self._arms if arms is None else arms) if self.of(arm) == arm_type]
        if arm_type in found:
            return arm_type
        return found[0] if len(found) == 1 else None

    def in_order(self, arms: Sequence[str]) -> list[str]:
        """Return arms as a report orders them: those that others are compared with first."""
        first = [arm for each in _FIRST if (arm := self.the_one(each, arms)) is not None]
        return [*first, *sorted(set(arms) - set(first))]

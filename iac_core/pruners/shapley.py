"""Pruning by Shapley values: operations whose removal costs the supernet least go, round by round.

Source: the abstract of the Shapley-guided pruning paper (iterative pruning of low-impact
components by estimated Shapley values on held-out data; architecture parameters are kept). The
schedule, the number of permutations, truncation and momentum follow Shapley-NAS's code where that
has them and are our choice otherwise (rows 26 to 32); the cap on the cost and stopping on a
significant ranking are ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from iac_core.config import SearchPace, require, require_at_least, require_positive
from iac_core.pruners.ranking import removable, weakest
from iac_core.pruners.shapley_values import (
    Sampling,
    ShapleyEstimate,
    evaluations_of_a_sample,
    sample_shapley_values,
)
from iac_core.seeding import numpy_generator
from iac_core.types import Decision, Reason, Scoring, SearchState

FORWARDS_PER_TRAINED_SLICE = 2
"""Forward passes that one forward and backward pass counts as in the cap on the cost: measured on
a CPU, where the frozen backbone's weights need no gradients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapleySettings:
    """Rounds of scoring and pruning.

    Attributes:
        every_epochs: A round after every so many epochs, from the end of the warm-up (row 31).
        min_permutations: A round waits for the next epoch until it can afford so many.
        max_permutations: Permutations in a round, at most (row 27).
        antithetic: Each permutation comes with its reverse.
        truncation: A permutation ends below this share of the whole's value (row 28); 0 is never.
        significance: Standard errors of a difference that decide between two operations; a round
            ends once every edge is decided. 0 always samples `max_permutations`.
        max_cost_share: Cap on all scoring so far, as a share of the search so far, both in forward
            passes of a slice (a slice trained on counts two).
        n_slices: Validation slices that a coalition is scored on (row 26).
        fresh_draws: Whether each sample has a draw of its own, else one draw serves all.
        measure: Validation Dice, or the negative loss (also defined where Dice is flat).
        momentum: Of the standardised values over rounds, in [0, 1).
        subtract_deviation: Score by mean − standard deviation over samples, the heuristic of
            Shapley-NAS, instead of the mean (row 29).
        candidate_share: Only this share of an edge's operations, those of least importance, are
            players; the others count as present. 1 scores all.
        removal: ``weakest`` removes one operation of each edge in a round; ``unneeded`` removes
            the weaker half of an edge's players, and those of the others whose value is not above
            0 by `significance` standard errors.
        pace: How the epochs of the search are run.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    every_epochs: int = 5
    min_permutations: int = 2
    max_permutations: int = 10
    antithetic: bool = True
    truncation: float = 0.5
    significance: float = 2.0
    max_cost_share: float = 0.25
    n_slices: int = 256
    fresh_draws: bool = True
    measure: Literal["dice", "negative_loss"] = "dice"
    momentum: float = 0.8
    subtract_deviation: bool = False
    candidate_share: float = 1.0
    removal: Literal["weakest", "unneeded"] = "weakest"
    pace: SearchPace = field(default_factory=SearchPace)

    def __post_init__(self) -> None:
        require_at_least(
            1,
            every_epochs=self.every_epochs,
            min_permutations=self.min_permutations,
            max_permutations=self.max_permutations,
            n_slices=self.n_slices,
        )
        require_at_least(2 if self.antithetic else 1, min_permutations=self.min_permutations)
        require(
            self.max_permutations >= self.min_permutations,
            "max_permutations must be at least min_permutations",
            self.max_permutations,
        )
        require_at_least(0, significance=self.significance)
        require_positive(max_cost_share=self.max_cost_share, candidate_share=self.candidate_share)
        require(self.n_slices <= 256, "n_slices must be at most 256", self.n_slices)
        require(0 <= self.truncation < 1, "truncation must be within 0 to 1", self.truncation)
        require(
            self.truncation == 0 or self.measure == "dice",
            "truncation must be 0 with measure negative_loss, whose values are below 0",
            self.truncation,
        )
        require(0 <= self.momentum < 1, "momentum must be within 0 to 1", self.momentum)
        require(
            self.candidate_share <= 1, "candidate_share must be at most 1", self.candidate_share
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapleyFastSettings(ShapleySettings):
    """The settings that aim at the shortest search: other defaults, the same rules.

    A short warm-up with a faster alpha, and few cheap samples of the operations that alpha ranks
    below the middle; most of them go, unless their value speaks for them. Our choice throughout.
    """

    every_epochs: int = 2
    min_permutations: int = 4
    max_permutations: int = 4
    antithetic: bool = False
    truncation: float = 0.0
    significance: float = 1.0
    max_cost_share: float = 0.5
    n_slices: int = 4
    measure: Literal["dice", "negative_loss"] = "negative_loss"
    momentum: float = 0.0
    candidate_share: float = 0.5
    removal: Literal["weakest", "unneeded"] = "unneeded"
    pace: SearchPace = field(
        default_factory=lambda: SearchPace(
            alpha_warmup_epochs=2, alpha_rate_factor=2.0, start_share=0.5
        )
    )


Player = tuple[int, int, int]
"""Level, edge, operation."""


class Shapley:
    """The operation pruner (see the module docstring)."""

    Settings: ClassVar[type] = ShapleySettings

    def __init__(self, settings: ShapleySettings) -> None:
        self.settings = settings
        self._scores: dict[str, float] = {}
        self._n_slices_scored = 0
        self._next_round = -1

    @property
    def pace(self) -> SearchPace:
        """How the epochs of the search are to be run."""
        return self.settings.pace

    @property
    def needs_evidence(self) -> bool:
        """Not at all."""
        return False

    def decide(self, state: SearchState) -> Decision:
        """Score and prune if a round is due and can be paid; stop when every edge is decided."""
        if self._next_round < 0:
            self._next_round = state.first_alpha_epoch
        if state.epoch < self._next_round:
            return Decision(keep=state.active)
        players = self._players(state)
        if not players:
            over = Reason(rule="every_edge_decided", value=float(state.active.sum(axis=-1).max()))
            return Decision(keep=state.active, stop=True, reasons=(over,))
        affordable = self._affordable(state)
        per_sample = 2 if self.settings.antithetic else 1
        n_samples = -(-self.settings.min_permutations // per_sample)
        if affordable < n_samples * evaluations_of_a_sample(len(players), self._sampling()):
            return Decision(keep=state.active)
        self._next_round = state.epoch + self.settings.every_epochs
        estimate = self._estimate(state, players, affordable)
        self._n_slices_scored += estimate.n_evaluations * self._n_slices(state)
        scores = self._follow(players, estimate)
        return self._prune(state, players, estimate, scores)

    def state_dict(self) -> dict[str, Any]:
        """Return scores and counters."""
        return {
            "scores": dict(self._scores),
            "n_slices_scored": self._n_slices_scored,
            "next_round": self._next_round,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up scores and counters."""
        self._scores = dict(state["scores"])
        self._n_slices_scored = state["n_slices_scored"]
        self._next_round = state["next_round"]

    def _players(self, state: SearchState) -> list[Player]:
        """The operations to score: on edges that still have a choice, the least important."""
        players = []
        for level, edge in np.ndindex(state.active.shape[:2]):
            active = state.active[level, edge]
            n = int(active.sum())
            if n < 2:
                continue
            n_players = max(1, int(n * self.settings.candidate_share))
            ranked = weakest(state.importance[level, edge], active, n_players)
            free = removable(ranked, state.active[level], edge, state.edges, state.operations)
            # Scored together, so that a comparison within the edge is fair; pruned if free.
            players += [(level, edge, operation) for operation in sorted(ranked) if free]
        return players

    def _affordable(self, state: SearchState) -> int:
        """Coalitions that the cap still allows."""
        budget = self.settings.max_cost_share * FORWARDS_PER_TRAINED_SLICE * state.n_slices_trained
        return int((budget - self._n_slices_scored) / self._n_slices(state))

    def _n_slices(self, state: SearchState) -> int:
        """Slices that a coalition is scored on: what the patients give, at most the setting."""
        return min(self.settings.n_slices, state.n_scoring_slices)

    def _estimate(
        self, state: SearchState, players: list[Player], affordable: int
    ) -> ShapleyEstimate:
        settings = self.settings
        places = np.array(players).T

        def value_of(coalitions: Bool[ndarray, "n players"], draw: int) -> ndarray:
            masks = np.repeat(state.active[None], len(coalitions), axis=0)
            masks[:, places[0], places[1], places[2]] = coalitions
            number = (state.epoch + 1) * settings.max_permutations + draw
            scoring = Scoring(
                n_slices=settings.n_slices,
                draw=number if settings.fresh_draws else 0,
                measure=settings.measure,
            )
            return state.values_of(masks, scoring)

        return sample_shapley_values(
            value_of,
            len(players),
            numpy_generator(state.seed, "shapley", state.epoch),
            self._sampling(),
            is_decided=lambda estimate: self._is_decided(players, estimate),
            max_evaluations=affordable,
        )

    def _sampling(self) -> Sampling:
        return Sampling(
            max_permutations=self.settings.max_permutations,
            antithetic=self.settings.antithetic,
            truncation=self.settings.truncation,
        )

    def _is_decided(self, players: list[Player], estimate: ShapleyEstimate) -> bool:
        """Whether on every edge the weakest player is significantly weaker than the next."""
        if self.settings.significance == 0:
            return False
        for rows in _by_edge(players).values():
            order = rows[np.argsort(estimate.values[rows], kind="stable")]
            if len(order) < 2:
                continue
            gap = estimate.values[order[1]] - estimate.values[order[0]]
            error = np.hypot(*estimate.standard_error[order[:2]])
            if not gap > self.settings.significance * error:
                return False
        return True

    def _follow(self, players: list[Player], estimate: ShapleyEstimate) -> dict[Player, float]:
        """Standardise the values over all players and join them with those of earlier rounds."""
        values = estimate.values
        if self.settings.subtract_deviation:
            n_samples = estimate.n_permutations / (2 if self.settings.antithetic else 1)
            deviation = estimate.standard_error * np.sqrt(n_samples)
            values = values - np.where(np.isfinite(deviation), deviation, 0.0)
        spread = float(values.std())
        standard = (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
        for player, value in zip(players, standard, strict=True):
            key = ",".join(map(str, player))
            old = self._scores.get(key, 0.0)
            self._scores[key] = self.settings.momentum * old + (
                1 - self.settings.momentum
            ) * float(value)
        return {player: self._scores[",".join(map(str, player))] for player in players}

    def _prune(
        self,
        state: SearchState,
        players: list[Player],
        estimate: ShapleyEstimate,
        scores: dict[Player, float],
    ) -> Decision:
        keep = state.active.copy()
        reasons = []
        for (level, edge), rows in _by_edge(players).items():
            ranked = sorted(rows.tolist(), key=lambda row: (scores[players[row]], players[row]))
            wanted = self._wanted(ranked, estimate)
            candidates = [players[row][2] for row in wanted]
            free = removable(candidates, keep[level], edge, state.edges, state.operations)
            gone = free[:1] if self.settings.removal == "weakest" else free
            if not gone:
                continue
            keep[level, edge, gone] = False
            lowest = next(row for row in ranked if players[row][2] == gone[0])
            reasons.append(
                Reason(
                    rule="shapley_value",
                    value=float(estimate.values[lowest]),
                    threshold=float(estimate.standard_error[lowest]),
                    level=level,
                    edge=edge,
                    operations=tuple(state.operations[index] for index in gone),
                )
            )
        is_over = int(keep.sum(axis=-1).max()) == 1
        reasons.append(
            Reason(
                rule="shapley_cost_share",
                value=self._n_slices_scored
                / (FORWARDS_PER_TRAINED_SLICE * max(1, state.n_slices_trained)),
                threshold=self.settings.max_cost_share,
            )
        )
        return Decision(keep=keep, stop=is_over, reasons=tuple(reasons))

    def _wanted(self, ranked: list[int], estimate: ShapleyEstimate) -> list[int]:
        """Players of an edge that may go, the weakest first."""
        if self.settings.removal == "weakest":
            return ranked
        needed = estimate.values > self.settings.significance * estimate.standard_error
        n_sure = (len(ranked) + 1) // 2
        return [row for place, row in enumerate(ranked) if place < n_sure or not needed[row]]


class ShapleyFast(Shapley):
    """`Shapley` with the defaults of `ShapleyFastSettings`."""

    Settings: ClassVar[type] = ShapleyFastSettings


def _by_edge(players: list[Player]) -> dict[tuple[int, int], Int[ndarray, " n"]]:
    """Rows of the players on each (level, edge)."""
    rows: dict[tuple[int, int], list[int]] = {}
    for row, (level, edge, _) in enumerate(players):
        rows.setdefault((level, edge), []).append(row)
    return {place: np.array(found) for place, found in rows.items()}

"""Random search and successive halving on recorded validation curves, without training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.cell_table.table import RANDOM, CellTable, by_seed, own_percentiles

N_RESAMPLES = 2000
_ETA = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Validation curves of cells that were retrained with the same seeds.

    Attributes:
        scores: Best validation Dice from the starting state until a look, which is what a
            retraining that ends there returns, shape ``(cells, seeds, looks)``.
        epochs: Epochs of retraining until each look; the last look is the end.
    """

    scores: np.ndarray
    epochs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What a search can be expected to pick: means over resamples.

    Attributes:
        n_candidates: Cells that it starts with.
        epochs: Epochs of retraining that it spends.
        dice: Mean Dice over all seeds of what it picks, that of the pick included.
        dice_elsewhere: The same without the seed that it picked by, free of the luck of that one;
            NaN with one seed.
        percentile: Percentile of the mean over all seeds among the other cells.
    """

    n_candidates: int
    epochs: int
    dice: float
    dice_elsewhere: float
    percentile: float


def curves_of(table: CellTable) -> Curves | None:
    """Return the validation curves of the random cells, in the order of `by_seed`.

    None if the curve of a job is missing.

    Raises:
        SystemExit: If the curves were not looked at after the same epochs.
    """
    cells = by_seed(table, RANDOM).index
    rows = table.rows[(table.rows["kind"] == RANDOM) & (table.rows["form"] == table.form)]
    jobs = rows.pivot(index="name", columns="retrain_seed", values="job_id").loc[
        cells, list(table.seeds)
    ]
    scored = table.curves[table.curves["validation_dice"].notna()]
    wide = scored.pivot(index="job_id", columns="epoch", values="validation_dice")
    if not jobs.isin(wide.index).all(axis=None):
        return None
    ordered = wide.loc[jobs.to_numpy().ravel()].sort_index(axis=1).dropna(axis=1, how="all")
    if ordered.isna().any(axis=None):
        raise SystemExit("retrainings must be validated after the same epochs, got several sets")
    epochs = ordered.columns.to_numpy(dtype=int)
    best = np.maximum.accumulate(ordered.to_numpy(dtype=float), axis=1)[:, epochs >= 0]
    return Curves(
        scores=best.reshape(*jobs.shape, -1),
        epochs=tuple(int(epoch) + 1 for epoch in epochs if epoch >= 0),
    )


def rungs(epochs: Sequence[int]) -> tuple[int, ...]:
    """Return the looks at which successive halving decides, the end last.

    Lengths are halved (eta = 2) from that of the whole retraining; each is the last look until
    then, as a retraining is only validated now and then.

    Examples:
        >>> rungs([4, 8, 12, 16, 20])  # after 4, 8 and 20 epochs
        (0, 1, 4)
    """
    found, length = [len(epochs) - 1], epochs[-1] / _ETA
    while epochs[0] <= length:
        look = max(index for index, epoch in enumerate(epochs) if epoch <= length)
        if look != found[0]:
            found.insert(0, look)
        length /= _ETA
    return tuple(found)


def n_epochs(n_candidates: int, lengths: Sequence[int]) -> int:
    """Return the epochs of a search that halves its candidates after each of some lengths.

    Examples:
        >>> n_epochs(4, [1, 2, 4])  # 4 cells for 1 epoch, 2 for one more, 1 for two more
        8
    """
    parts = zip(lengths, (0, *lengths), strict=False)
    return sum(
        _n_left(n_candidates, rung) * (end - start) for rung, (end, start) in enumerate(parts)
    )


def n_affordable(budget_epochs: float, lengths: Sequence[int], n_cells: int) -> int:
    """Return how many candidates a budget is enough for, at least one, at most all cells."""
    affordable = [n for n in range(1, n_cells + 1) if n_epochs(n, lengths) <= budget_epochs]
    return max(affordable, default=1)


def pick(scores: np.ndarray, looks: Sequence[int]) -> int:
    """Return the candidate that is left: half of them stay at every look, the best at the last.

    Args:
        scores: Shape ``(candidates, looks of the curve)``.
        looks: Looks that decide, the last is the end; that one alone is a random search.
    """
    kept = np.arange(len(scores))
    for rung, look in enumerate(looks[:-1], start=1):
        order = np.argsort(-scores[kept, look], kind="stable")
        kept = kept[order[: _n_left(len(scores), rung)]]
    return int(kept[scores[kept, looks[-1]].argmax()])


def replay(
    curves: Curves,
    dice: np.ndarray,
    budget_epochs: float,
    looks: Sequence[int],
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
) -> Replay:
    """Return what a search at a budget can be expected to pick.

    A resample draws its candidates without repeats, and one of the retraining seeds for all.

    Args:
        curves: Validation curves.
        dice: Dice of the same cells and seeds, shape ``(cells, seeds)``.
        budget_epochs: Epochs of retraining that may be spent.
        looks: Those of `rungs`, or the last look alone for a random search.
        n_resamples: Resamples of the mean.
        seed: Of the resamples.
    """
    generator = np.random.default_rng(seed)
    n_cells, n_seeds = dice.shape
    lengths = [curves.epochs[look] for look in looks]
    n = n_affordable(budget_epochs, lengths, n_cells)
    percentiles, picked = own_percentiles(dice.mean(axis=1)), np.empty((n_resamples, 2), int)
    for resample in picked:
        candidates = generator.choice(n_cells, size=n, replace=False)
        by = int(generator.integers(n_seeds))
        resample[:] = candidates[pick(curves.scores[candidates, by], looks)], by
    cells, seeds = picked.T
    total = dice.sum(axis=1)[cells]
    elsewhere = float(np.mean(total - dice[cells, seeds]))
    return Replay(
        n_candidates=n,
        epochs=n_epochs(n, lengths),
        dice=float(np.mean(total / n_seeds)),
        dice_elsewhere=elsewhere / (n_seeds - 1) if n_seeds > 1 else float("nan"),
        percentile=float(np.mean(percentiles[cells])),
    )


def _n_left(n_candidates: int, rung: int) -> int:
    return max(1, n_candidates // int(_ETA**rung))

"""What simple features of a cell explain of its Dice."""

import numpy as np
import pandas as pd

from iac_core.cells.genotype import Genotype
from iac_core.config import OPERATION_NAMES


def operation_counts(genotypes: list[str]) -> np.ndarray:
    """Return how often each operation but ``none`` stands in each genotype, shape (cells, ops)."""
    names = [name for name in OPERATION_NAMES if name != "none"]
    counts = np.zeros((len(genotypes), len(names)))
    for row, text in zip(counts, genotypes, strict=True):
        for level in Genotype.from_json(text).levels:
            for edge in level:
                row[names.index(edge.operation)] += 1
    return counts


def leave_one_out_r2(features: np.ndarray, values: np.ndarray) -> float:
    """Return how much better a linear regression predicts a left-out value than the mean does.

    1 − Σ (value − its prediction by a regression on the others)² / Σ (value − mean of the
    others)²: 0 for what explains nothing, below 0 for what only fits noise, NaN where all values
    are equal. Features may be collinear, as counts that add up to the edges are.

    Args:
        features: Shape ``(cells, features)``.
        values: Shape ``(cells,)``.

    Examples:
        >>> x = np.arange(6.0)
        >>> round(leave_one_out_r2(x[:, None], 2 * x + 1), 6)
        1.0
    """
    n = len(values)
    scale = features.std(axis=0)
    standard = (features - features.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    design = np.column_stack([np.ones(n), standard])
    errors, deviations = np.empty(n), np.empty(n)
    for left_out in range(n):
        kept = np.arange(n) != left_out
        weights = np.linalg.lstsq(design[kept], values[kept], rcond=None)[0]
        errors[left_out] = values[left_out] - design[left_out] @ weights
        deviations[left_out] = values[left_out] - values[kept].mean()
    total = float((deviations**2).sum())
    return 1 - float((errors**2).sum()) / total if total > 0 else float("nan")


def explained(dice: pd.Series, cells: pd.DataFrame) -> dict[str, float]:
    """Return the leave-one-out R² of operation counts, of parameters and of MACs.

    Args:
        dice: Mean Dice of each cell.
        cells: ``genotype``, ``n_cell_parameters`` and ``n_macs`` of the same cells.
    """
    values = dice.to_numpy(dtype=float)
    return {
        "operation counts": leave_one_out_r2(operation_counts(list(cells["genotype"])), values),
        "parameters": leave_one_out_r2(cells[["n_cell_parameters"]].to_numpy(float), values),
        "MACs": leave_one_out_r2(cells[["n_macs"]].to_numpy(float), values),
    }

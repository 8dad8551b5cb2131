"""Curvature of a loss in the architecture parameters."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.sparse.linalg import LinearOperator, eigsh

_STEP = 1e-2
"""Length of the move over which a gradient is differenced: alpha is of order 1, and a gradient in
float32 carries some six digits."""


def dominant_eigenvalue(
    gradient_at: Callable[[Float[ndarray, " n"]], Float[ndarray, " n"]],
    point: Float[ndarray, " n"],
) -> float:
    """Return the eigenvalue of largest size of the Hessian at a point.

    Lanczos iteration on products of the Hessian with vectors, each the central difference of two
    gradients; so neither second derivatives nor the Hessian itself are formed.

    Args:
        gradient_at: The gradient of the loss.
        point: Where; at least two parameters.

    Examples:
        >>> matrix = np.array([[2.0, 1.0, 0.0], [1.0, -5.0, 0.0], [0.0, 0.0, 1.0]])
        >>> round(dominant_eigenvalue(lambda x: matrix @ x, np.zeros(3)), 4)
        -5.1401
    """

    def product(vector: ndarray) -> ndarray:
        direction = vector.ravel() / np.linalg.norm(vector)
        ahead, behind = (gradient_at(point + sign * _STEP * direction) for sign in (1, -1))
        curved: ndarray = (ahead - behind) / (2 * _STEP) * np.linalg.norm(vector)
        return curved

    n = len(point)
    operator = LinearOperator((n, n), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).normal(size=n)
    values = eigsh(
        operator, k=1, which="LM", v0=start, tol=1e-2, maxiter=30, return_eigenvectors=False
    )
    return float(values[0])

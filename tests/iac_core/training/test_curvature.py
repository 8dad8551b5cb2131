import numpy as np
import pytest

from iac_core.training.curvature import dominant_eigenvalue


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_eigenvalue_of_largest_size_of_a_quadratic(seed):
    generator = np.random.default_rng(seed)
    matrix = generator.normal(size=(30, 30))
    matrix = matrix + matrix.T
    matrix[0, 0] += 60 * (-1) ** seed
    values = np.linalg.eigvalsh(matrix)
    expected = values[np.abs(values).argmax()]
    point = generator.normal(size=30)
    found = dominant_eigenvalue(lambda x: matrix @ x, point)
    assert found == pytest.approx(expected, rel=0.02)


def test_it_is_taken_at_the_point():
    found = [dominant_eigenvalue(lambda x: 4 * x**3, np.full(3, value)) for value in (1.0, 2.0)]
    assert found == pytest.approx([12.0, 48.0], rel=0.02)

"""One seed in, independent generators out.

A generator is derived from the seed and a path of names and numbers (stage, purpose, epoch), so a
resumed stage needs no saved generator state: epoch 17 draws the same numbers in any process.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for one purpose.

    Args:
        seed: The job's seed.
        path: What the numbers are for, for example ``("search", "weights", 17)``.

    Examples:
        >>> derive_seed(0, "search", 1) == derive_seed(0, "search", 1)
        True
        >>> derive_seed(0, "search", 1) == derive_seed(0, "search", 2)
        False
    """
    digest = hashlib.sha256(repr((seed, *path)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(seed: int, *path: str | int) -> "torch.Generator":
    """Return a CPU generator for one purpose (see `derive_seed`)."""
    import torch  # here, so that planning a sweep does not wait for it

    return torch.Generator().manual_seed(derive_seed(seed, *path))


def numpy_generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return a NumPy generator for one purpose (see `derive_seed`)."""
    return np.random.default_rng(derive_seed(seed, *path))

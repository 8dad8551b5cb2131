"""Fixtures that more than one folder of tests uses."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real volumes, or a skip that says how to get it."""
    root = os.environ.get("IAC_TEST_DATA", "")
    if not root or not Path(root).is_dir():
        pytest.skip("no real volumes: set IAC_TEST_DATA to the folder that holds acdc_subset")
    return Path(root)

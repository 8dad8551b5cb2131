"""nnU-Net in a process of its own that runs out of GPU memory."""

import importlib.util

import pytest

from iac_core.errors import ConfigError
from iac_core.nnunet.run_apart import run_apart
from iac_core.types import SilentReporter
from workers.failures import TRIES, kind_of

# What the process prints and how it ends when the error of a full GPU leaves nnU-Net's trainer.
FULL = """
import os, sys, traceback
if "iac_core.nnunet.commands" in sys.orig_argv:
    import torch
    try:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    except RuntimeError:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
"""


@pytest.mark.skipif(not importlib.util.find_spec("nnunetv2"), reason="nnU-Net is not installed")
def test_a_full_gpu_is_a_setting_of_nnunet_with_its_way_out(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(FULL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    places = {name: tmp_path / name for name in ("raw", "preprocessed", "results")}
    with pytest.raises(ConfigError, match="plan for less with gpu_memory_gb of the backbone") as e:
        run_apart("train", {}, tmp_path, places=places, n_processes=1, reporter=SilentReporter())
    assert "CUDA out of memory. Tried to allocate" in str(e.value)
    assert kind_of(e.value) not in TRIES

"""Cells in nnU-Net's own network, trained by its own trainer, on real volumes."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from iac_core.backbones.nnunet_unet import NnunetUNet
from iac_core.errors import ConfigError

ROOT = Path(__file__).parents[3]
IS_INSTALLED = importlib.util.find_spec("nnunetv2") is not None
needs_nnunet = pytest.mark.skipif(not IS_INSTALLED, reason="nnU-Net: pip install .[nnunet]")


def raw_folder(real_data, work, n):
    source = real_data / "msd_hippocampus" / "Task04_Hippocampus"
    root = work / "raw" / "Dataset004_Hippocampus"
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir(parents=True)
    for label in sorted((source / "labelsTr").iterdir())[:n]:
        case = label.name.removesuffix(".nii.gz")
        shutil.copyfile(
            source / "imagesTr" / label.name, root / "imagesTr" / f"{case}_0000.nii.gz"
        )
        shutil.copyfile(label, root / "labelsTr" / label.name)
    header = {
        "channel_names": {"0": "MRI"}, "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
        "numTraining": n, "file_ending": ".nii.gz",
    }  # fmt: skip
    (root / "dataset.json").write_text(json.dumps(header))


@pytest.mark.slow
@needs_nnunet
def test_cells_train_in_the_network_of_nnunets_own_trainer(real_data, tmp_path):
    raw_folder(real_data, tmp_path, 12)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "nnUNet_compile": "f",
        "nnUNet_def_n_proc": "1",
        **{f"nnUNet_{name}": str(tmp_path / name) for name in ("raw", "preprocessed", "results")},
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "support" / "nnunet_round.py", tmp_path],
        env=environment, capture_output=True, text=True, check=False, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["n_skips"] >= 2
    assert found["equal_before_training"] == [True] * found["n_skips"]
    assert found["gates_before"] == [0.0] * found["n_skips"]
    assert all(gate > 0 for gate in found["gates_after"])
    assert found["backbone_unmoved"]
    assert found["predictions"] == found["validation"]
    assert 0 <= found["dice"] <= 1


def test_a_network_that_is_not_nnunets_is_refused():
    with pytest.raises(ConfigError, match="got Sequential without stages"):
        NnunetUNet(nn.Sequential(nn.Conv2d(1, 1, 1)), n_channels=1)


@needs_nnunet
@pytest.mark.parametrize("kind", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_the_host_gives_the_logits_of_the_network_at_every_level(kind):
    from dynamic_network_architectures.architectures import unet

    blocks = {"n_conv_per_stage": 2} if kind == "PlainConvUNet" else {"n_blocks_per_stage": 2}
    network = getattr(unet, kind)(
        1, 4, [8, 16, 16, 16], nn.Conv2d, 3, [1, 2, 2, 2], num_classes=3,
        n_conv_per_stage_decoder=2, conv_bias=True, norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, deep_supervision=True, **blocks,
    ).eval()  # fmt: skip
    host = NnunetUNet(network, n_channels=1).eval()
    images = torch.randn(2, 1, 48, 40)
    with torch.no_grad():
        expected = network(images)
        found = host.decode_levels(host.encode(images))
        assert len(found) == len(expected) == 3
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        assert torch.equal(host(images), expected[0])
    assert [site.stride for site in host.sites] == [1, 2, 4]
    assert not any(name.startswith("decoder.encoder") for name in host.state_dict())

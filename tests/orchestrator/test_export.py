"""A finished job leaves the project and comes back with the same logits."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_line import CommandLine
from monai.networks.nets import BasicUNet
from safetensors.torch import load_file

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.errors import ConfigError, UnknownNameError
from iac_core.exported import ExportedCells
from orchestrator.executors import InlineExecutor
from orchestrator.export import export_sweep
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep

ROOT = Path(__file__).parents[2]


@pytest.fixture
def session(write_sweep, tmp_path):
    """A finished sweep with a job without cells and one with them."""
    sweep = write_sweep("[no_cell, js_stability]")
    found = open_sweep(sweep, {}, tmp_path / "runs", needs_data=True)
    run_sweep(
        found.expansion.jobs,
        found.room(),
        InlineExecutor(),
        view=View(),
        on_job_end=lambda end: None,
    )
    return found


def backbone():
    return build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=4, seed=5)


def images(n=2, size=32):
    return torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:No complete tensor found:UserWarning")  # torch.export.load
def test_exported_cells_in_the_exported_network_give_the_logits_of_the_programs(session, tmp_path):
    (written,) = export_sweep(session, tmp_path / "out", [], ["onnx", "torch_export"])
    assert set(written.differences) == {"onnx", "torch_export"}
    assert max(written.differences.values()) < 1e-4
    cells = ExportedCells.load(written.folder)
    network = cells.implant_into(backbone()).eval()
    state = load_file(written.folder / "network.safetensors")
    for name, value in network.state_dict().items():
        if not name.startswith("implant.backbone."):
            assert torch.equal(value, state[name])
    network.load_state_dict(state)
    with torch.no_grad():
        expected = network(images(5))
        program = torch.export.load(written.folder / "network.pt2").module()
        assert torch.allclose(program(images(5)), expected, atol=1e-4)
    import onnxruntime

    session_ = onnxruntime.InferenceSession(
        written.folder / "network.onnx", providers=["CPUExecutionProvider"]
    )
    (logits,) = session_.run(None, {"images": images(5).numpy()})
    assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-4)


def test_a_description_says_what_the_network_was_made_of(session, tmp_path):
    (written,) = export_sweep(session, tmp_path / "out", [], [])
    raw = json.loads((written.folder / "description.json").read_text())
    assert raw["job"]["pruner"] == "js_stability"
    assert raw["data"]["classes"] == {"RV": [1], "MYO": [2], "LV": [3]}
    assert raw["data"]["preparation"]["size"] == 32
    assert raw["sites"] == [{"skip_channels": 8, "decoder_channels": 8, "stride": 1}]
    assert set(raw["stages"]) == {"prepare", "pretrain", "retrain", "evaluate"}
    assert raw["outcomes"]["evaluate"]["n_macs"] > 0
    assert sorted(path.name for path in written.folder.iterdir()) == [
        "cells.safetensors", "description.json", "network.safetensors",
    ]  # fmt: skip


def test_an_export_is_written_whole_or_not_at_all(session, tmp_path, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("iac_core.exported.save_file", full)
    with pytest.raises(OSError, match="No space"):
        list(export_sweep(session, tmp_path / "out", [], []))
    assert list((tmp_path / "out").iterdir()) == []


def test_a_damaged_stage_stops_no_other_export(write_sweep, tmp_path, monkeypatch, capsys):
    command = CommandLine(monkeypatch, capsys)
    sweep = write_sweep("[random, js_stability]")
    assert command("run", sweep, "--inline", cwd=tmp_path).code == 0
    first, second = sorted((tmp_path / "runs" / "store" / "retrain").glob("*/weights.pt"))
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 8
    first.write_bytes(content)
    # A process of its own: this one has looked at the checksums before.
    words = [sys.executable, "-m", "orchestrator", "export", str(sweep), "--into", "out"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert str(first.parent) in done.stderr
    assert str(second.parent) not in done.stderr
    assert "nothing was started" not in done.stderr
    assert len(list((tmp_path / "out").glob("phantom-*"))) == 1


def test_what_cannot_be_exported_says_why(session, tmp_path):
    into = tmp_path / "out"
    with pytest.raises(UnknownNameError, match="unknown program 'onxx'; did you mean 'onnx'"):
        list(export_sweep(session, into, [], ["onxx"]))
    with pytest.raises(
        ConfigError, match="start of one finished job's id, got 'zz', which fits 0"
    ):
        list(export_sweep(session, into, ["zz"], []))
    list(export_sweep(session, into, [], []))
    with pytest.raises(ConfigError, match="new folder"):
        list(export_sweep(session, into, [], []))


def test_cells_of_other_channels_go_in_with_fresh_weights_alone(session, tmp_path):
    (written,) = export_sweep(session, tmp_path / "out", [], [])
    cells = ExportedCells.load(written.folder)
    network = BasicUNet(2, 1, 4, features=(4, 4, 8, 8, 8, 4))
    skips = [("upcat_1", 1), ("upcat_2", 1), ("upcat_3", 1), ("upcat_4", 1)]
    with pytest.raises(ConfigError, match="pass with_weights=False and train the cells"):
        cells.implant_into(network, skips)
    with pytest.raises(ConfigError, match="name them with `skips`"):
        cells.implant_into(network)
    # Gates that start at zero, so that fresh cells change nothing.
    settings = replace(cells.settings, form="residual", start="plain")
    added = replace(cells, settings=settings)
    implanted = added.implant_into(network, skips, with_weights=False)
    with torch.no_grad():
        plain = network.eval()(images(size=64))
        assert torch.equal(implanted.eval()(images(size=64)), plain)


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="write one with `orchestrator export`"):
        ExportedCells.load(tmp_path)


def test_the_example_of_the_readme_runs(session, tmp_path, monkeypatch):
    (written,) = export_sweep(session, tmp_path / "exported", [], [])
    written.folder.rename(tmp_path / "exported" / "JOB")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (code,) = (block for block in blocks if "implant_into(" in block)
    names = {}
    exec(code, names)
    assert names["logits"].shape == (1, 4, 64, 64)

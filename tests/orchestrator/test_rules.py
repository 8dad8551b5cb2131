"""What `run` refuses, `plan` and `doctor` say too: before anything starts, with the way out."""

import shutil
import sys

import pytest
from command_line import CommandLine

COMMANDS = (("run", "--inline"), ("plan",), ("doctor",))
PLAIN = "    backbones: {unet: {widths: [8, 16]}}\n"

NETWORKS = """
import sys
from torch import nn

class NoNetwork:
    def __init__(self, in_channels, classes): pass

class Wide(nn.Module):
    def __init__(self, in_channels, classes):
        super().__init__()
        self.last = nn.Conv2d(in_channels, classes + 1, 1)
    def forward(self, x): return self.last(x)

class Raises(nn.Module):
    def __init__(self, in_channels, classes):
        super().__init__()
        raise ValueError("no such depth")

class Exits(nn.Module):
    def __init__(self, in_channels, classes):
        super().__init__()
        sys.exit("usage: networks.py")

class Stubborn(nn.Module):
    def __init__(self, in_channels, classes):
        super().__init__()
        self.last = nn.Conv2d(in_channels, classes, 1)
    def forward(self, x):
        if x.shape[-1] != 64:
            raise RuntimeError("64 x 64 alone")
        return self.last(x)

class LooksAtValues(nn.Module):
    def __init__(self, in_channels, classes):
        super().__init__()
        self.last = nn.Conv2d(in_channels, classes, 1)
        assert self.last.weight.abs().max().item() > 0
    def forward(self, x): return self.last(x)
"""


@pytest.fixture
def call(monkeypatch, capsys):
    return CommandLine(monkeypatch, capsys)


@pytest.fixture
def refused(call, tmp_path):
    """A function that asks every command about a sweep, and checks that each says the same."""

    def ask(sweep, *said, words=()):
        for command in COMMANDS:
            done = call(*command, sweep, *words, cwd=tmp_path)
            assert done.code == (1 if command[0] == "doctor" else 2), (command, done)
            text = done.out if command[0] == "doctor" else done.err
            for part in said:
                assert part in text, (command, text)
        assert not (tmp_path / "runs" / "store" / "prepare").exists()

    return ask


def with_network(sweep, target):
    text = f'    backbones: {{unet: {{type: external, target: "{target}"}}}}\n'
    assert PLAIN in sweep.read_text()
    sweep.write_text(sweep.read_text().replace(PLAIN, text))
    return sweep


@pytest.fixture
def networks(tmp_path, monkeypatch):
    (tmp_path / "networks_of_a_user.py").write_text(NETWORKS)
    (tmp_path / "broken_code.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("networks_of_a_user", "broken_code"):
        sys.modules.pop(name, None)


def test_too_few_patients_for_the_folds(write_sweep, tmp_path, phantom_folder, refused, call):
    folder = tmp_path / "three"
    shutil.copytree(phantom_folder, folder)
    for path in sorted((folder / "training").iterdir())[3:]:
        shutil.rmtree(path)
    words = ("--data", f"phantom={folder}")
    refused(write_sweep(), "as many patients as folds (4), got 3", "lower n_folds", words=words)
    done = call("data", "check", f"acdc={folder}", cwd=tmp_path)
    assert "as many patients as folds (5), got 3" in done.err


def test_more_training_patients_than_there_are(write_sweep, refused):
    sweep = write_sweep()
    sweep.write_text(sweep.read_text().replace("n_folds: 4", "n_folds: 4, n_train_patients: 70"))
    refused(sweep, "n_train_patients must be at most the split's", "got 70; lower it")


def test_a_missing_package_of_nnu_net(write_sweep, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "nnunetv2", None)
    sweep = write_sweep("[no_cell]")
    sweep.write_text(sweep.read_text().replace("backbone: [unet]", "backbone: [unet, nnunet]"))
    refused(sweep, "nnU-Net must be installed", "pip install")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_package:Net", "target must be importable on every worker"),
        ("networks_of_a_user:Nothing", "target must be importable on every worker"),
        ("broken_code:Net", "got SyntaxError"),
        ("networks_of_a_user:NoNetwork", "must return a torch module, got NoNetwork"),
        ("networks_of_a_user:Wide", "logits of 4 classes, got the shape (1, 5, 32, 32)"),
        ("networks_of_a_user:Raises", "got ValueError: no such depth"),
        (
            "networks_of_a_user:Stubborn",
            "take a slice of 32 × 32 pixels, got RuntimeError: 64 x 64",
        ),
        ("networks_of_a_user:Exits", "got SystemExit: usage: networks.py"),
    ],
)
def test_a_network_of_the_user_that_cannot_be_used(target, said, write_sweep, refused, networks):
    refused(with_network(write_sweep("[no_cell]"), target), "backbones.unet", said)


def test_a_network_of_the_user_that_looks_at_its_values_is_built_all_the_same(
    write_sweep, call, tmp_path, networks
):
    sweep = with_network(write_sweep("[no_cell]"), "networks_of_a_user:LooksAtValues")
    assert call("plan", sweep, cwd=tmp_path).code == 0


def test_a_gpu_where_there_is_none(write_sweep, call, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    sweep = write_sweep()
    sweep.write_text(sweep.read_text().replace("cpus: 2,", "cpus: 2, search: {gpus: 1},"))
    said = "resources.search must fit one machine, got 1 CPUs, 1 GPUs"
    assert said in call("plan", sweep, cwd=tmp_path).out
    done = call("doctor", sweep, cwd=tmp_path)
    assert (done.code, said in done.out) == (1, True)
    done = call("run", sweep, "--inline", cwd=tmp_path)
    assert (done.code, said in done.err) == (2, True)


def test_networks_that_run_has_built_are_not_built_again(write_sweep, tmp_path, monkeypatch):
    from orchestrator import rules
    from orchestrator.session import open_sweep

    built = []
    build = rules.build_backbone
    monkeypatch.setattr(
        rules, "build_backbone", lambda *words, **more: built.append(1) or build(*words, **more)
    )
    for expected in (1, 1):
        open_sweep(write_sweep(), {}, tmp_path / "runs", needs_data=True)
        assert len(built) == expected

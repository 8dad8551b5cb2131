"""Fixtures that more than one folder of tests uses."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import hypothesis
import psutil
import pytest
import torch
from s3_server import S3Server, new_bucket
from tiny_sweep import TINY_SWEEP
from xdist.scheduler import LoadFileScheduling

from iac_core.config import PrepareSettings, SplitSettings
from iac_core.data.acdc import Acdc
from iac_core.data.phantom import PhantomSettings, write_phantom
from iac_core.data.prepare import prepare
from iac_core.data.slices import PreparedData
from iac_core.data.splits import make_split
from iac_core.training.fit import TrainingRoom
from iac_core.types import SilentReporter

# A busy machine is no reason to fail; what hangs ends by the time limit of a test.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")
INTEGRATION = "tests/integration/"
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def pytest_collection_modifyitems(items):
    """Begin with what takes longest."""
    items.sort(key=lambda item: not item.nodeid.startswith(INTEGRATION))


def pytest_xdist_make_scheduler(config, log):
    """Two processes: clusters, servers and kills in one of them, one test after the other."""
    return IntegrationInOneProcess(config, log)


class IntegrationInOneProcess(LoadFileScheduling):
    """Files go to whichever process is free, those of the integration tests together."""

    def _split_scope(self, nodeid):
        if nodeid.startswith(INTEGRATION):
            return INTEGRATION
        return super()._split_scope(nodeid)


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


@pytest.fixture(scope="session")
def phantom_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "acdc"
    write_phantom(folder, PhantomSettings(n_patients=8))
    return folder


@pytest.fixture(scope="session")
def prepared_folder(phantom_folder, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    settings = PrepareSettings(size=32, spacing_mm=5.0)
    prepare(Acdc(phantom_folder), settings, folder, SilentReporter())
    return folder


@pytest.fixture
def make_room(prepared_folder, tmp_path):
    """A function that returns a training room; each name has a checkpoint of its own."""
    data = PreparedData.open(prepared_folder)
    split = make_split(data.patients, SplitSettings(n_folds=4, validation_share=0.2))

    def make(name: str = "checkpoint", reporter=None, **changes) -> TrainingRoom:
        return TrainingRoom(
            **changes,
            data=data,
            split=split,
            device=torch.device("cpu"),
            checkpoint_path=tmp_path / f"{name}.pt",
            reporter=reporter or SilentReporter(),
        )

    return make


@pytest.fixture
def write_sweep(tmp_path, phantom_folder):
    """A function that writes a sweep of seconds and returns its path."""

    def write(pruners: str = "[none, js_stability]", seeds: str = "[0]", extra: str = "") -> Path:
        text = TINY_SWEEP.replace("PHANTOM", str(phantom_folder))
        path = tmp_path / "tiny.yaml"
        path.write_text(text.replace("PRUNERS", pruners).replace("SEEDS", seeds) + extra)
        return path

    return write


@pytest.fixture(scope="session")
def s3_server():
    """A server of buckets on the loopback."""
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3_root(s3_server, tmp_path, monkeypatch) -> str:
    """A prefix of an empty bucket; environment and cache are set up for it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("IAC_CACHE", str(tmp_path / "cache"))
    return f"s3://{new_bucket()}/hearts"


@pytest.fixture
def own_processes():
    """Words that start a command among processes of its own, which all end with the test.

    ``ray stop`` and ``ray down`` end every Ray process they can see: not those of a developer.
    """
    if os.getuid() != 0 or not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("a process space of its own takes root, unshare and nsenter")
    outer = subprocess.Popen(["unshare", "--pid", "--fork", "--mount-proc", "sleep", "1000000"])
    deadline = time.monotonic() + 10
    while not (inner := psutil.Process(outer.pid).children()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield ["nsenter", "--target", str(inner[0].pid), "--pid", "--mount", "--"]
    inner[0].kill()
    outer.wait()

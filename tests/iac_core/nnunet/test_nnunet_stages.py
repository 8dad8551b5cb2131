"""nnU-Net's pipeline as stages of a sweep, on real volumes: folder to scores, and back."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from iac_core.backbones.nnunet_unet import NnunetSettings
from iac_core.cells.genotype import random_genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.config import CellSettings, PrepareSettings, SplitSettings
from iac_core.data.msd import Msd
from iac_core.data.prepare import PARTS
from iac_core.data.slices import PreparedData
from iac_core.data.splits import Split, make_split
from iac_core.errors import ConfigError, NnunetError, StopRequested
from iac_core.exported import ExportedCells
from iac_core.nnunet.cases import PlannedCases, case_name
from iac_core.nnunet.prepare import prepare_by_nnunet, tiles
from iac_core.nnunet.training import pretrain_by_nnunet
from iac_core.seeding import numpy_generator
from iac_core.training.fit import TrainingRoom
from iac_core.types import SilentReporter
from orchestrator.executors import InlineExecutor
from orchestrator.export import export_sweep
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep

ROOT = Path(__file__).parents[3]
IS_INSTALLED = importlib.util.find_spec("nnunetv2") is not None
needs_nnunet = pytest.mark.skipif(not IS_INSTALLED, reason="nnU-Net: pip install .[nnunet]")

SWEEP = """
metadata:
  sweep:
    name: nn
    datasets: {hippocampus: {layout: msd, path: PATH}}
    grid:
      dataset: [hippocampus]
      backbone: [nnunet]
      pruner: [no_cell, no_cell_longer, js_stability_fast]
      seed: [0]
    stages:
      split: {n_folds: 4, validation_share: 0.2}
      cell: {n_nodes: 2, form: residual, start: plain}
      search: {epochs: 4, batch_size: 8, steps_per_epoch: 2, alpha_warmup_epochs: 0}
      retrain: {epochs: 1, batch_size: 8, steps_per_epoch: 4}
    backbones:
      nnunet: {epochs: 5, steps_per_epoch: 60, validation_steps: 2, batch_size: 12, mirrors: false}
    resources: {threads: 1, cpus: 1}
"""


@pytest.fixture(scope="module")
def hippocampus(real_data, tmp_path_factory):
    """A folder of the Decathlon's form with the first twelve patients."""
    source = real_data / "msd_hippocampus" / "Task04_Hippocampus"
    root = tmp_path_factory.mktemp("hippocampus") / source.name
    header = json.loads((source / "dataset.json").read_text())
    header |= {"training": header["training"][:12], "numTraining": 12, "test": []}
    for entry in header["training"]:
        for path in entry.values():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, root / path)
    (root / "dataset.json").write_text(json.dumps(header))
    return root


@pytest.fixture(scope="module")
def session(hippocampus, tmp_path_factory):
    """A finished sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    path = folder / "sweep.yaml"
    path.write_text(SWEEP.replace("PATH", str(hippocampus)))
    found = open_sweep(path, {}, folder / "runs", needs_data=True)
    ends = []
    run_sweep(
        found.expansion.jobs, found.room(), InlineExecutor(), view=View(), on_job_end=ends.append
    )
    assert [end.failure for end in ends] == [None, None, None]
    return found


@pytest.fixture(scope="module")
def prepared(session):
    (folder,) = (session.store.root / "prepare").iterdir()
    return folder


def the_split(session):
    (folder,) = (session.store.root / "pretrain").iterdir()
    return Split.load(folder / "split.json")


@pytest.mark.slow
@needs_nnunet
def test_plans_come_from_training_patients_and_no_test_patient_is_in_the_split_file(
    session, prepared
):
    split, base = the_split(session), prepared / "nnunet_preprocessed" / "Dataset001_iac"
    fingerprint = json.loads((base / "dataset_fingerprint.json").read_text())
    assert len(fingerprint["spacings"]) == len(split.train) == 7
    (entry,) = json.loads((base / "splits_final.json").read_text())
    assert (set(entry["train"]), set(entry["val"])) == (set(split.train), set(split.validation))
    assert not set(split.test) & {*entry["train"], *entry["val"]}
    assert json.loads((base / "dataset.json").read_text())["numTraining"] == 7
    assert (
        len(list((base / "nnUNetPlans_2d").glob("*.pkl"))) == 12
    )  # test patients too, to predict
    assert not list(prepared.glob("*raw*"))
    assert not list(prepared.glob("checkpoint*"))


@pytest.mark.slow
@needs_nnunet
def test_slices_are_the_preprocessed_ones_at_the_planned_patch_size(prepared):
    data, cases = PreparedData.open(prepared), PlannedCases(prepared)
    assert data.slice_shape == cases.patch_shape
    for volume in data.volumes:
        image, labels, _ = cases.load(case_name(volume.volume_id))
        own = slice(volume.first_slice, volume.first_slice + volume.n_slices)
        expected = tiles(np.moveaxis(image, 1, 0), cases.patch_shape)
        assert np.allclose(data.images[own], expected, atol=5e-3)
        kept = tiles(np.maximum(labels, 0)[:, None], cases.patch_shape)[:, 0]
        assert np.array_equal(data.labels[own], kept)
        assert data.labels[own].any()


@pytest.mark.slow
@needs_nnunet
def test_every_arm_is_scored_on_the_original_grid(session):
    split = the_split(session)
    means = {}
    for state in session.plan().states:
        folder = session.store.folder("evaluate", state.tasks[-1].key)
        rows = json.loads((folder / "patients.json").read_text())
        assert {row["class_name"] for row in rows} == {"Anterior", "Posterior"}
        for subset, patients in (("validation", split.validation), ("test", split.test)):
            assert {row["patient_id"] for row in rows if row["subset"] == subset} == set(patients)
        means[state.job.pruner] = np.mean([row["dice"] for row in rows])
        outcome = session.store.record("evaluate", state.tasks[-1].key).outcome
        has_cells = state.job.pruner == "js_stability_fast"
        assert (outcome["n_cell_parameters"] > 0) == has_cells
    assert min(means.values()) > 0.2  # a minute of training


@pytest.mark.slow
@needs_nnunet
def test_a_volume_is_predicted_as_nnunet_predicts_its_file(session, prepared, hippocampus):
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    data, cases = PreparedData.open(prepared), PlannedCases(prepared)
    network = trained(session, cases, data)
    segment = cases.segmenter(network, data, device=torch.device("cpu"), mirrors=True)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    base = prepared / "nnunet_preprocessed" / "Dataset001_iac"
    predictor.manual_initialization(
        network, cases._plans, cases._configuration, [network.state_dict()],
        json.loads((base / "dataset.json").read_text()), "nnUNetTrainer", (0, 1),
    )  # fmt: skip
    for patient in the_split(session).test[:2]:
        (volume,) = data.volumes_of([patient])
        path = hippocampus / "imagesTr" / f"{volume.volume_id}.nii.gz"
        image, properties = NibabelIO().read_images([str(path)])
        theirs = predictor.predict_single_npy_array(image, properties, None, None, False)
        ours = segment(volume)
        assert ours.shape == data.reference_labels(volume).shape
        assert ours.any()
        assert np.array_equal(ours, np.transpose(theirs, (2, 1, 0)))


def trained(session, cases, data):
    (folder,) = (session.store.root / "pretrain").iterdir()
    network = cases.network(n_channels=1, n_classes=data.n_classes, seed=0)
    network.load_state_dict(torch.load(folder / "weights.pt"))
    return network.eval()


@pytest.mark.slow
@needs_nnunet
def test_fresh_cells_change_nothing_and_have_the_norm_of_the_host(session, prepared):
    data, cases = PreparedData.open(prepared), PlannedCases(prepared)
    network = trained(session, cases, data)
    cell = CellSettings(n_nodes=2, form="residual", start="plain")
    genotype = random_genotype(cell, len(network.sites), numpy_generator(0, "test"))
    implanted = ImplantedNetwork(network, genotype, cell, scope="cell", seed=0).eval()
    kinds = {type(part).__name__ for part in implanted.implant.cells.modules()}
    assert "InstanceNorm2d" in kinds
    assert "BatchNorm2d" not in kinds
    images = torch.from_numpy(data.load_images(np.arange(4)))
    with torch.no_grad():
        assert torch.equal(implanted(images), network(images))


@pytest.mark.slow
@needs_nnunet
def test_exported_cells_join_nnunets_own_network(session, prepared, tmp_path):
    (written,) = export_sweep(session, tmp_path / "out", [], [])
    cells = ExportedCells.load(written.folder)
    assert cells.description["data"]["preparation"]["plans_name"] == "nnUNetPlans"
    data, planned = PreparedData.open(prepared), PlannedCases(prepared)
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    network = get_network_from_plans(
        planned._configuration.network_arch_class_name,
        planned._configuration.network_arch_init_kwargs,
        planned._configuration.network_arch_init_kwargs_req_import,
        1, data.n_classes, deep_supervision=False,
    )  # fmt: skip
    theirs = cells.implant_into_nnunet(network).eval()
    host = theirs.implanted.implant.backbone
    host.load_state_dict(trained(session, planned, data).state_dict())
    ours = ImplantedNetwork(
        trained(session, planned, data), cells.genotype, cells.settings, scope="cell", seed=0
    ).eval()
    ours.load_state_dict(load_file(written.folder / "network.safetensors"))
    images = torch.from_numpy(data.load_images(np.arange(4)))
    with torch.no_grad():
        expected = ours(images)
        assert torch.equal(theirs(images), expected)
        assert not torch.equal(host(images), expected)


class StopAt:
    """Stops after an epoch."""

    def __init__(self, epoch):
        self.epoch, self.seen = epoch, []

    def progress(self, *, epoch, n_epochs, **values):
        self.seen.append(epoch)

    def should_stop(self):
        return self.epoch in self.seen


def pretrained(prepared, session, folder, reporter, **changes):
    folder.mkdir(exist_ok=True)
    settings = {"epochs": 6, "steps_per_epoch": 6, "validation_steps": 1, "batch_size": 4}
    return pretrain_by_nnunet(
        prepared,
        NnunetSettings(**settings | changes),
        TrainingRoom(
            data=PreparedData.open(prepared),
            split=the_split(session),
            device=torch.device("cpu"),
            checkpoint_path=folder / "checkpoint.pt",
            reporter=reporter,
        ),
        seed=0,
        checkpoint_every_epochs=1,
        n_processes=1,
    )


@pytest.mark.slow
@needs_nnunet
def test_a_stopped_training_goes_on_to_the_same_weights(session, prepared, tmp_path):
    whole = pretrained(prepared, session, tmp_path / "whole", SilentReporter())
    first = tmp_path / "parts"
    with pytest.raises(StopRequested):
        pretrained(prepared, session, first, StopAt(1))
    assert (first / "checkpoint.pt").exists()
    after = StopAt(None)
    resumed = pretrained(prepared, session, first, after)
    assert after.seen[0] > 1
    assert resumed.curve[-1]["train_loss"] == whole.curve[-1]["train_loss"]
    for name, value in whole.state.items():
        assert torch.equal(value, resumed.state[name]), name


@pytest.mark.slow
@needs_nnunet
def test_an_error_of_nnunet_carries_its_last_lines(session, prepared, tmp_path):
    with pytest.raises(NnunetError, match="trainer must be one of nnU-Net's, got NoSuchTrainer"):
        pretrained(
            prepared, session, tmp_path / "failing", SilentReporter(), trainer="NoSuchTrainer"
        )


ENDLESS = """
import sys
from pathlib import Path
from iac_core.nnunet.cases import PlannedCases
from iac_core.nnunet.run_apart import run_apart
from iac_core.types import SilentReporter
prepared, folder = Path(sys.argv[1]), Path(sys.argv[2])
cases = PlannedCases(prepared)
order = dict(
    dataset=cases.dataset, plans=cases.plans_name, trainer="nnUNetTrainer", epochs=100000,
    steps_per_epoch=1, validation_steps=1, batch_size=2, seed=0, device="cpu", n_channels=1,
    checkpoint=str(folder / "checkpoint.pt"), checkpoint_every_epochs=1,
    progress=str(folder / "nnunet_progress.jsonl"), weights="", curve="",
)
places = {"raw": folder, "preprocessed": cases.root, "results": folder / "results"}
run_apart("train", order, folder, places=places, n_processes=1, reporter=SilentReporter())
"""


@pytest.mark.slow
@needs_nnunet
def test_nnunet_ends_when_its_worker_is_killed(session, prepared, tmp_path):
    worker = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, prepared, tmp_path],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    progress = tmp_path / "nnunet_progress.jsonl"
    deadline = time.monotonic() + 180
    while not progress.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert progress.exists()
    (child,) = psutil.Process(worker.pid).children()
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    gone, alive = psutil.wait_procs([child], timeout=30)
    assert (gone, alive) == ([child], [])


def test_without_nnunet_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    split = Split(train=("a",), validation=("b",), test=("c",))
    with pytest.raises(ConfigError, match=r"pip install \.\[nnunet\]"):
        prepare_by_nnunet(
            Msd(tmp_path), split, NnunetSettings(), PrepareSettings(), tmp_path,
            SilentReporter(), n_processes=1,
        )  # fmt: skip


@pytest.mark.parametrize("size", [(5, 7), (8, 8), (9, 20)])
def test_tiles_cover_every_pixel_and_padding_is_zero(size):
    slices = 1 + np.arange(2 * 3 * size[0] * size[1], dtype=float).reshape(2, 3, *size)
    cut = tiles(slices, (6, 8))
    n = -(-max(size[0], 6) // 6) * -(-max(size[1], 8) // 8)
    assert cut.shape == (2 * n, 3, 6, 8)
    first = cut[:n]
    assert set(np.unique(first)) - {0.0} == set(np.unique(slices[0]))


@needs_nnunet
def test_a_stopped_preparation_takes_its_volumes_over(hippocampus, tmp_path):
    class Counting(Msd):
        loaded: ClassVar[list[str]] = []

        def load(self, ref):
            self.loaded.append(ref.volume_id)
            return super().load(ref)

    dataset = Counting(hippocampus)
    patients = [ref.patient_id for ref in dataset.volumes()]
    split = make_split(patients, SplitSettings(n_folds=4))
    for last in (3, 5):
        with pytest.raises(StopRequested):
            prepare_by_nnunet(
                dataset, split, NnunetSettings(), PrepareSettings(), tmp_path, StopAt(last),
                n_processes=1,
            )  # fmt: skip
    assert dataset.loaded == patients[:5]
    assert len(list((tmp_path / PARTS).glob("*.npz"))) == 5
    assert not (tmp_path / "index.json").exists()

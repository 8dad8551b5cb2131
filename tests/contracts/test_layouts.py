"""Every layout, on a folder in exactly the public form: found, cut, trained, brought back."""

import json

import numpy as np
import pytest
from layout_folders import LAYOUTS, canonical_labels, kidneys_with_made_images

from iac_core.config import DatasetOptions, PrepareSettings, SplitSettings
from iac_core.data import DATASETS, open_dataset
from iac_core.data.check import check_dataset
from iac_core.data.fingerprint import fingerprint
from iac_core.data.prepare import prepare
from iac_core.data.slices import PreparedData
from iac_core.data.splits import make_split
from iac_core.types import SegmentationDataset, SilentReporter
from orchestrator.executors import InlineExecutor
from orchestrator.run_sweep import View, run_sweep
from orchestrator.session import open_sweep

NAMES = sorted(LAYOUTS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Name of a generated folder → the folder and what must be found in it; written once."""
    found = {}
    for name, write in LAYOUTS.items():
        root = tmp_path_factory.mktemp(name)
        found[name] = (root, write(root))
    return found


def reader(folders, name):
    root, expected = folders[name]
    return open_dataset(expected.layout, root, DatasetOptions(**expected.options)), expected


def test_every_layout_has_a_generated_folder(folders):
    covered = {expected.layout for _, expected in folders.values()}
    assert covered == {name for name in DATASETS if name not in ("amos22_ct", "amos22_mr")}


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_in_the_public_form_is_found_whole(folders, name):
    dataset, expected = reader(folders, name)
    assert isinstance(dataset, SegmentationDataset)
    summary = check_dataset(dataset)
    assert summary.problems == ()
    assert (summary.n_patients, summary.n_volumes) == (expected.n_patients, expected.n_volumes)
    assert summary.n_official_test == len(expected.official_test)
    assert summary.intensities == expected.intensities
    assert dict(dataset.description.classes) == expected.classes
    assert len(dataset.description.channels) == expected.n_channels
    for ref in dataset.volumes():
        volume = dataset.load(ref)
        assert volume.image.shape == (expected.n_channels, *volume.labels.shape)
        assert volume.image.dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_the_fingerprint_holds_every_file_that_is_read(folders, name):
    dataset, _ = reader(folders, name)
    root = folders[name][0]
    before = fingerprint(dataset, root)
    assert fingerprint(reader(folders, name)[0], root) == before
    path = dataset.volumes()[0].label_path
    content = path.read_bytes()
    path.write_bytes(content[:-4] + bytes(byte ^ 255 for byte in content[-4:]))
    assert fingerprint(dataset, root) != before
    path.write_bytes(content)


@pytest.fixture(scope="module")
def prepared(folders, tmp_path_factory):
    """A function that prepares a folder without resampling and opens it; each once."""
    cache = {}

    def get(name):
        if name not in cache:
            dataset, _ = reader(folders, name)
            spacing = dataset.load(dataset.volumes()[0]).spacing_mm
            in_plane = min(spacing)  # every generated volume has square pixels in the plane
            into = tmp_path_factory.mktemp(f"{name}-prepared")
            settings = PrepareSettings(size=32, spacing_mm=in_plane)
            prepare(dataset, settings, into, SilentReporter())
            cache[name] = PreparedData.open(into)
        return cache[name]

    return get


def one_hot(indices, n):
    return np.stack([indices == k for k in range(n)], axis=1).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_labels_return_voxel_by_voxel_to_the_file_they_came_from(folders, prepared, name):
    dataset, _ = reader(folders, name)
    data = prepared(name)
    refs = dataset.volumes()
    assert [volume.volume_id for volume in data.volumes] == [ref.volume_id for ref in refs]
    for volume, ref in zip(data.volumes, refs, strict=True):
        original = dataset.load(ref).labels
        slices = np.asarray(data.labels[volume.first_slice : volume.first_slice + volume.n_slices])
        back = data.to_original(volume, one_hot(slices, data.n_classes))
        assert np.array_equal(back, original)
        assert np.array_equal(data.reference_labels(volume), original)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "acdc"])
def test_slices_are_axial_and_turned_as_nibabel_turns_them(folders, prepared, name):
    dataset, _ = reader(folders, name)
    data = prepared(name)
    values = np.asarray(data.label_values, dtype=np.uint8)
    for volume, ref in zip(data.volumes, dataset.volumes(), strict=True):
        canonical = np.moveaxis(canonical_labels(ref.label_path), 2, 0)
        slices = np.asarray(data.labels[volume.first_slice : volume.first_slice + volume.n_slices])
        assert len(slices) == len(canonical)
        height, width = canonical.shape[1:]
        top, left = (32 - height) // 2, (32 - width) // 2
        inner = slices[:, top : top + height, left : left + width]
        assert np.array_equal(values[inner], canonical)
        assert values[slices].sum() == canonical.sum()


@pytest.mark.parametrize("name", NAMES)
def test_trained_intensities_are_finite_and_follow_the_labels(folders, prepared, name):
    _, expected = folders[name]
    data = prepared(name)
    split = make_split(
        data.patients, SplitSettings(n_folds=3, test="official"), data.official_test
    )
    if expected.official_test:
        assert split.test == expected.official_test
    indices = data.slice_indices(split.train, for_training=True)
    images = data.with_ct_of(split.train).load_images(indices)
    assert images.shape == (len(indices), expected.n_channels, 32, 32)
    assert np.isfinite(images).all()
    assert np.abs(images).max() < 12
    foreground = np.asarray(data.labels[indices]) > 0
    for channel in np.moveaxis(images, 1, 0):
        assert channel[foreground].mean() > channel[~foreground].mean()


SWEEP = """
metadata:
  sweep:
    name: layout
    datasets: {data: {layout: LAYOUT, path: "PATH"OPTIONS}}
    grid: {dataset: [data], backbone: [unet], pruner: [js_stability], seed: [0]}
    stages:
      prepare: {size: 16, spacing_mm: 4.0}
      split: {n_folds: 3, validation_share: 0.25, test: official}
      pretrain: {epochs: 1, batch_size: 4, steps_per_epoch: 2}
      cell: {n_nodes: 2}
      search: {epochs: 2, batch_size: 4, steps_per_epoch: 1, alpha_warmup_epochs: 0}
      retrain: {epochs: 1, batch_size: 4, steps_per_epoch: 1}
    backbones: {unet: {widths: [4, 8]}}
    resources: {threads: 1, cpus: 1}
"""


def run_to_scores(text, tmp_path):
    """Run a sweep of one job in this process; return the rows of its evaluation."""
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    session = open_sweep(path, {}, tmp_path / "runs", needs_data=True)
    jobs, ends = session.expansion.jobs, []
    run_sweep(jobs, session.room(), InlineExecutor(), view=View(), on_job_end=ends.append)
    assert [end.failure for end in ends] == [None]
    folder = next((tmp_path / "runs" / "store" / "evaluate").iterdir())
    return json.loads((folder / "patients.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_search_runs_from_the_folder_to_scores(folders, tmp_path, name):
    root, expected = folders[name]
    options = "".join(f", {key}: '{value}'" for key, value in expected.options.items())
    text = SWEEP.replace("LAYOUT", expected.layout).replace("PATH", str(root))
    rows = run_to_scores(text.replace("OPTIONS", options), tmp_path)
    assert {row["class_name"] for row in rows} == set(expected.classes)
    tested = {row["patient_id"] for row in rows if row["subset"] == "test"}
    assert tested
    assert not expected.official_test or tested == set(expected.official_test)
    assert all(0 <= row["dice"] <= 1 for row in rows if row["state"] != "both_empty")


REAL = {
    "acdc": (lambda real, tmp: real / "acdc_subset", 42, {"RV", "MYO", "LV"}),
    "msd": (
        lambda real, tmp: real / "msd_hippocampus" / "Task04_Hippocampus",
        260, {"Anterior", "Posterior"},
    ),
    "kits19": (
        lambda real, tmp: kidneys_with_made_images(real, tmp / "kits"), 6, {"kidney", "tumour"},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("layout", sorted(REAL))
def test_a_search_runs_on_real_volumes(real_data, tmp_path, layout):
    folder, n_patients, classes = REAL[layout]
    text = SWEEP.replace("LAYOUT", layout).replace("OPTIONS", "")
    rows = run_to_scores(text.replace("PATH", str(folder(real_data, tmp_path))), tmp_path)
    assert {row["class_name"] for row in rows} == classes
    tested = {row["patient_id"] for row in rows if row["subset"] == "test"}
    assert len(tested) == -(-n_patients // 3)
    assert all(0 <= row["dice"] <= 1 for row in rows if row["state"] != "both_empty")

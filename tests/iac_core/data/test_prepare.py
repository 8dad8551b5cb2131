import json

import layout_folders
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iac_core.config import PrepareSettings
from iac_core.data.acdc import Acdc
from iac_core.data.check import check_dataset
from iac_core.data.intensities import zscore
from iac_core.data.kits import Kits
from iac_core.data.msd import Msd
from iac_core.data.nifti import canonical_axes
from iac_core.data.prepare import prepare
from iac_core.data.slices import INDEX, PreparedData
from iac_core.data.transforms import (
    centre_crop_or_pad,
    labels_to_volume,
    probabilities_to_volume,
    resize,
    to_slices,
    volume_geometry,
)
from iac_core.data.user_folder import UserFolder
from iac_core.errors import DataError, StopRequested
from iac_core.types import SilentReporter


def one_hot(labels, n=4):
    return np.stack([labels == k for k in range(n)], axis=1).astype(np.float32)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@settings(max_examples=40)
@given(
    st.tuples(*[st.integers(3, 12)] * 3),
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([1, -1])] * 3),
    st.integers(0, 99),
)
def test_labels_return_voxel_by_voxel_where_the_grid_is_kept(shape, order, signs, seed):
    labels = np.random.default_rng(seed).integers(0, 4, size=shape).astype(np.uint8)
    geometry = volume_geometry(
        shape,
        (2.0, 2.0, 2.0),
        axis_order=tuple(order),
        axis_signs=signs,
        target_spacing_mm=2.0,
        size=16,
    )
    slices = to_slices(labels, geometry, interpolate=False, fill=0)
    assert slices.shape == (shape[order[2]], 16, 16)
    assert np.array_equal(labels_to_volume(slices, geometry), labels)
    assert np.array_equal(probabilities_to_volume(one_hot(slices), geometry), labels)


def test_resize_keeps_the_centre_of_mass():
    image = np.zeros((1, 20, 20))
    image[0, 6:9, 11:15] = 1
    bigger = resize(image, (35, 50), interpolate=True)
    rows, columns = np.meshgrid(np.arange(35), np.arange(50), indexing="ij")
    centre_row = ((rows + 0.5) * bigger[0]).sum() / bigger.sum() / 35
    centre_column = ((columns + 0.5) * bigger[0]).sum() / bigger.sum() / 50
    assert centre_row == pytest.approx(7.5 / 20, abs=0.01)
    assert centre_column == pytest.approx(13 / 20, abs=0.01)


@given(st.integers(1, 12), st.integers(1, 12))
def test_crop_and_pad_undo_each_other_where_nothing_is_lost(n, size):
    array = np.arange(n * n).reshape(1, n, n)
    back = centre_crop_or_pad(centre_crop_or_pad(array, (size, size), -1), (n, n), -1)
    assert (back[back >= 0] == array[back >= 0]).all()
    if size >= n:
        assert np.array_equal(back, array)


def test_a_constant_channel_becomes_zeros_and_not_nan():
    out = zscore(np.full((1, 3, 3, 2), 7.0, dtype=np.float32), (0.5, 99.5), nonzero=False)
    assert (out == 0).all()


def test_normalised_intensities_have_mean_0_and_deviation_1():
    image = np.random.default_rng(0).gamma(2, 100, size=(2, 20, 20, 5)).astype(np.float32)
    out = zscore(image, (0.5, 99.5), nonzero=False)
    assert out.mean(axis=(1, 2, 3)) == pytest.approx(0, abs=1e-4)
    assert out.std(axis=(1, 2, 3)) == pytest.approx(1, abs=1e-3)


def test_prepared_arrays_are_mapped_and_fit_their_index(prepared_folder):
    data = PreparedData.open(prepared_folder)
    assert isinstance(data.images, np.memmap)
    assert data.images.shape == (len(data.labels), 1, 32, 32)
    assert data.images.dtype == np.float16
    assert data.load_images(np.arange(2)).dtype == np.float32
    assert len(data.patients) == 8
    assert sum(volume.n_slices for volume in data.volumes) == len(data.images)
    assert (data.n_classes, data.n_channels, data.slice_shape) == (4, 1, (32, 32))


def test_training_uses_every_foreground_slice_and_few_others(prepared_folder):
    data = PreparedData.open(prepared_folder)
    foreground = np.asarray(data.labels).reshape(len(data.labels), -1).any(axis=1)
    used = np.zeros(len(data.labels), dtype=bool)
    used[data.slice_indices(data.patients, for_training=True)] = True
    assert used[foreground].all()
    assert used[~foreground].mean() < 0.5
    assert len(data.slice_indices(data.patients, for_training=False)) == len(data.labels)


def test_preparation_gives_the_same_bytes_twice(phantom_folder, prepared_folder, tmp_path):
    prepare(
        Acdc(phantom_folder), PrepareSettings(size=32, spacing_mm=5.0), tmp_path, SilentReporter()
    )
    for path in sorted(prepared_folder.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_reference_labels_are_those_of_the_files(phantom_folder, prepared_folder):
    dataset, data = Acdc(phantom_folder), PreparedData.open(prepared_folder)
    for ref, volume in zip(dataset.volumes()[:3], data.volumes[:3], strict=True):
        assert ref.volume_id == volume.volume_id
        assert np.array_equal(dataset.load(ref).labels, data.reference_labels(volume))


def test_a_damaged_preparation_says_to_delete_it(prepared_folder, tmp_path):
    for path in prepared_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    index = json.loads((tmp_path / INDEX).read_text())
    index["trains"] = index["trains"][:-1]
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match="delete the folder"):
        PreparedData.open(tmp_path)


class StopAt(SilentReporter):
    def __init__(self, n):
        self.left = n

    def should_stop(self):
        self.left -= 1
        return self.left < 0


class Counted:
    """A data set that counts what is loaded."""

    def __init__(self, dataset):
        self.dataset, self.n_loaded = dataset, 0
        self.description, self.volumes = dataset.description, dataset.volumes

    def load(self, ref):
        self.n_loaded += 1
        return self.dataset.load(ref)


def test_a_stopped_preparation_goes_on_with_what_it_has(phantom_folder, prepared_folder, tmp_path):
    dataset = Counted(Acdc(phantom_folder))
    wanted = PrepareSettings(size=32, spacing_mm=5.0)
    with pytest.raises(StopRequested):
        prepare(dataset, wanted, tmp_path, StopAt(5))
    assert not (tmp_path / INDEX).exists()
    assert dataset.n_loaded == 5
    prepare(dataset, wanted, tmp_path, SilentReporter())
    assert dataset.n_loaded == 16
    names = sorted(path.name for path in prepared_folder.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for path in prepared_folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_neighbours_are_further_channels_and_end_slices_are_repeated(phantom_folder, tmp_path):
    wanted = PrepareSettings(size=32, spacing_mm=5.0, n_neighbours=1)
    prepare(Acdc(phantom_folder), wanted, tmp_path, SilentReporter())
    data = PreparedData.open(tmp_path)
    assert data.n_channels == 3
    volume = data.volumes[1]
    first, last = volume.first_slice, volume.first_slice + volume.n_slices - 1
    plain = np.asarray(data.images[:, 0], dtype=np.float32)
    found = data.load_images(np.array([first, first + 1, last]))
    expected = [(first, first, first + 1), (first, first + 1, first + 2), (last - 1, last, last)]
    assert np.array_equal(found, np.stack([plain[list(row)] for row in expected]))


def ct_folder(tmp_path):
    root = tmp_path / "ct"
    layout_folders.folder(root)
    return UserFolder(root)


def test_ct_is_normalised_by_the_foreground_of_the_training_patients_alone(tmp_path):
    dataset = ct_folder(tmp_path)
    into = tmp_path / "prepared"
    into.mkdir()
    prepare(dataset, PrepareSettings(size=32, spacing_mm=2.0), into, SilentReporter())
    data = PreparedData.open(into)
    train = data.patients[:3]
    volumes = [dataset.load(ref) for ref in dataset.volumes()[:3]]
    voxels = np.concatenate([np.rint(one.image[0][one.labels > 0]) for one in volumes])
    statistics = data.with_ct_of(train).ct
    assert statistics.mean[0] == pytest.approx(voxels.mean(), abs=1e-2)
    assert statistics.deviation[0] == pytest.approx(voxels.std(), abs=1e-2)
    others = data.with_ct_of(data.patients[3:]).ct
    assert others.mean[0] != statistics.mean[0]
    with pytest.raises(AssertionError, match="training patients"):
        data.load_images(np.array([0]))


@pytest.mark.parametrize("normalisation", ["zscore", "zscore_nonzero"])
def test_the_normalisation_of_a_layout_can_be_overruled(tmp_path, normalisation):
    wanted = PrepareSettings(size=32, spacing_mm=2.0, normalisation=normalisation)
    into = tmp_path / "prepared"
    into.mkdir()
    prepare(ct_folder(tmp_path), wanted, into, SilentReporter())
    data = PreparedData.open(into)
    assert {volume.normalisation for volume in data.volumes} == {normalisation}
    assert data.with_ct_of(data.patients).ct is None
    assert abs(float(data.load_images(np.arange(len(data.labels))).mean())) < 1


@pytest.mark.slow
def test_the_real_hippocampi_are_read_cut_and_brought_back(real_data, tmp_path):
    root = real_data / "msd_hippocampus" / "Task04_Hippocampus"
    dataset = Msd(root)
    summary = check_dataset(dataset)
    assert (summary.n_patients, summary.problems) == (260, ())
    prepare(dataset, PrepareSettings(size=64, spacing_mm=1.0), tmp_path, SilentReporter())
    data = PreparedData.open(tmp_path)
    assert len(data.images) == 9270
    foreground = np.asarray(data.labels).reshape(len(data.labels), -1).any(axis=1)
    assert foreground.sum() == 6623
    for volume in data.volumes[::20]:
        slices = np.asarray(data.labels[volume.first_slice : volume.first_slice + volume.n_slices])
        back = data.to_original(volume, one_hot(slices, 3))
        assert np.array_equal(back, data.reference_labels(volume))


@pytest.mark.slow
def test_real_kidney_labels_return_to_their_grid(real_data, tmp_path):
    import nibabel

    root = layout_folders.kidneys_with_made_images(real_data, tmp_path / "kits")
    dataset = Kits(root, edition="kits19")
    assert check_dataset(dataset).problems == ()
    into = tmp_path / "prepared"
    into.mkdir()
    prepare(dataset, PrepareSettings(size=448, spacing_mm=1.0), into, SilentReporter())
    data = PreparedData.open(into)
    assert data.patients == tuple(ref.patient_id for ref in dataset.volumes())
    for volume in data.volumes:
        slices = np.asarray(data.labels[volume.first_slice : volume.first_slice + volume.n_slices])
        back = data.to_original(volume, one_hot(slices, 3))
        reference = data.reference_labels(volume)
        mask = nibabel.load(root / volume.patient_id / "segmentation.nii.gz")
        assert np.allclose(volume.affine, mask.affine)
        assert np.array_equal(reference, np.asarray(mask.dataobj))
        for values in data.classes.values():
            assert dice(np.isin(back, values), np.isin(reference, values)) >= 0.97


@pytest.mark.slow
def test_real_labels_return_to_their_grid(real_data, tmp_path):
    root = real_data / "acdc_subset" / "training"
    few = tmp_path / "few" / "training"
    few.mkdir(parents=True)
    for name in ("patient001", "patient050", "patient099"):
        (few / name).symlink_to(root / name)
    into = tmp_path / "prepared"
    into.mkdir()
    prepare(Acdc(few.parent), PrepareSettings(size=320, spacing_mm=1.0), into, SilentReporter())
    data = PreparedData.open(into)
    for volume in data.volumes:
        slices = np.asarray(data.labels[volume.first_slice : volume.first_slice + volume.n_slices])
        back, reference = data.to_original(volume, one_hot(slices)), data.reference_labels(volume)
        assert back.shape == reference.shape
        for label in (1, 2, 3):
            assert dice(back == label, reference == label) >= 0.97


@pytest.mark.slow
def test_a_file_of_another_orientation_is_turned_and_turned_back(real_data):
    import nibabel

    path = real_data / "kits19_labels" / "case_00064" / "segmentation.nii.gz"
    file = nibabel.load(path)
    assert nibabel.aff2axcodes(file.affine) == ("I", "P", "L")
    order, signs = canonical_axes(file.affine)
    labels = np.asarray(file.dataobj).astype(np.uint8)
    canonical = np.asarray(nibabel.as_closest_canonical(file).dataobj)
    spacing = tuple(float(edge) for edge in file.header.get_zooms())
    geometry = volume_geometry(
        labels.shape,
        spacing,
        axis_order=order,
        axis_signs=signs,
        target_spacing_mm=spacing[order[0]],
        size=512,
    )
    slices = to_slices(labels, geometry, interpolate=False, fill=0)
    assert np.array_equal(np.moveaxis(slices, 0, 2), canonical)
    assert np.array_equal(labels_to_volume(slices, geometry), labels)

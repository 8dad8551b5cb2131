import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iac_core.config import PrepareSettings
from iac_core.data.acdc import Acdc
from iac_core.data.nifti import canonical_axes
from iac_core.data.prepare import prepare
from iac_core.data.slices import INDEX, PreparedData
from iac_core.data.transforms import (
    centre_crop_or_pad,
    labels_to_volume,
    normalise,
    probabilities_to_volume,
    resize,
    to_slices,
    volume_geometry,
)
from iac_core.errors import DataError
from iac_core.types import SilentReporter


def one_hot(labels, n=4):
    return np.stack([labels == k for k in range(n)], axis=1).astype(np.float32)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@settings(max_examples=40, deadline=None)
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
    out = normalise(np.full((1, 3, 3, 2), 7.0, dtype=np.float32), (0.5, 99.5))
    assert (out == 0).all()


def test_normalised_intensities_have_mean_0_and_deviation_1():
    image = np.random.default_rng(0).gamma(2, 100, size=(2, 20, 20, 5)).astype(np.float32)
    out = normalise(image, (0.5, 99.5))
    assert out.mean(axis=(1, 2, 3)) == pytest.approx(0, abs=1e-4)
    assert out.std(axis=(1, 2, 3)) == pytest.approx(1, abs=1e-3)


def test_prepared_arrays_are_mapped_and_fit_their_index(prepared_folder):
    data = PreparedData.open(prepared_folder)
    assert isinstance(data.images, np.memmap)
    assert data.images.shape == (len(data.labels), 1, 32, 32)
    assert data.images.dtype == np.float32
    assert len(data.patients) == 8
    assert sum(volume.n_slices for volume in data.volumes) == len(data.images)
    assert (data.n_classes, data.n_channels, data.size) == (4, 1, 32)


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

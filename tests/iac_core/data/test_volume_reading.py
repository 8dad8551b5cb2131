"""Volumes are read as nibabel reads them, within the bounds of their header."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from broken_volumes import (
    SHAPE,
    assert_found,
    box,
    check,
    inflated,
    picture,
    set_field,
    write_folder,
)

from iac_core.config import DatasetOptions
from iac_core.data import open_dataset
from iac_core.data.nifti import read_volume
from iac_core.types import VolumeRef


@pytest.fixture
def folder(tmp_path):
    """Three whole cases; the first is broken by the tests."""
    return write_folder(tmp_path / "data")


TYPES = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">u2", ">f4", ">f8"]


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("scaling", [(None, None), (2.0, 0.0), (0.37, -1024.0), (1.0, 5.0)])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_values_and_places_are_those_of_nibabel(tmp_path, kind, dtype, scaling, ending):
    array = (picture(1) - 60).astype(np.dtype(dtype))
    turned = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 1], [0, 0, 0, 1]])
    image = kind(array, turned, dtype=array.dtype)
    if dtype.startswith(">"):
        image = kind(array, turned, kind.header_class(endianness=">"), dtype=array.dtype)
    image.set_qform(turned, code=1)
    path, label_path = tmp_path / f"image{ending}", tmp_path / f"labels{ending}"
    nibabel.save(image, path)
    if scaling[0] is not None:
        _rescale(path, *scaling)
    nibabel.save(kind(box(), turned), label_path)
    ref = VolumeRef(patient_id="p", volume_id="v", image_paths=(path,), label_path=label_path)
    volume = read_volume(ref, n_channels=1)
    expected = nibabel.load(path)
    assert np.array_equal(volume.image[0], expected.get_fdata(dtype=np.float32))
    assert np.array_equal(volume.affine, expected.affine)
    assert np.array_equal(volume.labels, np.asarray(nibabel.load(label_path).dataobj))
    assert volume.spacing_mm == pytest.approx((1.5, 2.0, 3.0))
    assert volume.image.flags.c_contiguous
    assert volume.labels.flags.c_contiguous
    assert volume.warnings == ()


def _rescale(path, slope, inter):
    """Write other factors into a header, in its own byte order."""
    content = bytearray(path.read_bytes() if path.suffix == ".nii" else inflated(path))
    header = nibabel.load(path).header
    raw = header.copy()
    raw["scl_slope"], raw["scl_inter"] = slope, inter
    raw["vox_offset"] = 352 if len(raw.binaryblock) == 348 else 544
    content[: len(raw.binaryblock)] = raw.binaryblock
    path.write_bytes(gzip.compress(bytes(content)) if path.suffix == ".gz" else bytes(content))


def test_a_qform_alone_places_a_volume_as_nibabel_does(folder, tmp_path):
    turned = nibabel.eulerangles.euler2mat(0.2, 0.1, 0.3) @ np.diag([2.0, 2.0, 4.0])
    affine = nibabel.affines.from_matvec(turned, [3, 4, 5])
    for path, array in zip(folder["case_0"], (picture(0), box()), strict=True):
        image = nibabel.Nifti1Image(array, None)
        image.header.set_qform(affine, code=1)
        nibabel.save(image, path)
    dataset = open_dataset("folder", tmp_path / "data", DatasetOptions())
    volume = dataset.load(dataset.volumes()[0])
    assert np.array_equal(volume.affine, nibabel.load(folder["case_0"][0]).affine)
    assert check(tmp_path).problems == ()


REAL = {
    "msd": "msd_hippocampus/Task04_Hippocampus",
    "acdc": "acdc_subset",
    "brats": "brats_case",
    "nnunet": "ct_small/Dataset901_TSCT",
}


def test_real_volumes_are_those_of_nibabel(real_data):
    for layout, path in REAL.items():
        dataset = open_dataset(layout, real_data / path, DatasetOptions())
        for ref in dataset.volumes()[::12]:
            volume = dataset.load(ref)
            images = [nibabel.load(one) for one in ref.image_paths]
            expected = np.stack([image.get_fdata(dtype=np.float32) for image in images])
            assert np.array_equal(volume.image, expected)
            assert np.array_equal(volume.affine, images[0].affine)
            labels = np.asarray(nibabel.load(ref.label_path).dataobj)
            assert np.array_equal(volume.labels, labels)
            assert volume.warnings == ()


def test_blocks_and_padding_behind_a_gzip_stream_are_no_damage(folder, tmp_path):
    path = folder["case_0"][0]
    content = bytes(inflated(path))
    blocks = [content[at : at + 700] for at in range(0, len(content), 700)]
    path.write_bytes(b"".join(gzip.compress(block) for block in blocks) + bytes(512))
    summary = check(tmp_path)
    assert (summary.problems, summary.warnings, summary.n_volumes) == ((), (), 3)


def test_a_volume_beyond_the_setting_is_refused_by_its_header(folder, tmp_path):
    path = folder["case_0"][0]
    size_gib = (352 + 4 * np.prod(SHAPE)) / 2**30
    assert check(tmp_path, max_volume_gib=size_gib * 1.01).problems == ()
    problems = check(tmp_path, max_volume_gib=size_gib * 0.99).problems
    assert len(problems) == 6
    for index, extent in ((1, 1400), (2, 1400), (3, 700)):
        set_field(path, "dim", extent, index)
    pattern = r"at most 4 GiB \(data.max_volume_gib\), got 5.11 GiB by its header, shape"
    assert_found(tmp_path, pattern, path)


LIMITED = """
import sys
import torch
from pathlib import Path
from iac_core.data.nifti import read_labels
from iac_core.errors import DataError
from workers.memory import PeakMemory
memory = PeakMemory(torch.device("cpu"))
before = memory.measured()["peak_host_mib"]
try:
    read_labels(Path(sys.argv[1]))
except DataError as error:
    print(error)
print(memory.measured()["peak_host_mib"] - before)
"""


def in_a_process(path):
    """What the reader says of a file, and how many MiB it took for that."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}, timeout=120,
    )  # fmt: skip
    *text, memory_mib = done.stdout.splitlines()
    return "\n".join(text), float(memory_mib)


def bomb(path, shape, n_zeros):
    """A small compressed file: a header of some shape, then zeros."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header.set_sform(np.eye(4), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(path, "wb", 9) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(n_zeros // 2**20):
            file.write(bytes(2**20))


def test_a_stream_is_not_inflated_beyond_its_header(tmp_path):
    path = tmp_path / "bomb.nii.gz"
    bomb(path, (10, 10, 10), 2**27)
    assert path.stat().st_size < 2**18
    text, memory_mib = in_a_process(path)
    assert "must end with its last voxel, after 1352 bytes by its header, got more" in text
    assert memory_mib < 32


def test_a_small_file_that_claims_much_is_refused_before_it_is_inflated(tmp_path):
    path = tmp_path / "bomb.nii.gz"
    bomb(path, (800, 800, 1000), 2**20)
    text, memory_mib = in_a_process(path)
    assert "too few for 640000352 bytes" in text
    assert memory_mib < 32
    bomb(path, (2500, 2500, 2500), 2**27)
    text, memory_mib = in_a_process(path)
    assert "at most 4 GiB" in text
    assert memory_mib < 32

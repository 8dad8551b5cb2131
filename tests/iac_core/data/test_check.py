"""The check of a folder finds everything in one pass, and preparation says the same."""

import shutil
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from broken_volumes import (
    SHAPE,
    assert_found,
    assert_warned,
    box,
    check,
    flip,
    image_of,
    inflated,
    picture,
    set_field,
    write_folder,
)

from iac_core.config import DatasetOptions
from iac_core.data import open_dataset
from iac_core.data.check import check_dataset, warning_lines
from iac_core.data.nifti import read_labels


@pytest.fixture
def folder(tmp_path):
    """Three whole cases; the first is broken by the tests."""
    return write_folder(tmp_path / "data")


def rewrite(path, array):
    nibabel.save(image_of(array), path)


def spoiled(values):
    array = picture(0)
    array[:3] = values
    return array


@pytest.mark.parametrize(
    ("array", "pattern"),
    [
        (spoiled(np.nan), r"voxel \(0, 0, 0\): every voxel must be a finite number, got 180 vox"),
        (spoiled(-np.inf), "every voxel must be a finite number"),
        (spoiled(np.float32(-3.4028235e38)), r"from -1e\+15 to 1e\+15, got -3.40282e\+38 \(180 "),
        (picture(0) * 1e34, r"intensities must be from -1e\+15 to 1e\+15"),
        (picture(0).astype(np.float64) * 1e300, "every voxel must be a finite number.*float32"),
        (spoiled(-1e9), r"contrast beside the value that marks .*got -1e\+09 in 25%"),
        (spoiled(1e9), r"contrast beside the value that marks .*got 1e\+09 in 25%"),
        (np.full(SHAPE, 7, dtype=np.int16), "an image must not be constant, got 7 in every"),
    ],
)  # fmt: skip
def test_intensities_that_cannot_be_trained_on_are_an_error(folder, tmp_path, array, pattern):
    path = folder["case_0"][0]
    rewrite(path, array)
    assert_found(tmp_path, pattern, path)


@pytest.mark.parametrize(
    ("modality", "array", "pattern"),
    [
        (
            "ct",
            picture(0) * 100 + 9000,
            "nothing lies within -1024 to 3071 HU",
        ),
        (
            "mr_masked",
            box() * np.float32(5),
            "constant, got 5 in every voxel that is not 0",
        ),
        ("mr_masked", np.zeros(SHAPE, dtype=np.float32), "not be constant, got 0 in every voxel"),
    ],
)
def test_an_image_that_normalisation_makes_constant_is_an_error(
    folder, tmp_path, modality, array, pattern
):
    note = tmp_path / "data" / "dataset.yaml"
    note.write_text(f"{note.read_text()}modality: {modality}\n")
    rewrite(folder["case_0"][0], array)
    assert_found(tmp_path, pattern, folder["case_0"][0])


@pytest.mark.parametrize("slope", [1e-30, 1e-45])
def test_a_factor_that_makes_every_label_background_is_an_error(folder, tmp_path, slope):
    path = folder["case_0"][1]
    set_field(path, "scl_slope", slope)
    set_field(path, "scl_inter", 0.0)
    assert_found(tmp_path, "labels that differ in the file must differ as they are read", path)


def test_labels_in_factors_of_the_header_are_whole(folder, tmp_path):
    path = folder["case_0"][1]
    rewrite(path, 20_000 * box().astype(np.int16))
    set_field(path, "scl_slope", 1 / 20_000)
    set_field(path, "scl_inter", 1e-5)
    assert np.array_equal(read_labels(path), box())
    assert check(tmp_path).problems == ()


def test_an_image_that_percentiles_make_constant_is_a_warning(folder, tmp_path):
    array = np.zeros(SHAPE, dtype=np.float32)
    array[5, 5, 3:6] = 1, 2, 3
    rewrite(folder["case_0"][0], array)
    assert_warned(
        tmp_path, "less than 99% of the voxels should have one and the same value, got 99.58%"
    )


@pytest.mark.parametrize("array", [spoiled(-9999), spoiled(0), np.round(picture(0) / 200)])
def test_images_with_a_background_or_two_values_are_fine(folder, tmp_path, array):
    rewrite(folder["case_0"][0], array.astype(np.float32))
    summary = check(tmp_path)
    assert (summary.problems, summary.warnings) == ((), ())


# The folder


def test_one_pass_finds_every_fault_of_a_folder(tmp_path):
    paths = write_folder(tmp_path / "data", n_cases=8)
    set_field(paths["case_0"][0], "datatype", 9999)
    flip(paths["case_1"][0], -6)
    rewrite(paths["case_2"][0], np.ones(SHAPE, dtype=np.float32))
    set_field(paths["case_3"][1], "datatype", 128)
    paths["case_4"][1].unlink()
    shutil.copy(paths["case_5"][0], paths["case_6"][0])
    paths["case_0"][0].with_name("extra.NII.GZ").write_bytes(b"")
    summary = check(tmp_path)
    named = {Path(problem.file).name: problem.rule for problem in summary.problems}
    assert sorted(named) == sorted(
        ["case_0.nii.gz", "case_1.nii.gz", "case_2.nii.gz", "case_3.nii.gz", "case_4.nii.gz",
         "case_6.nii.gz", "extra.NII.GZ"]
    )  # fmt: skip
    assert summary.n_volumes == 3
    assert all(problem.way_out for problem in summary.problems)


def test_an_image_under_two_patients_is_named(folder, tmp_path):
    first, second = folder["case_0"][0], folder["case_2"][0]
    rewrite(second, picture(0).astype(np.float64))  # another type, other bytes: the same image
    (problem,) = check(tmp_path).problems
    assert problem.file == str(second)
    assert problem.value == f"the image of case_0 ({first}) as case_2"
    assert "leave_out: [case_2]" in problem.way_out
    left = DatasetOptions(leave_out=("case_2",))
    assert check_dataset(open_dataset("folder", tmp_path / "data", left)).problems == ()
    one = DatasetOptions(patient_pattern="(case)_")
    assert check_dataset(open_dataset("folder", tmp_path / "data", one)).problems == ()


def test_labels_of_background_alone_are_named(folder, tmp_path):
    for _, labels in folder.values():
        rewrite(labels, np.zeros(SHAPE, dtype=np.uint8))
    (problem,) = check(tmp_path).problems
    assert problem.rule == "labels must show a class in some volume"


def test_a_class_that_no_volume_shows_is_a_warning(folder, tmp_path):
    note = tmp_path / "data" / "dataset.yaml"
    note.write_text("labels: {background: 0, organ: 1, tumour: 2}\n")
    (warning,) = assert_warned(tmp_path, "each class should be in the labels of some volume")
    assert warning.value == "no voxel of tumour"


def test_warnings_of_one_rule_share_a_line(folder, tmp_path):
    for image, _ in folder.values():
        set_field(image, "bitpix", 8)
    (line,) = warning_lines(check(tmp_path).warnings)
    assert line.endswith("(and 2 more like it)")
    assert str(folder["case_0"][0]) in line


def test_a_checksum_is_the_one_that_gzip_wrote(folder):
    """The oracle of the tests above: the trailer holds CRC-32 and length of the content."""
    content, whole = bytes(inflated(folder["case_0"][0])), folder["case_0"][0].read_bytes()
    assert int.from_bytes(whole[-8:-4], "little") == zlib.crc32(content)

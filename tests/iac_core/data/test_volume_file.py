"""Damaged bytes and misleading names are found, whatever they are."""

import gzip
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from broken_volumes import assert_found, assert_warned, box, check, flip, inflated, write_folder

from iac_core.data.nifti import read_labels
from iac_core.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """Three whole cases; the first is broken by the tests."""
    return write_folder(tmp_path / "data")


def stored_uncompressed(path):
    """Rewrite a file so that a flipped bit changes a voxel, not the compression."""
    path.write_bytes(gzip.compress(bytes(inflated(path)), 0, mtime=0))


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (lambda path: flip(path, -6), "damaged .*incorrect data check"),
        (lambda path: flip(path, -2), "damaged .*incorrect length check"),
        (lambda path: (stored_uncompressed(path), flip(path, 900)), "incorrect data check"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "ends before its content does"),
        (lambda path: path.write_bytes(path.read_bytes()[:-8]), "ends before its content does"),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), "ends before its content does"),
        (lambda path: path.write_bytes(path.read_bytes() + b"junk"), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes() * 2), "must end with its last voxel"),
        (lambda path: path.write_bytes(b""), "an empty file"),
        (lambda path: path.write_bytes(b"\x1f\x8b"), "ends before its content does"),
        (lambda path: path.write_bytes(gzip.compress(b"")), "got no content"),
        (lambda path: path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(99)), "compressed by zstd"),
        (lambda path: path.write_bytes(b"<html>not found"), "HTML or XML"),
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1"), "Git LFS"),
        (lambda path: path.write_bytes(bytes(128) + b"DICM"), "a DICOM file"),
        (lambda path: path.write_bytes(bytes(inflated(path))),
         "named .nii.gz must be compressed, got NIfTI without .*; rename it to case_0.nii,"),
        (lambda path: (path.unlink(), path.mkdir()), "a volume must be a file, got a folder"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "got no regular file"),
    ],
)  # fmt: skip
def test_damaged_bytes_are_an_error(folder, tmp_path, damage, pattern):
    path = folder["case_0"][0]
    damage(path)
    assert_found(tmp_path, pattern, path)


def test_a_flipped_bit_is_noticed_unless_the_labels_are_the_same(folder):
    path = folder["case_0"][1]
    path.write_bytes(gzip.compress(bytes(inflated(path)), mtime=0))
    whole, unnoticed = path.read_bytes(), 0
    for at in range(len(whole)):
        flip(path, at, 1 << at % 8)
        try:
            assert np.array_equal(read_labels(path), box())
            unnoticed += 1
        except DataError:
            pass
        path.write_bytes(whole)
    assert unnoticed <= 8  # time, level and system in gzip's header, and bits that fill a byte


def test_a_plain_file_is_compared_with_its_length(folder, tmp_path):
    image, labels = folder["case_0"]
    plain = image.with_name("case_0.nii")
    content = bytes(inflated(image))
    image.unlink()
    plain.write_bytes(content)
    assert check(tmp_path).problems == ()
    plain.write_bytes(content[:-1])
    assert_found(tmp_path, "too few for", plain)
    plain.write_bytes(content + b"x")
    assert_found(tmp_path, "must end with its last voxel, .* got 1 bytes more", plain)
    plain.write_bytes(content + bytes(100))
    assert_warned(tmp_path, "should end with its last voxel, got 100 bytes of padding")
    plain.write_bytes(gzip.compress(content))
    assert_found(tmp_path, "a gzip stream in case_0.nii; rename it to case_0.nii.gz", plain)
    assert labels.exists()


def test_two_files_for_one_case_are_named_both(folder, tmp_path):
    image, _ = folder["case_0"]
    image.with_name("case_0.nii").write_bytes(bytes(inflated(image)))
    problems = check(tmp_path).problems
    assert len(problems) == 1
    assert problems[0].rule == "a case must have one file"
    assert {"case_0.nii", "case_0.nii.gz"} <= set(problems[0].value.split())


def test_a_case_with_and_without_a_channel_number_is_named(folder, tmp_path):
    image, _ = folder["case_0"]
    shutil.copy(image, image.with_name("case_0_0000.nii.gz"))
    (problem,) = [one for one in check(tmp_path).problems if "one file" in one.rule]
    assert problem.value == "case_0.nii.gz and case_0_0000.nii.gz"


@pytest.mark.parametrize(
    ("ending", "pattern"),
    [
        (".NII.GZ", "capital letters in its ending; rename it"),
        (".Nii", "capital letters"),
        (".hdr", r"half of a pair of files \(.hdr and .img\); convert the pair"),
        (".img.gz", "half of a pair"),
        (".nii.zst", "a compression that is not gzip; unpack"),
        (".nii.bz2", "a compression that is not gzip"),
        (".nrrd", "another format; convert it to NIfTI"),
        (".mha", "another format"),
    ],
)
def test_a_file_of_another_kind_is_not_passed_over(folder, tmp_path, ending, pattern):
    for path in folder["case_0"]:
        path.rename(path.with_name(f"case_0{ending}"))
    summary = check(tmp_path)
    assert [Path(problem.file).name for problem in summary.problems] == [f"case_0{ending}"] * 2
    assert summary.n_volumes == 2
    with pytest.raises(DataError, match=pattern):
        raise DataError(summary.problems)

import gzip

import numpy as np
import pytest

from iac_core.data.acdc import Acdc, read_info
from iac_core.data.check import check_dataset
from iac_core.data.fingerprint import fingerprint
from iac_core.data.nifti import write_nifti
from iac_core.errors import DataError

AFFINE = np.diag([1.5, 1.5, 10.0, 1.0])
INFO = "ED: 1\nES: 2\nGroup: DCM\n"


def labels(size):
    array = np.zeros((12, 10, 4), dtype=np.uint8)
    array[2 : 2 + size, 2:6, 1:3] = 3
    array[2, 2, 1], array[3, 2, 1] = 1, 2
    return array


@pytest.fixture
def folder(tmp_path):
    """One patient with two frames; the second has the larger left ventricle."""
    patient = tmp_path / "data" / "training" / "patient007"
    patient.mkdir(parents=True)
    for frame, size in ((1, 3), (2, 5)):
        image = np.random.default_rng(frame).random((12, 10, 4)).astype(np.float32)
        write_nifti(patient / f"patient007_frame{frame:02d}.nii.gz", image, AFFINE)
        write_nifti(patient / f"patient007_frame{frame:02d}_gt.nii.gz", labels(size), AFFINE)
    return patient


def phases(folder):
    return {ref.volume_id[-2:]: ref.phase for ref in Acdc(folder.parents[1]).volumes()}


def test_without_info_the_larger_left_ventricle_is_diastole(folder):
    assert phases(folder) == {"01": "ES", "02": "ED"}


@pytest.mark.parametrize("text", [INFO, "[patient]\n" + INFO, "ED:1\n\nES :2"])
def test_info_names_the_phases_with_and_without_a_section_header(folder, text):
    (folder / "Info.cfg").write_text(text)
    assert phases(folder) == {"01": "ED", "02": "ES"}


def test_info_without_the_phases_falls_back_to_the_larger_ventricle(folder):
    (folder / "Info.cfg").write_text("Group: NOR\nHeight: 184.0\n")
    assert phases(folder) == {"01": "ES", "02": "ED"}
    assert read_info(folder / "Info.cfg")["Height"] == "184.0"


def test_the_cine_file_and_hidden_files_are_ignored(folder):
    (folder / "patient007_4d.nii.gz").write_bytes(b"not a volume")
    (folder / "._patient007_frame01.nii.gz").write_bytes(b"junk")
    assert len(Acdc(folder.parents[1]).volumes()) == 2


def test_the_root_may_be_the_training_folder(folder):
    assert len(Acdc(folder.parent).volumes()) == 2


def test_a_volume_has_shape_spacing_and_labels(folder):
    dataset = Acdc(folder.parents[1])
    volume = dataset.load(dataset.volumes()[0])
    assert volume.image.shape == (1, 12, 10, 4)
    assert volume.image.dtype == np.float32
    assert volume.spacing_mm == pytest.approx((1.5, 1.5, 10.0))
    assert set(np.unique(volume.labels)) == {0, 1, 2, 3}


def test_fingerprint_depends_on_content_and_not_on_place_or_time(folder, tmp_path):
    import os
    import shutil

    root = folder.parents[1]
    first = fingerprint(Acdc(root), root)
    moved = tmp_path / "elsewhere"
    shutil.copytree(root, moved)
    os.utime(moved / "training" / "patient007" / "patient007_frame01.nii.gz", (0, 0))
    assert fingerprint(Acdc(moved), moved) == first
    write_nifti(
        moved / "training" / "patient007" / "patient007_frame01_gt.nii.gz", labels(4), AFFINE
    )
    assert fingerprint(Acdc(moved), moved) != first


def broken_truncated(folder):
    path = folder / "patient007_frame01.nii.gz"
    path.write_bytes(path.read_bytes()[:200])
    return path, "must be whole"


def broken_not_gzip(folder):
    path = folder / "patient007_frame01.nii.gz"
    path.write_bytes(b"hello")
    return path, "must be whole"


def broken_nan(folder):
    path = folder / "patient007_frame01.nii.gz"
    image = np.zeros((12, 10, 4), dtype=np.float32)
    image[1, 2, 3] = np.nan
    write_nifti(path, image, AFFINE)
    return path, r"voxel \(1, 2, 3\).*finite number.*1 voxels"


def broken_shape(folder):
    path = folder / "patient007_frame01_gt.nii.gz"
    write_nifti(path, labels(3)[:, :9], AFFINE)
    return path, "shape of patient007_frame01"


def broken_affine(folder):
    path = folder / "patient007_frame01_gt.nii.gz"
    write_nifti(path, labels(3), np.diag([1.5, 1.5, 8.0, 1.0]))
    return path, "affine"


def broken_label_value(folder):
    path = folder / "patient007_frame01_gt.nii.gz"
    array = labels(3)
    array[5, 5, 3] = 7
    write_nifti(path, array, AFFINE)
    return path, r"voxel \(5, 5, 3\).*among 0, 1, 2, 3, got 7"


def broken_fraction(folder):
    path = folder / "patient007_frame01_gt.nii.gz"
    write_nifti(path, labels(3).astype(np.float32) * 0.5, AFFINE)
    return path, "whole number"


def broken_negative(folder):
    path = folder / "patient007_frame01_gt.nii.gz"
    write_nifti(path, labels(3).astype(np.int16) - 1, AFFINE)
    return path, "whole number from 0 to 255"


def broken_axes(folder):
    path = folder / "patient007_frame01.nii.gz"
    write_nifti(path, np.zeros((12, 10, 4, 2), dtype=np.float32), AFFINE)
    return path, "3 axes"


def broken_no_labels(folder):
    (folder / "patient007_frame01_gt.nii.gz").unlink()
    return folder / "patient007_frame01.nii.gz", "image and labels"


def broken_no_image(folder):
    (folder / "patient007_frame01.nii.gz").unlink()
    return folder / "patient007_frame01_gt.nii.gz", "image and labels"


def broken_info_frame(folder):
    (folder / "Info.cfg").write_text("ED: 1\nES: 9\n")
    return folder / "Info.cfg", "ES: 9"


def broken_three_frames(folder):
    for suffix in ("", "_gt"):
        source = folder / f"patient007_frame01{suffix}.nii.gz"
        (folder / f"patient007_frame03{suffix}.nii.gz").write_bytes(source.read_bytes())
    return folder, "2 labelled frames"


BROKEN = [value for name, value in sorted(globals().items()) if name.startswith("broken_")]


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda function: function.__name__)
@pytest.mark.parametrize("with_info", [False, True])
def test_a_broken_folder_is_named_with_file_rule_and_way_out(folder, breaks, with_info):
    if with_info:
        (folder / "Info.cfg").write_text(INFO)
    path, pattern = breaks(folder)
    problems = check_dataset(Acdc(folder.parents[1])).problems
    if with_info and breaks is broken_three_frames:
        assert problems == ()
        return
    assert problems
    error = DataError(problems)
    with pytest.raises(DataError, match=pattern):
        raise error
    assert str(path) in str(error)
    assert all(problem.way_out for problem in problems)


def test_all_problems_of_a_folder_are_said_at_once(folder):
    (folder / "Info.cfg").write_text(INFO)
    broken_nan(folder)
    second = folder / "patient007_frame02_gt.nii.gz"
    second.write_bytes(gzip.compress(b"nothing"))
    problems = check_dataset(Acdc(folder.parents[1])).problems
    assert {problem.file for problem in problems} == {
        str(folder / "patient007_frame01.nii.gz"),
        str(second),
    }


@pytest.mark.parametrize("name", ["", "Task04_Hippocampus"])
def test_a_folder_of_another_layout_says_what_was_found(tmp_path, name):
    (tmp_path / name / "imagesTr").mkdir(parents=True)
    with pytest.raises(DataError, match=r"ACDC layout must hold .*got a folder that holds"):
        Acdc(tmp_path).volumes()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="absent: the data folder must exist, got no folder"):
        Acdc(tmp_path / "absent").volumes()


@pytest.mark.slow
def test_the_real_subset_is_clean_and_its_earlier_frame_is_diastole(real_data):
    dataset = Acdc(real_data / "acdc_subset")
    summary = check_dataset(dataset)
    assert (summary.n_patients, summary.n_volumes, summary.problems) == (42, 84, ())
    refs = dataset.volumes()
    for diastole, systole in zip(refs[::2], refs[1::2], strict=True):
        assert (diastole.phase, systole.phase) == ("ED", "ES")

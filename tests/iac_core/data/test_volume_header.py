"""A header that cannot be trusted is an error, one that may not be meant a warning."""

import nibabel
import numpy as np
import pytest
from broken_volumes import (
    assert_found,
    assert_warned,
    box,
    check,
    image_of,
    picture,
    set_field,
    write_folder,
)

from iac_core.config import DatasetOptions
from iac_core.data import open_dataset
from iac_core.data.check import warning_lines
from iac_core.errors import DataError


@pytest.fixture
def folder(tmp_path):
    """Three whole cases; the first is broken by the tests."""
    return write_folder(tmp_path / "data")


@pytest.mark.parametrize(
    ("name", "value", "index", "pattern"),
    [
        ("datatype", 0, 0, r"voxels must be integers.*got datatype 0, unknown"),
        ("datatype", 1, 0, "got datatype 1, one bit a voxel"),
        ("datatype", 9999, 0, "got datatype 9999, which does not exist"),
        ("datatype", 1536, 0, "got datatype 1536, floats of 128 bits"),
        ("datatype", 128, 0, r"not colours, got RGB \(datatype 128\); export the label numbers"),
        ("datatype", 2304, 0, r"not colours, got RGBA"),
        ("datatype", 32, 0, "complex numbers.*store the magnitude"),
        ("datatype", 1792, 0, "complex numbers"),
        ("vox_offset", 10, 0, "vox_offset must be a whole number from 352 .*got 10"),
        ("vox_offset", 400.5, 0, "vox_offset must be .*got 400.5"),
        ("vox_offset", float("nan"), 0, "vox_offset must be .*got nan"),
        ("vox_offset", 1e30, 0, "vox_offset must be"),
        ("vox_offset", 368, 0, "ends before its content does"),
        ("dim", 9, 0, r"1 to 7 axes \(dim\[0\]\).*got dim \[9, "),
        ("dim", 0, 0, "1 to 7 axes"),
        ("dim", -3, 2, "extents, each at least 1"),
        ("dim", 5, 0, r"must have 3 axes, got shape \(12, 10, 6, 1, 1\)"),
        ("dim", 9, 2, "must end with its last voxel, after .* bytes by its header, got"),
        ("dim", 11, 2, "ends before its content does"),
        ("scl_inter", float("nan"), 0, "must be finite numbers, or both NaN.*got 1 and nan"),
        ("scl_inter", float("inf"), 0, "must be finite numbers.*got 1 and inf"),
        ("scl_slope", float("-inf"), 0, "must be finite numbers.*got -inf and 0"),
        ("sizeof_hdr", 347, 0, "no NIfTI header at its start"),
        ("magic", b"ni1\0", 0, r"header and voxels must be in one file.*\(.hdr and .img\)"),
        ("magic", b"\0\0\0\0", 0, "Analyze files have none"),
        ("sform_code", 77, 0, "sform_code must be from 0 to 5, got 77"),
        ("srow_x", float("nan"), 0, "every voxel at a point of its own"),
        ("srow_x", 0.0, 0, "every voxel at a point of its own"),
        ("srow_x", 2.2, 0, "sform and pixdim must give a voxel the same edges.*2.2 × 2 × 4 and 2"),
        ("pixdim", 3.0, 1, "sform and pixdim must give a voxel the same edges"),
        ("srow_x", 0.5, 2, "axes must be at right angles.*degrees off .a tilted gantry"),
    ],
)  # fmt: skip
def test_a_header_that_cannot_be_trusted_is_an_error(
    folder, tmp_path, name, value, index, pattern
):
    path = folder["case_0"][0]
    set_field(path, "scl_slope", 1.0)
    set_field(path, "scl_inter", 0.0)
    if name == "dim" and value == 5:
        for axis in (4, 5):
            set_field(path, "dim", 1, axis)
    set_field(path, name, value, index)
    assert_found(tmp_path, pattern, path)


@pytest.mark.parametrize(
    ("fields", "pattern"),
    [
        ({"bitpix": 16}, "bitpix must fit the datatype 16, 32 bits, got 16"),
        ({"vox_offset": 0}, "vox_offset should say where the voxels begin, got 0; byte 352 was"),
        ({"xyzt_units": 7}, "xyzt_units must name .*got 7"),
        ({"pixdim": (1, 0, 0, 0, 0, 0, 0, 0)}, "pixdim must hold edge lengths above 0"),
        ({"scl_slope": 0.0, "scl_inter": 7.0}, "scl_inter counts only beside a scl_slope"),
        ({"qform_code": 1, "quatern_b": 3.0}, "quaternion of qform must be of length 1"),
    ],
)
def test_a_header_that_may_not_be_meant_is_a_warning(folder, tmp_path, fields, pattern):
    path = folder["case_0"][0]
    for name, value in fields.items():
        if name == "pixdim":
            for index, edge in enumerate(value):
                set_field(path, "pixdim", float(edge), index)
        elif name == "quatern_b":
            set_field(path, "quatern", value)
        else:
            set_field(path, name, value)
    (warning,) = assert_warned(tmp_path, pattern)
    assert warning.file == str(path)


@pytest.mark.parametrize(("unit", "per_mm"), [("meter", 0.001), ("micron", 1000.0)])
def test_metres_and_micrometres_become_millimetres(folder, tmp_path, unit, per_mm):
    affine = np.diag([2 * per_mm, 2 * per_mm, 4 * per_mm, 1.0])
    affine[:3, 3] = 30 * per_mm
    for path, array in zip(folder["case_0"], (picture(0), box()), strict=True):
        image = image_of(array, affine)
        image.header.set_xyzt_units(unit)
        nibabel.save(image, path)
    assert_warned(
        tmp_path, r"lengths should be in millimetres \(xyzt_units\), got (metres|micrometres)"
    )
    dataset = open_dataset("folder", tmp_path / "data", DatasetOptions())
    volume = dataset.load(dataset.volumes()[0])
    assert volume.spacing_mm == pytest.approx((2.0, 2.0, 4.0))
    assert volume.affine[:3, 3] == pytest.approx([30.0, 30.0, 30.0])
    assert len(list(warning_lines(check(tmp_path).warnings))) == 1


@pytest.mark.parametrize("unit", ["meter", "micron"])
def test_millimetres_that_are_called_otherwise_are_refused(folder, tmp_path, unit):
    path = folder["case_0"][0]
    set_field(path, "xyzt_units", {"meter": 1, "micron": 3}[unit])
    if unit == "micron":  # 2 µm of one voxel can be meant; labels in millimetres show that not
        said = str(DataError(check(tmp_path).problems))
        assert "labels must have the unit of" in said
        assert "edges of 2 mm where the image has 0.002 mm; correct the unit in the header" in said
    else:
        assert_found(
            tmp_path,
            r"edges of a voxel must be above 0.001 and at most 100 mm, got 2000 × 2000",
            path,
        )


def test_edges_of_one_micrometre_are_an_unset_size_and_refused(folder, tmp_path):
    for path, array in zip(folder["case_0"], (picture(0), box()), strict=True):
        image = image_of(array, np.eye(4))
        image.header.set_xyzt_units("micron")
        nibabel.save(image, path)
    rules = [problem.rule for problem in check(tmp_path).problems]
    assert rules == ["edges of a voxel must be above 0.001 and at most 100 mm"] * 2


def test_forms_that_differ_in_edges_or_axes_are_refused(folder, tmp_path):
    path = folder["case_0"][0]
    image = image_of(picture(0))
    mirrored = np.diag([-2.0, 2.0, 4.0, 1.0])
    image.set_qform(mirrored, code=1)
    image.header["sform_code"] = 1
    nibabel.save(image, path)
    text = assert_found(tmp_path, "sform and qform must agree in where right", path)
    assert "axes RAS and LAS" in text


def test_forms_that_place_a_volume_apart_are_a_warning(folder, tmp_path):
    path = folder["case_0"][0]
    image = image_of(picture(0))
    moved = np.diag([2.0, 2.0, 4.0, 1.0])
    moved[0, 3] = 50
    image.set_qform(moved, code=1)
    nibabel.save(image, path)
    (warning,) = assert_warned(
        tmp_path, r"sform and qform should place the volume alike, got corners up"
    )
    assert "50 apart" in warning.value


def test_a_volume_without_any_form_is_a_warning(folder, tmp_path):
    for path, array in zip(folder["case_0"], (picture(0), box()), strict=True):
        image = nibabel.Nifti1Image(array, None)
        image.header.set_zooms((2.0, 2.0, 4.0))
        nibabel.save(image, path)
        assert nibabel.load(path).header["sform_code"] == 0
    assert len(assert_warned(tmp_path, "where the patient's right, front and head are")) == 2


def test_a_rounded_header_is_no_shear(folder, tmp_path):
    turned = nibabel.eulerangles.euler2mat(0.2, 0.1, 0.3) @ np.diag([2.0, 2.0, 4.0])
    affine = nibabel.affines.from_matvec(turned.round(3), [3, 4, 5])
    for path, array in zip(folder["case_0"], (picture(0), box()), strict=True):
        nibabel.save(image_of(array, affine), path)
    assert check(tmp_path).problems == ()

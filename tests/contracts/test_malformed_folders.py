"""Whatever is wrong with a data folder: a clear error with file and way out, nothing prepared."""

import json
import shutil

import nibabel
import numpy as np
import pytest
from layout_folders import LAYOUTS

from iac_core.config import DatasetOptions, PrepareSettings
from iac_core.data import open_dataset
from iac_core.data.check import check_dataset
from iac_core.data.fingerprint import fingerprint
from iac_core.data.prepare import prepare
from iac_core.data.slices import INDEX
from iac_core.errors import DataError
from iac_core.types import SilentReporter


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Name of a generated folder → the folder, whole."""
    found = {}
    for name, write in LAYOUTS.items():
        root = tmp_path_factory.mktemp(name)
        found[name] = (root, write(root))
    return found


@pytest.fixture
def broken_copy(whole, tmp_path):
    """A function that copies a generated folder and returns its reader and its path."""

    def copy(name, layout=None):
        root, expected = whole[name]
        into = tmp_path / "data"
        shutil.copytree(root, into)
        options = DatasetOptions(**expected.options)
        return into, lambda: open_dataset(layout or expected.layout, into, options)

    return copy


def assert_refused(open_reader, root, path, pattern, into):
    problems = check_dataset(open_reader()).problems
    assert problems
    text = str(DataError(problems))
    with pytest.raises(DataError, match=pattern):
        raise DataError(problems)
    assert str(path) in text
    assert all(problem.way_out and problem.value and problem.file for problem in problems)
    into.mkdir()
    try:
        fingerprint(open_reader(), root)
        prepare(open_reader(), PrepareSettings(size=16, spacing_mm=4.0), into, SilentReporter())
    except DataError:
        assert not (into / INDEX).exists()
    else:  # a label outside the convention can be cut; `run` has refused the folder before
        assert "labels must be among" in text


def load(path):
    image = nibabel.load(path)
    return np.asarray(image.dataobj).copy(), image.affine


def rewrite(path, array, affine):
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def cut_off(image, label):
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 3])
    return image, "must be whole"


def empty(image, label):
    label.write_bytes(b"")
    return label, "must be whole"


def text_instead(image, label):
    image.write_text("<html>not found</html>")
    return image, "must be whole"


def not_a_number(image, label):
    array, affine = load(image)
    array = array.astype(np.float32)
    array[1, 2, 3] = np.nan
    rewrite(image, array, affine)
    return image, r"voxel .*finite number.*1 voxels|finite number"


def other_shape(image, label):
    array, affine = load(label)
    rewrite(label, array[:-1], affine)
    return label, "labels must have the shape of"


def other_grid(image, label):
    array, affine = load(label)
    rewrite(label, array, affine @ np.diag([1, 1, 1.5, 1]))
    return label, "labels must lie on the grid of"


def flat_affine(image, label):
    array, affine = load(image)
    shown = nibabel.Nifti1Image(array, affine)
    header = shown.header.copy()
    header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
    nibabel.save(nibabel.Nifti1Image(array, None, header), image)
    return image, "every voxel at a point of its own"


def unknown_label(image, label):
    array, affine = load(label)
    array = array.astype(np.uint8)
    array[3, 3, 3] = 77
    rewrite(label, array, affine)
    return label, r"voxel \(3, 3, 3\).*labels must be among .*got 77"


def fraction(image, label):
    array, affine = load(label)
    rewrite(label, array.astype(np.float32) * 0.5, affine)
    return label, "whole number"


def negative(image, label):
    array, affine = load(label)
    rewrite(label, array.astype(np.int16) - 1, affine)
    return label, "whole number from 0 to 255"


def one_axis_more(image, label):
    array, affine = load(label)
    rewrite(label, np.stack([array, array], axis=-1), affine)
    return label, "3 axes"


DAMAGES = [
    cut_off, empty, text_instead, not_a_number, other_shape, other_grid, flat_affine,
    unknown_label, fraction, negative, one_axis_more,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda function: function.__name__)
@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_damaged_file_is_named_in_every_layout(broken_copy, tmp_path, name, damage):
    root, open_reader = broken_copy(name)
    ref = open_reader().volumes()[2]
    path, pattern = damage(ref.image_paths[-1], ref.label_path)
    assert_refused(open_reader, root, path, pattern, tmp_path / "prepared")


def edit(path, change):
    header = json.loads(path.read_text())
    change(header)
    path.write_text(json.dumps(header))
    return path


def remove(path):
    path.unlink()
    return path


def write_note(text):
    def change(root):
        (root / "dataset.yaml").write_text(text)
        return root / "dataset.yaml"

    return change


def header(change):
    return lambda root: edit(root / "dataset.json", change)


def drop(key):
    return header(lambda raw: raw.pop(key))


FORM = {
    # BraTS
    ("brats_old", "no sequence"): (
        lambda r: remove(next(r.rglob("BraTS20_Training_002_t2.nii"))).parent,
        "four sequences and labels, got no BraTS20_Training_002_t2"),
    ("brats_old", "no mask"): (
        lambda r: remove(next(r.rglob("BraTS20_Training_002_seg.nii"))).parent,
        "got no BraTS20_Training_002_seg"),
    ("brats_old", "two editions"): (
        lambda r: shutil.copytree(r / "HGG" / "Brats18_CBICA_AAB_1", r / "BraTS-GLI-00001-000")
        and r, "cases of one folder must share a label convention"),
    ("brats_new", "no sequence"): (
        lambda r: remove(next(r.rglob("BraTS-GLI-00003-000-t2w.nii.gz"))).parent,
        "got no BraTS-GLI-00003-000-t2w"),
    ("brats_new", "no mask"): (
        lambda r: remove(next(r.rglob("BraTS-GLI-00003-000-seg.nii.gz"))).parent,
        "got no BraTS-GLI-00003-000-seg"),
    # KiTS
    ("kits19", "no image"): (
        lambda r: remove(r / "data/case_00002/imaging.nii.gz").parent, "challenge's own script"),
    ("kits19", "no labels"): (
        lambda r: remove(r / "data/case_00002/segmentation.nii.gz").parent,
        "got no segmentation"),
    ("kits21", "single annotations alone"): (
        lambda r: remove(r / "kits21/data/case_00002/aggregated_MAJ_seg.nii.gz").parent,
        "restore the aggregated file"),
    ("kits23", "other edition"): (
        lambda r: (r / "dataset/case_00001/segmentation.nii.gz").rename(
            r / "dataset/case_00001/aggregated_MAJ_seg.nii.gz").parent,
        "looks like layout kits21"),
    # AMOS
    ("amos22", "no header"): (lambda r: remove(r / "dataset.json"), "file must exist"),
    ("amos22", "no labels in header"): (drop("labels"), "must have the key 'labels'"),
    ("amos22", "training is no list"): (
        header(lambda raw: raw.update(training={})), "'training', a list"),
    ("amos22", "entry without label"): (
        header(lambda raw: raw["training"][0].pop("label")), "an image and a label"),
    ("amos22", "entry of another name"): (
        header(lambda raw: raw["training"][0].update(image="./imagesTr/scan.nii.gz")),
        "a file like amos_0001"),
    ("amos22", "absent file"): (
        lambda r: remove(r / "imagesTr/amos_0004.nii.gz"), "file must exist"),
    ("amos22", "path outside"): (
        header(lambda raw: raw["training"][0].update(image="../x.nii.gz")),
        "below the data folder"),
    ("amos22", "header is a list"): (
        lambda r: (r / "dataset.json").write_text("[]") and r / "dataset.json", "a JSON object"),
    ("amos22", "label is a word"): (
        header(lambda raw: raw["labels"].update(liver="6")), "whole number from 0 to 255"),
    # MSD
    ("msd_spleen", "no header"): (lambda r: remove(r / "dataset.json"), "file must exist"),
    ("msd_spleen", "broken header"): (
        lambda r: (r / "dataset.json").write_text('{"labels": ') and r / "dataset.json",
        "must be JSON"),
    ("msd_spleen", "no modality"): (drop("modality"), "must have the key 'modality'"),
    ("msd_spleen", "no training"): (drop("training"), "must have the key 'training'"),
    ("msd_spleen", "empty training"): (
        header(lambda raw: raw.update(training=[])), "at least one labelled volume"),
    ("msd_spleen", "entries are names"): (
        header(lambda raw: raw.update(training=["./imagesTr/spleen_2.nii"])),
        "an image and a label"),
    ("msd_spleen", "twice"): (
        header(lambda raw: raw["training"].append(raw["training"][0])), "each file once"),
    ("msd_spleen", "absent labels"): (
        lambda r: remove(r / "labelsTr/spleen_6.nii"), "file must exist"),
    ("msd_brain", "fewer channels than named"): (
        lambda r: header(lambda raw: raw["modality"].update({"4": "PD"}))(r).parent / "imagesTr",
        "fourth for 5 channels"),
    ("msd_prostate", "label 300"): (
        header(lambda raw: raw["labels"].update({"300": "x"})), "whole number from 0 to 255"),
    # nnU-Net
    ("nnunet", "no header"): (
        lambda r: remove(r / "dataset.json").parent, "must hold dataset.json"),
    ("nnunet", "version 1"): (drop("channel_names"), "must have the key 'channel_names'"),
    ("nnunet", "png"): (header(lambda raw: raw.update(file_ending=".png")), "must be NIfTI"),
    ("nnunet", "ignore label"): (
        header(lambda raw: raw["labels"].update(ignore=3)), "every voxel must have a label"),
    ("nnunet", "CT beside MR"): (
        header(lambda raw: raw["channel_names"].update({"1": "CT"})), "all CT or none"),
    ("nnunet", "gap in channels"): (
        header(lambda raw: raw.update(channel_names={"0": "a", "2": "b"})), "numbered from 0"),
    ("nnunet", "missing channel"): (
        lambda r: remove(r / "imagesTr/patient002_frame01_0001.nii.gz").with_name(
            "patient002_frame01_0000.nii.gz"), "one file per channel"),
    ("nnunet", "no labels"): (
        lambda r: remove(r / "labelsTr/patient002_frame01.nii.gz").parents[1]
        / "imagesTr/patient002_frame01_0000.nii.gz", "no labels in labelsTr"),
    ("nnunet", "no image"): (
        lambda r: [remove(r / f"imagesTr/patient002_frame01_000{c}.nii.gz") for c in (0, 1)]
        and r / "labelsTr/patient002_frame01.nii.gz", "no an image|no image"),
    ("nnunet", "no case"): (
        lambda r: [shutil.rmtree(r / f"{kind}{part}") for kind in ("images", "labels")
                   for part in ("Tr", "Ts")] and r / "dataset.json", "must hold a case"),
    ("nnunet", "listed case without images"): (
        header(lambda raw: raw.update(dataset={"a": {"label": "labelsTr/a.nii.gz"}})),
        "images and a label"),
    # a user's folder
    ("folder", "no note"): (
        lambda r: remove(r / "dataset.yaml").parent, "images, labels and dataset"),
    ("folder", "no YAML"): (write_note("labels: {a: [1"), "must be YAML"),
    ("folder", "a list"): (write_note("- labels"), "`name: value` lines"),
    ("folder", "misspelt key"): (
        write_note("labels: {background: 0, a: 1}\nmodalty: ct"), "did you mean 'modality'"),
    ("folder", "no labels"): (write_note("modality: ct"), "labels must map names"),
    ("folder", "no background"): (write_note("labels: {a: 1, b: 2}"), "background to 0"),
    ("folder", "label as text"): (write_note("labels: {a: 0, b: '1'}"), "different whole numbers"),
    ("folder", "label twice"): (write_note("labels: {a: 0, b: 1, c: 1}"), "different whole"),
    ("folder", "modality"): (
        write_note("labels: {a: 0, b: 1}\nmodality: xray"), "mr, mr_masked, ct"),
    ("folder", "channels"): (
        write_note("labels: {a: 0, b: 1}\nchannels: t1"), "channels must be a list"),
    ("folder", "orientation"): (
        write_note("labels: {a: 0, b: 1}\norientation: RAS"), "canonical, file"),
    ("folder", "flips"): (
        write_note("labels: {a: 0, b: 1}\nflip_axes: [x]"), "flip_axes must be"),
    ("folder", "regions"): (
        write_note("labels: {a: 0, b: 1}\nregions: {c: [1, 5]}"), "regions must map"),
    ("folder", "pattern"): (
        write_note("labels: {a: 0, b: 1}\npatient_pattern: 'P(\\d+'"), "with one group"),
    ("folder", "pattern finds nothing"): (
        lambda r: (r / "dataset.yaml").write_text(
            "labels: {background: 0, kidney: 1, tumour: 2}\npatient_pattern: '(P\\d+)'\n")
        and "amos_0001", "must find the patient"),
    ("folder", "no image"): (
        lambda r: remove(r / "images/scan 7.nii.gz").parents[1] / "labels/scan 7.nii.gz",
        "image and labels"),
    ("folder", "no label file"): (
        lambda r: remove(r / "labels/amos_0003.nii.gz").parents[1] / "images/amos_0003.nii.gz",
        "image and labels"),
    ("folder", "nothing in it"): (
        lambda r: [shutil.rmtree(r / name) for name in ("images", "labels")] and r,
        "NIfTI files of the same names"),
    ("folder", "more channels than files"): (
        lambda r: (r / "dataset.yaml").write_text(
            "labels: {background: 0, kidney: 1, tumour: 2}\nchannels: [a, b]\n")
        and r / "images", "one file per channel"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(FORM), ids=lambda case: f"{case[0]}-{case[1]}")
def test_a_folder_that_breaks_its_form_is_refused(broken_copy, tmp_path, case):
    change, pattern = FORM[case]
    root, open_reader = broken_copy(case[0])
    path = change(root)
    assert_refused(open_reader, root, path, pattern, tmp_path / "prepared")


FAMILY = {name: name.split("_")[0].rstrip("0123456789") for name in LAYOUTS}
STRANGERS = [
    (layout, name)
    for layout in ("acdc", "brats", "kits19", "kits23", "nnunet", "folder")
    for name in sorted(LAYOUTS)
    if FAMILY[name] != layout.rstrip("0123456789")
]


@pytest.mark.parametrize(("layout", "name"), STRANGERS)
def test_a_folder_of_another_layout_is_refused(broken_copy, tmp_path, layout, name):
    root, open_reader = broken_copy(name, layout)
    assert_refused(open_reader, root, root, "must hold|must have the key", tmp_path / "prepared")


def test_there_are_at_least_sixty_kinds_of_malformed_input():
    assert len(FORM) + len(DAMAGES) >= 60

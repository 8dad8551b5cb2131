"""``dataset.json``, ``dataset.yaml`` and ``Info.cfg``: one error with the file and the rule."""

import json
import os

import pytest
from broken_volumes import box, image_of, picture, write_folder
from layout_folders import LAYOUTS
from nibabel import save

from iac_core.config import DatasetOptions
from iac_core.data import open_dataset
from iac_core.data.acdc import read_info
from iac_core.data.check import check_dataset
from iac_core.data.fingerprint import fingerprint
from iac_core.errors import DataError


def problems_of(layout, root):
    return check_dataset(open_dataset(layout, root, DatasetOptions())).problems


def assert_one(layout, root, path, pattern):
    """Assert that the only problem is one of this file."""
    problems = problems_of(layout, root)
    with pytest.raises(DataError, match=pattern):
        raise DataError(problems)
    assert [problem.file for problem in problems] == [str(path)]
    assert problems[0].way_out


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("labels: {background: 0, größe: 1}".encode("latin-1"), "must be UTF-8"),
        ("labels: {background: 0, a: 1}".encode("utf-16"), "must be UTF-8|must be YAML"),
        (b"labels: {background: 0, a: 1}\x00", "must be YAML"),
        (b"labels: {background: 0, 2020-01-01: 1}", "a key must be text, got .*put it in quotes"),
        (b"labels: {background: 0, no: 1}", "a key must be text, got .*put it in quotes"),
        (b"labels: {background: 0, 1: 1}", "a key must be text, got .*put it in quotes"),
        (b"labels: {background: 0, a: 2020-01-01}", "got a date"),
        (b"labels: {background: 0, a: 1.0}", "different whole numbers"),
        (b"labels: {background: 0, a: true}", "different whole numbers"),
        (b"labels: {background: 0, a: 1, a: 2}", ":1: a key must stand once, got 'a' also"),
        (b"labels: {background: 0, a: 1}\nlabels: {b: 1}", ":2: a key must stand once"),
        (b"labels: {background: 0, a: 2020-13-45}", "got a date"),
        (b"labels: {background: 0, a: !!binary aGk=}", "a tag must be one of plain data"),
        (b"labels: !!python/object/apply:os.system [id]", "a tag must be one of plain data"),
        (b"labels: &x {background: 0, a: 1}\nregions: *x", "regions must map names"),
        (b"labels: " + b"[" * 100 + b"]" * 100, "at most 32 deep"),
        (b"labels: " + b"{a: " * 3000, "at most 32 deep"),
        (b"labels: {background: 0, a: " + b"9" * 5000 + b"}", "a whole number must be from"),
        (b"# " + b"x" * 2**22, "at most 4 MiB"),
        (b"labels: {background: 0, a: 1}\nmodality: [mr]", "modality must be one of"),
        (b"labels: {background: 0, a: 1}\norientation: {}", "orientation must be one of"),
        (b"labels: {background: 0, a: 1}\nregions: {r: [[1]]}", "regions must map names"),
        (b"labels: {background: 0, a: 1}\nregions: {1: [1]}", "a key must be text"),
        (b"labels: {background: 0, a: 1}\nregions: {r: [true]}", "regions must map names"),
        (b"labels: {background: 0, a: 1}\nchannels: {t1: 0}", "channels must be a list"),
        (b"labels: {background: 0, a: 1}\npatient_pattern: 7", "patient_pattern must be"),
        (b"? [labels]\n: 1", "a key must be text"),
    ],
)  # fmt: skip
def test_a_yaml_that_breaks_a_rule_is_one_error(tmp_path, text, pattern):
    write_folder(tmp_path)
    note = tmp_path / "dataset.yaml"
    note.write_bytes(text)
    with pytest.raises(DataError, match=pattern):
        raise DataError(problems_of("folder", tmp_path))
    assert {problem.file for problem in problems_of("folder", tmp_path)} == {str(note)}


@pytest.fixture(params=["msd_spleen", "amos22", "nnunet"])
def with_json(request, tmp_path):
    """A folder with a ``dataset.json``: its layout, the folder, the file."""
    root = tmp_path / request.param
    expected = LAYOUTS[request.param](root)
    return expected.layout, root, root / "dataset.json"


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (lambda text: text.replace("labels", "läbels", 1).encode("latin-1"), "must be UTF-8"),
        (lambda text: b"[" * 100_000, "nested deeper than 20"),
        (lambda text: b'{"a": ' * 15 + text.encode() + b"}" * 15, "must have the key"),
        (lambda text: text.rstrip()[:-1].encode() + b', "x": ' + b"[" * 30 + b"]" * 30 + b"}",
         "nested deeper than 20"),
        (lambda text: text.encode().replace(b'"training"', b'"labels": {}, "training"', 1).replace(
            b'"file_ending"', b'"labels": {}, "file_ending"', 1), "stand once .*'labels' twice"),
        (lambda text: text.rstrip()[:-1].encode() + b', "x": "\\ud800"}', "halves of characters"),
        (lambda text: text.rstrip()[:-1].encode() + b', "x": "\\u0000"}', "control characters"),
        (lambda text: text.rstrip()[:-1].encode() + b', "x": ' + b"9" * 5000 + b"}", "be JSON"),
        (lambda text: b"null", "must be a JSON object"),
        (lambda text: b"", "must be JSON"),
    ],
)  # fmt: skip
def test_a_json_that_breaks_a_rule_is_one_error(with_json, content, pattern):
    layout, root, path = with_json
    path.write_bytes(content(path.read_text()))
    problems = problems_of(layout, root)
    with pytest.raises(DataError, match=pattern):
        raise DataError(problems)
    assert {problem.file for problem in problems} == {str(path)}


def changed(path, change):
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize("value", [[1], {"a": 1}, None, True, "", "x" * 10**5])
def test_labels_of_wrong_types_are_one_error(with_json, value):
    layout, root, path = with_json
    if layout == "nnunet":
        changed(path, lambda raw: raw["labels"].update(new=[value]))
    elif isinstance(value, str) and value:
        changed(path, lambda raw: raw["labels"].update({value: "new"}))
    else:
        changed(path, lambda raw: raw["labels"].update({"9": value}))
    problems = problems_of(layout, root)
    assert [problem.file for problem in problems] == [str(path)]
    assert len(str(problems[0])) < 400


def repeat_a_name(raw):
    raw["labels"]["77"] = next(name for value, name in raw["labels"].items() if value != "0")


def test_two_labels_of_one_name_lose_no_class_in_silence(tmp_path):
    for name in ("msd_spleen", "amos22"):
        root = tmp_path / name
        layout = LAYOUTS[name](root).layout
        changed(root / "dataset.json", repeat_a_name)
        assert_one(layout, root, root / "dataset.json", "must differ, or a class is lost")


def test_one_label_written_twice_loses_no_class_in_silence(tmp_path):
    for name in ("msd_spleen", "amos22"):
        root = tmp_path / name
        layout = LAYOUTS[name](root).layout
        changed(root / "dataset.json", lambda raw: raw["labels"].update({"01": "other"}))
        assert_one(layout, root, root / "dataset.json", "a label must stand once, got '01' twice")


@pytest.mark.parametrize("name", [7, None, "", "./", "../x.nii.gz", {"a": 1}])
def test_entries_that_name_no_file_leave_the_others_to_the_check(tmp_path, name):
    layout = LAYOUTS["msd_spleen"](tmp_path).layout
    path = tmp_path / "dataset.json"
    n_volumes = len(json.loads(path.read_text())["training"])
    changed(path, lambda raw: raw["training"][0].update(image=name))
    summary = check_dataset(open_dataset(layout, tmp_path, DatasetOptions()))
    assert [problem.file for problem in summary.problems] == [str(path)]
    assert summary.n_volumes == n_volumes - 1


def test_a_case_twice_in_amos_is_named(tmp_path):
    layout = LAYOUTS["amos22"](tmp_path).layout
    path = tmp_path / "dataset.json"
    changed(path, lambda raw: raw["validation"].append(raw["training"][0]))
    assert_one(layout, tmp_path, path, "each file once")


def test_a_case_in_two_folders_is_named(tmp_path):
    layout = LAYOUTS["kits19"](tmp_path / "kits").layout
    (tmp_path / "kits" / "case_00000").mkdir()
    problems = problems_of(layout, tmp_path / "kits")
    assert "a case must have one folder" in {problem.rule for problem in problems}


def test_frames_of_one_number_are_named(tmp_path):
    LAYOUTS["acdc"](tmp_path)
    folder = tmp_path / "training" / "patient001"
    save(image_of(picture(1)), folder / "patient001_frame1.nii.gz")
    save(image_of(box()), folder / "patient001_frame1_gt.nii.gz")
    problems = problems_of("acdc", tmp_path)
    values = {problem.value for problem in problems if problem.rule == "a case must have one file"}
    assert "patient001_frame01.nii.gz and patient001_frame1.nii.gz" in values


@pytest.mark.parametrize("text", ["ED: ²\nES: 8\n", "ED: 1\nES: " + "9" * 5000, "\x00"])
def test_an_info_without_numbers_counts_as_none(tmp_path, text):
    LAYOUTS["acdc"](tmp_path)
    (tmp_path / "training" / "patient001" / "Info.cfg").write_text(text)
    assert problems_of("acdc", tmp_path) == ()


def test_an_info_that_is_no_small_file_is_named(tmp_path):
    path = tmp_path / "Info.cfg"
    path.write_bytes(b"x" * 2**17)
    with pytest.raises(DataError, match="at most 65536 bytes"):
        read_info(path)
    path.unlink()
    path.mkdir()
    assert read_info(path) == {}


def test_a_name_that_is_not_utf8_is_named(tmp_path):
    write_folder(tmp_path)
    source = os.fsencode(tmp_path / "images" / "case_0.nii.gz")
    os.rename(source, source.replace(b"case_0", b"case_\xff"))
    (problem,) = problems_of("folder", tmp_path)
    assert problem.file == str(tmp_path / "images")
    assert "UTF-8" in problem.rule
    str(problem).encode()


def test_a_name_that_no_file_can_have_is_an_absent_file(tmp_path):
    layout = LAYOUTS["msd_spleen"](tmp_path).layout
    changed(
        tmp_path / "dataset.json",
        lambda raw: raw["training"][0].update(label="x" * 5000 + ".nii.gz"),
    )
    dataset = open_dataset(layout, tmp_path, DatasetOptions())
    assert len(check_dataset(dataset).problems) == 1
    with pytest.raises(DataError, match="a file that the data set names must exist"):
        fingerprint(dataset, tmp_path)

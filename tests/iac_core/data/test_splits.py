import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iac_core.config import SplitSettings
from iac_core.data.splits import Split, make_split
from iac_core.errors import ConfigError

PATIENTS = [f"patient{number:03d}" for number in range(1, 43)]


@given(st.integers(10, 60), st.integers(2, 5), st.integers(0, 5))
def test_folds_are_disjoint_complete_and_test_every_patient_once(n, n_folds, seed):
    patients = [f"p{number}" for number in range(n)]
    tested = []
    for fold in range(n_folds):
        split = make_split(patients, SplitSettings(n_folds=n_folds, fold=fold, seed=seed))
        parts = [*split.train, *split.validation, *split.test]
        assert sorted(parts) == sorted(patients)
        tested += split.test
    assert sorted(tested) == sorted(patients)


def test_the_split_depends_on_its_seed_and_not_on_the_order_of_patients():
    settings = SplitSettings()
    assert make_split(PATIENTS[::-1], settings) == make_split(PATIENTS, settings)
    assert make_split(PATIENTS, replace(settings, seed=1)) != make_split(PATIENTS, settings)


def test_fewer_training_patients_leave_validation_and_test_as_they_are():
    whole = make_split(PATIENTS, SplitSettings())
    scarce = make_split(PATIENTS, SplitSettings(n_train_patients=5))
    assert len(scarce.train) == 5
    assert set(scarce.train) < set(whole.train)
    assert (scarce.validation, scarce.test) == (whole.validation, whole.test)


def test_a_split_is_saved_with_its_hash_and_a_changed_file_is_refused(tmp_path):
    path = tmp_path / "split.json"
    split = make_split(PATIENTS, SplitSettings())
    split.save(path)
    assert Split.load(path) == split
    raw = json.loads(path.read_text())
    raw["test"] = raw["test"][1:]
    path.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="must have the hash"):
        Split.load(path)


def write(tmp_path, **parts):
    path = tmp_path / "split.json"
    path.write_text(json.dumps(parts))
    return SplitSettings(file=str(path))


def test_a_file_gives_the_parts(tmp_path):
    settings = write(
        tmp_path, train=PATIENTS[:3], validation=PATIENTS[3:4], test=PATIENTS[4:6], note="x"
    )
    split = make_split(PATIENTS, settings)
    assert (len(split.train), len(split.validation), len(split.test)) == (3, 1, 2)


@pytest.mark.parametrize(
    ("parts", "pattern"),
    [
        ({"train": ["patient001", "patient01"]}, "patient01; did you mean 'patient0"),
        ({"train": ["patient003"], "test": ["patient003"]}, "one part once, got patient003"),
        ({"train": []}, "got none in 'train'"),
        ({"train": "patient001"}, "a split file must be JSON"),
    ],
)
def test_a_wrong_file_is_refused_with_the_patient_named(tmp_path, parts, pattern):
    whole = {"train": ["patient001"], "validation": ["patient002"], "test": ["patient005"]}
    with pytest.raises(ConfigError, match=pattern):
        make_split(PATIENTS, write(tmp_path, **{**whole, **parts}))


def test_fewer_patients_than_folds_are_refused():
    with pytest.raises(ConfigError, match="at least as many patients as folds"):
        make_split(PATIENTS[:3], SplitSettings(n_folds=5))


def test_an_empty_part_is_refused():
    with pytest.raises(ConfigError, match="got none in 'train'"):
        make_split(PATIENTS[:2], SplitSettings(n_folds=2, validation_share=0.9))


OFFICIAL = SplitSettings(test="official", validation_share=0.25)


def test_the_official_test_part_is_the_test_part_and_folds_rotate_the_validation_patients():
    official = PATIENTS[30:]
    splits = [make_split(PATIENTS, replace(OFFICIAL, fold=fold), official) for fold in range(3)]
    for split in splits:
        assert split.test == tuple(official)
        assert sorted(split.train + split.validation) == PATIENTS[:30]
    assert len({patient for split in splits for patient in split.validation}) == 3 * 8


NEXT = SplitSettings(validation="next_fold")


@given(st.integers(3, 7), st.integers(0, 40), st.integers(0, 5), st.integers(2, 9))
def test_with_the_next_fold_every_patient_tests_once_and_validates_once(
    n_folds, n_more, seed, n_train
):
    patients = [f"p{number}" for number in range(n_folds + n_more)]
    tested, validated = [], []
    for fold in range(n_folds):
        settings = replace(NEXT, n_folds=n_folds, fold=fold, seed=seed)
        split = make_split(patients, settings)
        assert sorted([*split.train, *split.validation, *split.test]) == sorted(patients)
        assert split.train
        following = make_split(patients, replace(settings, fold=(fold + 1) % n_folds))
        assert split.validation == following.test
        scarce = make_split(patients, replace(settings, n_train_patients=n_train))
        assert len(scarce.train) == min(n_train, len(split.train))
        assert set(scarce.train) <= set(split.train)
        assert (scarce.validation, scarce.test) == (split.validation, split.test)
        tested += split.test
        validated += split.validation
    assert sorted(tested) == sorted(validated) == sorted(patients)


def test_the_test_fold_is_the_same_whoever_validates_and_the_share_is_ignored():
    for fold in range(5):
        settings = replace(NEXT, fold=fold)
        split = make_split(PATIENTS, settings)
        assert split.test == make_split(PATIENTS, SplitSettings(fold=fold)).test
        assert split == make_split(PATIENTS, replace(settings, validation_share=0.5))


def test_two_folds_leave_nobody_to_train_beside_the_next_fold():
    with pytest.raises(ConfigError, match=r"n_folds must be at least 3 .*, got 2"):
        replace(NEXT, n_folds=2)


@given(st.integers(3, 6), st.integers(0, 20), st.integers(1, 9), st.integers(0, 3))
def test_beside_an_official_part_the_others_are_dealt_and_validate_once(
    n_folds, n_more, n_official, seed
):
    others = [f"p{number}" for number in range(n_folds + n_more)]
    official = [f"test{number}" for number in range(n_official)]
    validated = []
    for fold in range(n_folds):
        settings = replace(NEXT, test="official", n_folds=n_folds, fold=fold, seed=seed)
        split = make_split([*others, *official], settings, official)
        assert split.test == tuple(sorted(official))
        assert sorted([*split.train, *split.validation]) == sorted(others)
        scarce = replace(settings, n_train_patients=2, validation_share=0.5)
        assert set(make_split([*others, *official], scarce, official).train) <= set(split.train)
        validated += split.validation
    assert sorted(validated) == sorted(others)


def test_fewer_patients_than_folds_beside_an_official_part_are_refused():
    settings = replace(NEXT, test="official", fold=3)
    with pytest.raises(ConfigError, match=r"got none in 'validation' .*; use fewer folds"):
        make_split(PATIENTS[:10], settings, PATIENTS[4:])


def test_without_an_official_part_the_fold_is_tested():
    fold = make_split(PATIENTS, replace(OFFICIAL, test="fold"))
    assert make_split(PATIENTS, OFFICIAL) == fold
    assert make_split(PATIENTS, replace(OFFICIAL, test="fold"), PATIENTS[30:]) == fold

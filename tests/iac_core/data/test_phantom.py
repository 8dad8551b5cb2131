import numpy as np
import pytest

from iac_core.data.acdc import Acdc
from iac_core.data.check import check_dataset
from iac_core.data.phantom import PhantomSettings, write_phantom
from iac_core.errors import ConfigError


def test_a_phantom_is_a_clean_folder_of_varied_hearts(phantom_folder):
    summary = check_dataset(Acdc(phantom_folder))
    assert (summary.n_patients, summary.n_volumes, summary.problems) == (8, 16, ())
    (low, high), _, step = summary.spacing_mm
    assert 1.2 <= low < high <= 1.9
    assert 5 <= step[0] < step[1] <= 10


def test_the_heart_contracts_and_holds_all_three_structures(phantom_folder):
    dataset = Acdc(phantom_folder)
    refs = dataset.volumes()
    for diastole, systole in zip(refs[::2], refs[1::2], strict=True):
        assert (diastole.phase, systole.phase) == ("ED", "ES")
        large, small = (dataset.load(ref).labels for ref in (diastole, systole))
        assert (large == 3).sum() > (small == 3).sum() > 0
        assert set(np.unique(large)) == {0, 1, 2, 3}


def test_end_slices_hold_little_or_nothing_of_the_heart(phantom_folder):
    dataset = Acdc(phantom_folder)
    areas = [(dataset.load(ref).labels > 0).sum(axis=(0, 1)) for ref in dataset.volumes()]
    assert all(area[-1] < 0.5 * area.max() for area in areas)


def test_the_seed_fixes_every_byte_and_another_seed_changes_them(tmp_path):
    contents = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_phantom(tmp_path / name, PhantomSettings(n_patients=1, seed=seed))
        files = sorted((tmp_path / name / "training").rglob("*_gt.nii.gz"))
        contents.append([path.read_bytes()[10:] for path in files])
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]


def test_writing_the_same_phantom_again_does_nothing(tmp_path):
    assert write_phantom(tmp_path / "p", PhantomSettings(n_patients=1))
    assert not write_phantom(tmp_path / "p", PhantomSettings(n_patients=1))


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="must be empty"):
        write_phantom(tmp_path, PhantomSettings(n_patients=1))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

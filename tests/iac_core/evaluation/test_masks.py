"""Masks come back as they were written; what is not whole is named."""

import numpy as np
import pytest

from iac_core.errors import DataError
from iac_core.evaluation.masks import INDEX, MaskOfVolume, Masks, write_index, write_mask

MASK = MaskOfVolume(subset="test", patient_id="p", volume_id="p/ed", file="mask_00000.npz")


@pytest.fixture
def folder(tmp_path):
    labels = np.random.default_rng(0).integers(0, 4, (7, 5, 3)).astype(np.uint8)
    write_mask(tmp_path / MASK.file, labels)
    write_index(tmp_path, [MASK])
    return tmp_path, labels


def test_a_mask_is_read_by_the_name_of_its_volume(folder):
    path, labels = folder
    found = Masks(path).of("p/ed")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels)


def test_a_mask_that_is_not_there_or_not_whole_is_named(folder):
    path, _ = folder
    with pytest.raises(DataError, match="no mask of p/es"):
        Masks(path).of("p/es")
    for damage in (b"", b"PK\x03\x04", (path / MASK.file).read_bytes()[:-30]):
        (path / MASK.file).write_bytes(damage)
        with pytest.raises(DataError, match=r"mask_00000\.npz: predicted masks must be whole"):
            Masks(path).of("p/ed")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"masks": [{"volume_id": "p"}]}', b"{}"])
def test_an_index_that_is_not_whole_is_named(folder, damage):
    path, _ = folder
    (path / INDEX).write_bytes(damage)
    with pytest.raises(DataError, match=r"masks\.json: predicted masks must be whole"):
        Masks(path)

"""Small files are whole or absent; a damaged one counts as absent and is named once."""

import logging
import os

import pytest

from files.encoding import DamagedError, from_json
from files.reading import read_json
from files.writing import whole_file, write_json, write_text


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "below" / "note.json"
    write_json(path, {"a": [1, 2.5, None, "é"]})
    assert read_json(path, dict) == {"a": [1, 2.5, None, "é"]}
    assert os.listdir(path.parent) == ["note.json"]


def test_a_block_that_raises_changes_nothing(tmp_path):
    path = tmp_path / "note.txt"
    write_text(path, "before")

    def fails():
        with whole_file(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_the_longest_name_that_a_folder_takes_is_written(tmp_path):
    path = tmp_path / ("n" * 255)
    write_text(path, "whole")
    assert path.read_text() == "whole"


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "note.json", {"a": float("nan")})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b"[" * 100_000])
def test_a_damaged_file_counts_as_absent_and_is_named_once(content, tmp_path, caplog):
    path = tmp_path / "note.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert read_json(path, dict) is None
        assert read_json(path, dict) is None
    (message,) = caplog.messages
    assert str(path) in message
    with pytest.raises(DamagedError):
        from_json(content, dict)


def test_an_absent_file_is_no_damage(tmp_path, caplog):
    assert read_json(tmp_path / "none.json", dict) is None
    assert not caplog.messages

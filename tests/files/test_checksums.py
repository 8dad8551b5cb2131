"""Every changed, missing or cut file is told; every changed byte of a note too."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from files.checksums import checksum_of, checksum_of_file, checksums_of, damage_of
from files.encoding import DamagedError, from_json, to_json
from files.journal import checked, cut_torn_end, first_damage, line_of

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
NOTES = st.dictionaries(st.text().filter(lambda name: name != "checksum"), PLAIN, min_size=1)


@given(NOTES, st.booleans())
def test_a_note_comes_back_without_its_checksum(note, is_indented):
    try:
        content = to_json(note, is_indented=is_indented)
    except (ValueError, UnicodeEncodeError):  # an infinite number, half a surrogate pair
        return
    assert from_json(content, dict) == note
    assert json.loads(content)["checksum"]


@pytest.mark.parametrize("is_indented", [True, False])
def test_every_flipped_bit_of_a_note_is_found_or_changes_nothing(is_indented):
    note = {"n": 17, "pairs": [[1, 2.5], ["é", None]], "below": {"checksum of": True}}
    content = to_json(note, is_indented=is_indented)
    for place in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            try:
                found = from_json(bytes(changed), dict)
            except DamagedError:
                continue
            # The name of the checksum itself: everything else is as it was.
            extra = {name: value for name, value in found.items() if name not in note}
            assert {**note, **extra} == found
            assert list(map(len, extra)) == [len("checksum")]


@pytest.mark.parametrize("size", [1, 10, 30, -1])
def test_a_cut_note_is_damaged(size):
    content = to_json({"n": 17, "pairs": [[1, 2.5]]})
    with pytest.raises(DamagedError):
        from_json(content[:size], dict)


def test_a_note_of_an_older_version_has_no_checksum_and_is_taken_as_it_is():
    assert from_json(b'{"n": 17}', dict) == {"n": 17}


def test_damage_of_a_folder_is_named(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a").write_bytes(b"1234")
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "c.17.tmp").write_bytes(b"half")
    sums = checksums_of(tmp_path, lambda name: name != "manifest.json")
    assert sums == {"b": (0, "00000000"), "below/a": checksum_of(b"1234")}
    sums = json.loads(json.dumps(sums))
    assert damage_of(tmp_path, sums) is None
    (tmp_path / "below" / "a").write_bytes(b"1235")
    assert "below/a must have the CRC-32 9be3e0a3" in damage_of(tmp_path, sums)
    (tmp_path / "below" / "a").write_bytes(b"123")
    assert damage_of(tmp_path, sums) == "below/a must have 4 bytes, got 3"
    (tmp_path / "below" / "a").unlink()
    assert damage_of(tmp_path, sums) == "below/a is missing"
    (tmp_path / "below" / "a").mkdir()
    assert damage_of(tmp_path, sums) == "below/a is missing"


def test_a_file_larger_than_a_chunk_has_the_checksum_of_its_content(tmp_path):
    content = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(content)
    assert checksum_of_file(tmp_path / "a") == checksum_of(content)


def journal(tmp_path, n=3):
    path = tmp_path / "study.journal"
    path.write_bytes(b"".join(line_of({"op": number, "at": {"1": 0.5}}) for number in range(n)))
    return path


def test_a_torn_end_is_cut_and_kept(tmp_path):
    path = journal(tmp_path)
    whole = path.read_bytes()
    assert cut_torn_end(path) is None
    path.write_bytes(whole + b'{"op":3,"a')
    kept = cut_torn_end(path)
    assert path.read_bytes() == whole
    assert kept.read_bytes() == b'{"op":3,"a'
    assert first_damage(path) is None
    assert cut_torn_end(tmp_path / "none") is None


def test_a_damaged_line_is_named(tmp_path):
    path = journal(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"0.5", b"0.7") + lines[2])
    assert first_damage(path) == (2, "must have its checksum, got another content")
    path.write_bytes(lines[0] + lines[1][:9] + b"\n" + lines[2])
    assert first_damage(path)[0] == 2
    assert first_damage(tmp_path / "none") is None


def test_a_line_of_an_older_version_has_no_checksum():
    assert checked({"op": 3}) == {"op": 3}

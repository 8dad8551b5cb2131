import re

import pytest
import yaml

from iac_core.bounded_yaml import build, compose, needs_quotes, read_scalar, read_text, write
from iac_core.bounded_yaml.nodes import MOST_DEPTH, MOST_NODES
from iac_core.bounded_yaml.text import MOST_MIB
from iac_core.errors import ConfigError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


def built(text):
    root = compose(text, "f")
    assert root is not None
    return build(root, "f")


@pytest.mark.parametrize(
    "text",
    [
        "a: {b: [1, 2.5, true, null, x, '3', ~, 3.0e-3], c: [], d: {}}",
        "t: &t {e: 1, x: 2}\nu: {<<: *t, e: 3}\nv: {<<: [*t, {x: 5, y: 6}], z: 1}\nw: {a: 1, <<: *t}",  # noqa: E501
        "a: 010\nb: 0x1F\nc: 1_000\nd: 1:30\ne: '0x1F'\nf: !!str 2017\ng: ! 5\nh: 1e5x",
        'a: |\n  two\n  lines\nb: >\n  folded\n  lines\nc: "\\u00e9"\n? d\n: e',
        "- 1\n- [2]\n",
        "x",
    ],
)
def test_plain_data_are_what_yaml_makes_of_them(text):
    found = built(text)
    assert found.faults == []
    assert found.value == yaml.safe_load(text)


def test_lines_are_those_of_the_keys_also_of_merged_ones():
    found = built("t: &t {epochs: 1,\n  x: 2}\nu:\n  <<: *t\n  epochs: 3\n")
    assert found.value["u"] == {"epochs": 3, "x": 2}
    assert found.lines["u", "epochs"] == 5
    assert found.lines["u", "x"] == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (BOMB, 5, f"at most {MOST_NODES} keys and values"),
        ("a:\n  - &a [*a]", 2, "must not stand inside of what it names, got *a"),
        ("a: &a\n  <<: *a", 2, "must not stand inside"),
        ("a: *b", 1, "an alias must follow its anchor, got *b; anchors before it: none"),
        ("a: &x 1\nb: &x 2", 2, "an anchor must stand once"),
        ("[" * 100_000, 1, f"at most {MOST_DEPTH} deep"),
        ("a: " + "{a: " * 40 + "1" + "}" * 40, 1, f"at most {MOST_DEPTH} deep"),
        ("a: [" + "1," * MOST_NODES + "]", 1, "keys and values"),
        ("a: 1\n---\nb: 2", 2, "one document"),
        ("a: 1\nb: ]", 2, "must be YAML"),
        ("a:\n\t- b", 2, "must be YAML"),
        ("a: %x\nb: @y", 1, "must be YAML"),
    ],
)
def test_a_text_beyond_the_limits_is_refused_at_its_line(text, line, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        compose(text, "f")
    assert re.match(rf"f:{line}: ", str(caught.value)), caught.value


def test_an_alias_that_makes_a_text_too_deep_is_refused():
    deep = "[" * 20 + "]" * 20
    with pytest.raises(ConfigError, match="deep"):
        compose(f"a: &a {deep}\nb: {'[' * 15}*a{']' * 15}", "f")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x: " + "9" * 100_000, "must be from -2**63"),
        ("x: 9223372036854775808", "must be from -2**63"),
        ("x: -9223372036854775808", "must be from -2**63"),
        *((f"x: {value}", "must be finite") for value in (".inf", "-.Inf", ".nan", "1e999")),
        ("x: 2020-01-01", "got a date, 2020-01-01; put it in quotes: '2020-01-01'"),
        ("x: 2020-01-01 10:00:00", "got a date"),
        ("x: !!binary aGVsbG8=", "got !!binary"),
        ("x: !!set {a, b}", "got !!set"),
        ("x: !!omap [a: 1]", "got !!omap"),
        ("x: !!python/object/apply:os.system [ls]", "got !!python/object/apply:os.system"),
        ("x: !mine 3", "got !mine"),
        ("x: !!bool maybe", "true or false must be one, got maybe"),
        ("x: !!int a", "a whole number must be one"),
        ("x: 0b_", "a whole number must be one"),
        ('x: "a\\0b"', "control characters"),
        ('x: "\\x1b[31m"', "control characters"),
        ('"a\\0b": x', "control characters"),
        ("2017: x", "a key must be text, got a whole number, 2017; put it in quotes: '2017'"),
        ("no: x", "got true or false, no; put it in quotes: 'no'"),
        ("~: x", "got nothing"),
        ("1.5: x", "got a number"),
        ("2020-01-01: x", "got a date"),
        ("[a]: x", "a key must be text, got a list"),
        ("{a: b}: x", "a key must be text, got a mapping"),
        ("x: 1\nx: 2", "a key must stand once, got 'x' also in line 1"),
        ("x: {<<: {a: 1}, <<: {b: 2}}", "a key must stand once"),
        ("x: {<<: 3}", "<< must name a mapping"),
        ("x: <<", "put it in quotes: '<<'"),
    ],
)
def test_what_is_no_plain_data_is_noted(text, words):
    said = [str(fault.problem) for fault in built(text).faults]
    assert any(words in one for one in said), said


@pytest.mark.parametrize(
    ("raw", "line", "words"),
    [
        ("a: 1\nb: é".encode("latin-1"), 2, "must be UTF-8, got the byte 0xe9"),
        ("a: é".encode("utf-16"), 1, "got UTF-16"),
        ("a: é".encode("utf-32"), 1, "got UTF-32"),
        ("a: x".encode("utf-16-le"), 1, "is it UTF-16?"),
        (b"a: 1\nb: \x00", 2, "control characters, got '\\x00'"),
        (b"a: \x1b[31m", 1, "control characters"),
    ],
)
def test_a_file_that_is_no_text_says_what_it_is(tmp_path, raw, line, words):
    path = tmp_path / "f.yaml"
    path.write_bytes(raw)
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        read_text(path, what="sweep file")
    assert str(caught.value).startswith(f"{path}:{line}: ")


def test_a_byte_order_mark_is_left_out(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("a: é", encoding="utf-8-sig")
    assert read_text(path, what="sweep file") == "a: é"


def test_what_is_no_small_file_is_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * (MOST_MIB * 2**20 + 1))
    for name, words in (
        ("pipe", "a device or pipe"),
        (".", "a folder"),
        ("absent", "No such file"),
        ("large", f"at most {MOST_MIB} MiB"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_text(tmp_path / name, what="sweep file")


def test_a_single_value_is_read_as_in_a_file():
    assert [read_scalar(word) for word in ("3", "no", "0.5", "x")] == [3, False, 0.5, "x"]
    for word in ("2020-01-01", "[1", ".inf", "a\nb: c"):
        with pytest.raises(ConfigError, match=r"quote|finite"):
            read_scalar(word)


def test_a_word_that_needs_quotes_says_why():
    assert needs_quotes("2017").endswith("a whole number")
    assert write({"a": "no", "b": "2017"}) == "a: 'no'\nb: '2017'\n"

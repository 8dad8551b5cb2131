"""Sweep files that somebody may write: each works, or ends in a clear error."""

import re

import pytest

from iac_core.errors import ConfigError
from orchestrator.expand import expand
from orchestrator.plan import KnownRecords, kept_feature_sizes
from orchestrator.session import open_sweep, tables
from orchestrator.spec import MOST_EXCLUDES, MOST_JOBS, SweepError, load_sweep

GOOD = """\
metadata:
  sweep:
    name: good
    datasets:
      acdc: {layout: acdc, path: data}
    grid:
      dataset: [acdc]
      backbone: [unet, wide]
      pruner: [none, patient, random]
      seed: [0, 1]
    backbones:
      wide: {type: unet, widths: [32, 64]}
    pruners:
      patient: {type: js_stability, patience_epochs: 9}
    resources: {threads: 1}
"""
CELL = "dataset: acdc, backbone: unet, pruner: none, "


def load(tmp_path, text, **overrides):
    path = tmp_path / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return load_sweep(path, tables=tables(), overrides=overrides)


def changed(old, new):
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def with_extra(extra):
    return changed("    resources", f"    {extra}\n    resources")


def numbers(n):
    return f"[{', '.join(map(str, range(n)))}]"


BAD = [
    # text, line, words
    (changed("type: unet,", "type: [x],"), 12, "backbone must be a known one, got ['x']"),
    (changed("layout: acdc", "layout: no"), 5, "put it in quotes: 'no'"),
    (changed("name: good", "name: 2017"), 3, "put it in quotes: '2017'"),
    (changed("name: good", "name: store"), 3, "must not be that of a folder beside the sweeps"),
    (changed("name: good", "name: mlruns"), 3, "must not be that of a folder"),
    (changed("name: good", f"name: {'a' * 65}"), 3, "at most 64"),
    (changed("name: good", "name: ../x"), 3, "lower-case letters"),
    (changed("patient: {", "x/../../OUT: {"), 14, "a name must be at most 64 letters"),
    (changed("patient: {", f"{'a' * 65}: {{"), 14, "a name must be at most 64 letters"),
    (changed("wide: {", "心: {"), 12, "a name must be at most 64 letters"),
    (changed("wide: {", "UNet: {"), 12, "differ in more than the case of letters"),
    (changed("acdc: {", "'a|b': {"), 5, "a name must be at most 64 letters"),
    (changed("name: good", "name: good\n    tracking: {experiment: ' '}"), 4, "not empty"),
    (
        changed("name: good", f"name: good\n    tracking: {{experiment: {'e' * 300}}}"),
        4,
        "experiment must be at most 250 letters",
    ),
    (with_extra("tuned: {patient: {study: a/b, trial: 0, judged_on: {}}}"), 15, "name of a sweep"),
    (with_extra(f"include: [{{{CELL}seed: -5}}]"), 15, "a seed must be a whole number from 0"),
    (with_extra(f"include: [{{{CELL}seed: abc}}]"), 15, "a seed must be a whole number from 0"),
    (with_extra(f"include: [{{{CELL}seed: 1.5}}]"), 15, "a seed must be a whole number from 0"),
    (
        with_extra("include: [{dataset: acdc, backbone: unett, pruner: none, seed: 7}]"),
        15,
        "did you mean 'unet'",
    ),
    (
        changed("seed: [0, 1]", "seed: [0]\n      cell.form: [added]").replace(
            "    resources", f"    include: [{{{CELL}seed: 7, cell.form: ad}}]\n    resources"
        ),
        16,
        "form must be 'replace', 'added' or 'residual'",
    ),
    (
        changed("seed: [0, 1]", "seed: [0]\n      search.epochs: [5]").replace(
            "    resources", f"    include: [{{{CELL}seed: 7, search.epochs: 0}}]\n    resources"
        ),
        16,
        "epochs must be at least 1",
    ),
    (with_extra("together: [[[a], {b: 1}]]"), 15, "an axis in together must be a known one"),
    (changed("path: data", "path: $NO_SUCH_VARIABLE/x"), 5, "variable $NO_SUCH_VARIABLE must be"),
    (changed("path: data", "path: '${NO_SUCH_VARIABLE}x'"), 5, "${NO_SUCH_VARIABLE} must be set"),
    (changed("path: data", "path: ~nobody_at_all/x"), 5, "got ~nobody_at_all"),
    (changed("path: data", f"path: {'a' * 256}"), 5, "at most 255 bytes"),
    (changed("path: data", "path: ''"), 5, "must not be empty"),
    (changed("name: good", "name: good\n    store: ''"), 4, "store: a path must not be empty"),
    (changed("name: good", "name: good\n    store: gs://x"), 4, "store must be a folder or s3"),
    (changed("seed: [0, 1]", f"seed: {numbers(MOST_JOBS // 5)}"), 6, f"at most {MOST_JOBS} jobs"),
    (
        changed("seed: [0, 1]", f"seed: {numbers(400)}").replace(
            "    resources",
            f"    exclude: [{{seed: {numbers(400)}, pruner: [{'none, ' * 400}]}}]\n    resources",
        ),
        15,
        f"excludes must name at most {MOST_EXCLUDES} cells",
    ),
]


@pytest.mark.parametrize(("text", "line", "words"), BAD)
def test_a_bad_value_is_named_with_its_line(tmp_path, text, line, words):
    with pytest.raises(SweepError, match=re.escape(words)) as caught:
        load(tmp_path, text)
    problem = next(one for one in caught.value.problems if words in str(one))
    assert problem.place == str(line)
    assert problem.way_out


BAD_VALUES = [
    ("path: data", 'path: "a\\0b"', "control characters"),
    ("seed: [0, 1]", "seed: [9223372036854775808]", "must be from -2**63"),
    ("patience_epochs: 9", "patience_epochs: .inf", "must be finite"),
    ("acdc: {", "2017: {", "put it in quotes: '2017'"),
    ("acdc: {", "no: {", "put it in quotes: 'no'"),
    ("path: data", "path: 2020-01-01", "put it in quotes: '2020-01-01'"),
    ("path: data", "path: !!binary aGVsbG8=", "got !!binary"),
    ("threads: 1", "threads: !!python/name:os.system ''", "got !!python/name:os.system"),
]


@pytest.mark.parametrize(("old", "new", "words"), BAD_VALUES)
def test_what_is_no_plain_data_is_refused(tmp_path, old, new, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        load(tmp_path, changed(old, new))
    assert re.match(rf"{re.escape(str(tmp_path))}/sweep\.yaml:\d+: ", str(caught.value))


def test_several_such_values_are_said_at_once(tmp_path):
    text = changed("threads: 1", "threads: .inf").replace("path: data", "path: 2020-01-01")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert len(str(caught.value).splitlines()) == 2


def test_what_belongs_to_ray_is_left_alone(tmp_path):
    text = "provider: {when: 2020-01-01, most: .inf, 5: x}\n" + GOOD
    assert load(tmp_path, text).name == "good"
    with pytest.raises(ConfigError, match="a key must stand once"):
        load(tmp_path, "provider: {type: local, type: aws}\n" + GOOD)


def test_an_unknown_axis_is_reported_once_whatever_its_values(tmp_path):
    with pytest.raises(SweepError) as caught:
        load(tmp_path, changed("seed: [0, 1]", "seed: [0]\n      cell.frm: [a, b, c]"))
    assert len(caught.value.problems) == 1


def test_known_names_are_listed_once(tmp_path):
    with pytest.raises(SweepError) as caught:
        load(tmp_path, changed("type: js_stability,", "type: js_stabilit,"))
    names = re.findall(r"[a-z_0-9]+", str(caught.value).partition("known: ")[2])
    assert len(names) == len(set(names)) > 10


def test_a_data_set_with_a_faulty_entry_is_not_called_unknown_too(tmp_path):
    with pytest.raises(SweepError) as caught:
        load(tmp_path, changed("layout: acdc", "layout: 3"))
    assert len(caught.value.problems) == 1


def test_thousands_of_problems_end_after_a_hundred(tmp_path):
    arms = ", ".join(f"u{n}" for n in range(5000))
    with pytest.raises(SweepError) as caught:
        load(tmp_path, changed("[none, ", f"[{arms}, none, "))
    assert len(caught.value.problems) == 100


def test_names_that_yaml_takes_for_something_else_need_quotes_in_both_places(tmp_path):
    quoted = changed("acdc: {", "'no': {").replace("[acdc]", "['no']")
    assert list(load(tmp_path, quoted).datasets) == ["no"]
    with pytest.raises(SweepError, match="dataset must be a known one, got False; put it in"):
        load(tmp_path, quoted.replace("['no']", "[no]"))


def test_merge_keys_with_an_override_work(tmp_path):
    text = changed("patient: {", "patient: &p {")
    text = text.replace(
        "    resources", "      hasty: {<<: *p, patience_epochs: 2}\n    resources"
    )
    pruners = load(tmp_path, text).pruners
    assert pruners["patient"].patience_epochs == 9
    assert pruners["hasty"].patience_epochs == 2


def test_home_and_variables_in_paths_are_written_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("DISK", "/disk")
    for path, found in (
        ("~/x", "/home/me/x"),
        ("$DISK/x", "/disk/x"),
        ("'${DISK}1/x'", "/disk1/x"),
        ("../x", str((tmp_path / "../x").resolve())),
    ):
        assert (
            load(tmp_path, changed("path: data", f"path: {path}")).datasets["acdc"].path == found
        )
    store = changed("name: good", "name: good\n    store: ~/$DISK/y")
    assert load(tmp_path, store).store == "/home/me//disk/y"
    bucket = changed("name: good", "name: good\n    store: s3://hearts$DISK/y")
    assert load(tmp_path, bucket).store == "s3://hearts/disk/y"
    assert load(tmp_path, GOOD, acdc="~/z").datasets["acdc"].path == "/home/me/z"


def test_a_cell_to_include_is_checked_as_a_whole(tmp_path):
    text = changed("seed: [0, 1]", "seed: [0]\n      split.n_folds: [4]\n      split.fold: [1]")
    cell = f"{CELL}seed: 7, split.n_folds: 10, split.fold: 9"
    spec = load(
        tmp_path, text.replace("    resources", f"    include: [{{{cell}}}]\n    resources")
    )
    assert expand(spec).jobs[-1].settings.split.fold == 9


def test_a_split_file_that_is_only_included_is_read(tmp_path):
    (tmp_path / "s.json").write_text('{"train": ["a"], "validation": ["b"], "test": ["c"]}')
    text = changed("seed: [0, 1]", "seed: [0]\n      split.file: [null]")
    cell = f"{CELL}seed: 7, split.file: s.json"
    include = f"    include: [{{{cell}}}]\n    resources"
    last = expand(load(tmp_path, text.replace("    resources", include))).jobs[-1]
    assert last.settings.split_content
    with pytest.raises(SweepError, match="the split file must"):
        load(tmp_path, text.replace("    resources", include.replace("s.json", "absent.json")))


def test_thousands_of_excludes_take_no_longer_than_a_few(tmp_path):
    n = 3000
    cells = "".join(f"      - {{seed: {seed}, pruner: [none, random]}}\n" for seed in range(1, n))
    text = changed("seed: [0, 1]", f"seed: {numbers(n)}")
    spec = load(tmp_path, text.replace("    resources", f"    exclude:\n{cells}    resources"))
    found = expand(spec)
    assert len(found.jobs) == 2 * 3 * n - 2 * 2 * (n - 1)


def test_a_network_that_cannot_take_the_slices_is_an_error_of_the_plan(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(changed("widths: [32, 64]", f"widths: [{', '.join(['8'] * 12)}]"))
    session = open_sweep(path, {}, tmp_path / "runs", needs_data=False)
    with pytest.raises(ConfigError, match=r"^f: the backbone wide must suit slices of"):
        kept_feature_sizes(session.plan(), KnownRecords(session.store), where="f")

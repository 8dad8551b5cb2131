import re
from dataclasses import replace

import pytest

from iac_core.config import SearchSettings
from iac_core.errors import ConfigError
from orchestrator.expand import expand
from orchestrator.session import tables
from orchestrator.spec import SweepError, load_sweep
from orchestrator.sweep_file import read_sweep_file
from results.declared import Claim

GOOD = """\
metadata:
  sweep:
    name: good
    datasets:
      acdc: {layout: acdc, path: data}
    grid:
      dataset: [acdc]
      backbone: [unet, wide]
      pruner: [none, js_stability, patient, random]
      seed: [0, 1]
    stages:
      search: {epochs: 60, weight_learning_rate: 3e-3}
      split: {n_folds: 4}
    backbones:
      wide: {type: unet, widths: [32, 64]}
    pruners:
      patient: {type: js_stability, patience_epochs: 9}
    resources: {threads: 1}
"""


def write(tmp_path, text):
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def load(tmp_path, text, **overrides):
    return load_sweep(write(tmp_path, text), tables=tables(), overrides=overrides)


def test_a_good_sweep_is_typed_and_resolved(tmp_path):
    spec = load(tmp_path, GOOD)
    assert spec.stages["search"] == SearchSettings(epochs=60, weight_learning_rate=0.003)
    assert spec.backbones["wide"].widths == (32, 64)
    assert spec.pruners["patient"].patience_epochs == 9
    assert spec.pruners["js_stability"].patience_epochs == 3
    assert spec.pruners["random"] is None
    assert spec.datasets["acdc"].path == str((tmp_path / "data").resolve())
    assert load(tmp_path, GOOD, acdc="/other").datasets["acdc"].path == "/other"


def test_claims_are_arms_of_the_grid_and_change_no_job(tmp_path):
    text = GOOD.replace(
        "    resources",
        "    compare:\n"
        "      - {arm: js_stability, reference: none, kind: not_inferior}\n"
        "      - {arm: patient, reference: none}\n    resources",
    )
    spec = load(tmp_path, text)
    assert spec.compare == (
        Claim(arm="js_stability", reference="none", kind="not_inferior"),
        Claim(arm="patient", reference="none", kind="different"),
    )
    assert replace(spec, compare=()) == load(tmp_path, GOOD)


def test_controls_with_settings_are_arms_of_their_own(tmp_path):
    text = GOOD.replace("patient, random]", "patient, random, third, plain]").replace(
        "    resources", "      third: {type: random, draw: 3}\n"
        "      plain: {type: uniform, operation: sep_conv_5x5}\n    resources"
    )  # fmt: skip
    spec = load(tmp_path, text)
    assert spec.controls["third"] == "random"
    assert spec.controls["plain"] == "uniform"
    assert "uniform" not in spec.pruners
    jobs = [job for job in expand(spec).jobs if job.pruner in ("third", "plain")]
    assert {job.control for job in jobs} == {"random", "uniform"}
    assert all(job.settings.pruner is not None for job in jobs)


def test_numbers_with_an_exponent_are_numbers(tmp_path):
    text = GOOD.replace("3e-3", "1E-2")
    assert load(tmp_path, text).stages["search"].weight_learning_rate == 0.01
    file = read_sweep_file(write(tmp_path, GOOD.replace("name: good", "name: 1e5x")))
    assert file.sweep["name"] == "1e5x"


BAD = [
    # what is replaced, by what, line, words
    ("layout: acdc", "layout: acdcc", 5, "did you mean 'acdc'"),
    ("[unet, wide]", "[unett, wide]", 8, "did you mean 'unet'"),
    ("[none, js_stability", "[none, js_stabilty", 9, "did you mean 'js_stability'"),
    ("dataset: [acdc]", "dataset: [acds]", 7, "did you mean 'acdc'"),
    ("seed: [0, 1]", "seed: [0, -1]", 10, "whole number from 0, got -1"),
    ("seed: [0, 1]", "seed: [0, true]", 10, "whole number from 0"),
    ("seed: [0, 1]", "seed: [0, 0]", 10, "must not repeat"),
    ("seed: [0, 1]", "seed: 0", 10, "must be a list"),
    ("seed: [0, 1]", "seed: []", 10, "must be a list"),
    ("      seed: [0, 1]\n", "", 6, "must have the axis seed"),
    ("seed: [0, 1]", "seed: [0]\n      cell.from: [replace]", 11, "did you mean 'cell.form'"),
    (
        "seed: [0, 1]",
        "seed: [0]\n      cell.form: [replaced]",
        11,
        "'replace', 'added' or 'residual'",
    ),
    ("seed: [0, 1]", "seed: [0]\n      search.epochs: [50, 0]", 11, "epochs must be at least 1"),
    ("epochs: 60", "epochz: 60", 12, "did you mean 'epochs'"),
    ("epochs: 60", "epochs: '60'", 12, "must be a whole number, got '60'"),
    ("epochs: 60", "epochs: 0", 12, "epochs must be at least 1, got 0"),
    ("epochs: 60", "epochs: 60.5", 12, "epochs must be"),
    ("3e-3", "-3e-3", 12, "weight_learning_rate must be above 0"),
    ("split: {n_folds: 4}", "splt: {n_folds: 4}", 13, "did you mean 'split'"),
    ("split: {n_folds: 4}", "split: {n_folds: 4, fold: 4}", 13, "fold must be 0 to 3"),
    (
        "split: {n_folds: 4}",
        "split: {n_folds: 2, validation: next_fold}",
        13,
        "n_folds must be at least 3 with validation: next_fold",
    ),
    (
        "split: {n_folds: 4}",
        "split: {validation: next}",
        13,
        "validation must be 'first' or 'next_fold', got 'next'",
    ),
    ("split: {n_folds: 4}", "split: [4]", 13, "must be a mapping"),
    ("split: {n_folds: 4}", "split: {file: absent.json}", 13, "split file must be"),
    ("type: unet,", "type: vnet,", 15, "backbone must be a known one"),
    ("widths: [32, 64]", "width: [32, 64]", 15, "did you mean 'widths'"),
    ("widths: [32, 64]", "widths: [32]", 15, "at least two levels"),
    ("widths: [32, 64]", "widths: [32, '64']", 15, "must be a whole number"),
    ("patience_epochs: 9", "patience_epochs: 0", 17, "patience_epochs must be at least 1"),
    ("type: js_stability,", "type: no_cell,", 17, "must have no settings"),
    ("type: js_stability, patience_epochs: 9", "type: random, drew: 1", 17, "did you mean 'draw'"),
    ("type: js_stability, patience_epochs: 9", "type: uniform", 17, "the key operation"),
    (
        "type: js_stability, patience_epochs: 9",
        "type: uniform, operation: none",
        17,
        "operation must be among",
    ),
    ("[none, js_stability", "[uniform, js_stability", 9, "must be a known one, got 'uniform'"),
    ("threads: 1", "threads: 0", 18, "threads must be at least 1"),
    ("threads: 1", "thread: 1", 18, "did you mean 'threads'"),
    ("threads: 1", "search: {cpus: 0}", 18, "cpus must be above 0"),
    ("resources:", "resource:", 18, "did you mean 'resources'"),
    ("name: good", "name: Good Sweep", 3, "lower-case letters"),
    ("name: good", "store: 7\n    name: good", 3, "store must be a folder"),
    ("    resources", "    exclude: [{pruner: noone}]\n    resources", 18, "did you mean 'none'"),
    ("    resources", "    exclude: [{prune: none}]\n    resources", 18, "did you mean 'pruner'"),
    (
        "    resources",
        "    exclude: [{pruner: [none, rando]}]\n    resources",
        18,
        "did you mean 'random'",
    ),
    ("    resources", "    include: [{pruner: none}]\n    resources", 18, "must name every axis"),
    ("    resources", "    include: none\n    resources", 18, "list of mappings"),
    *(
        ("    resources", f"    together: {groups}\n    resources", 18, words)
        for groups, words in (
            ("seed", "together must be a list of lists"),
            ("[[seed]]", "must name two axes or more"),
            ("[[seed, sed]]", "did you mean 'seed'"),
            ("[[seed, backbone], [backbone, pruner]]", "each in one group"),
            ("[[seed, pruner]]", "equally many values, got a group with seed 2, pruner 4"),
        )
    ),
    *(
        ("    resources", f"    compare: {claims}\n    resources", 18, words)
        for claims, words in (
            ("none", "compare must be a list of claims"),
            ("[none]", "entry 1 of compare must be a mapping"),
            ("[{arm: js_stability}]", "entry 1 of compare must have the key reference"),
            ("[{arm: js_stabilty, reference: none}]", "did you mean 'js_stability'"),
            ("[{arm: js_stabilty, reference: none, kind: beter}]", "did you mean 'js_stability'"),
            ("[{arm: none, reference: none}]", "two different arms"),
            ("[{arm: none, reference: random, kind: bettter}]", "kind must be"),
            ("[{arm: none, reference: random, king: better}]", "did you mean 'kind'"),
            (
                "[{arm: none, reference: random}, {arm: none, reference: random}]",
                "a claim must stand once",
            ),
        )
    ),
]


@pytest.mark.parametrize("case", range(len(BAD)))
def test_a_wrong_value_is_named_with_line_rule_and_way_out(tmp_path, case):
    old, new, line, words = BAD[case]
    assert old in GOOD
    with pytest.raises(SweepError, match=re.escape(words)) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    problem = next(p for p in caught.value.problems if words in str(p))
    assert problem.place == str(line)
    assert problem.way_out
    assert "pydantic" not in str(caught.value)


def test_axes_whose_values_do_not_go_together_are_named_with_the_way_out(tmp_path):
    axes = "seed: [0, 1]\n      split.n_folds: [2, 4]\n      split.validation: [first, next_fold]"
    text = GOOD.replace("seed: [0, 1]", axes)
    with pytest.raises(
        ConfigError, match=r"grid\.split\.validation: n_folds must .* exclude such"
    ):
        expand(load(tmp_path, text))
    rest = "    exclude: [{split.n_folds: 2, split.validation: next_fold}]\n    resources"
    jobs = expand(load(tmp_path, text.replace("    resources", rest))).jobs
    assert len({job.split_identity()["n_folds"] for job in jobs}) == 2


def test_all_problems_are_said_at_once_in_the_order_of_the_file(tmp_path):
    text = GOOD
    for old, new in (
        ("layout: acdc", "layout: acdcc"), ("unet, wide", "unett, wide"), ("[0, 1]", "[x]"),
        ("epochs: 60", "epochs: 0"), ("n_folds: 4", "folds: 4"), ("threads: 1", "threads: 0"),
    ):  # fmt: skip
        text = text.replace(old, new, 1)
    with pytest.raises(SweepError) as caught:
        load(tmp_path, text)
    lines = [int(problem.place) for problem in caught.value.problems]
    assert lines == [5, 8, 10, 12, 13, 18]


FILES = [
    ("metadata: [", "must be YAML"),
    ("", "must be a mapping"),
    ("metadata:\n  sweep: 3\n", "mapping metadata.sweep"),
    ("metadta: {sweep: {}}\n", "did you mean 'metadata'"),
    ("name: x\ngrid: {}\n", "under metadata.sweep"),
    ("metadata:\n  sweep:\n    name: a\n    name: b\n", "also in line 3"),
]


@pytest.mark.parametrize("case", range(len(FILES)))
def test_a_file_that_is_no_sweep_says_what_it_is(tmp_path, case):
    text, words = FILES[case]
    with pytest.raises(ConfigError, match=re.escape(words)):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="must exist"):
        read_sweep_file(tmp_path / "absent.yaml")


def test_data_for_an_unknown_dataset_is_refused(tmp_path):
    with pytest.raises(SweepError, match="--data must name a dataset"):
        load(tmp_path, GOOD, acds="/x")


def test_the_grid_is_expanded_in_a_stable_order_without_doubles(tmp_path):
    jobs = expand(load(tmp_path, GOOD)).jobs
    assert len(jobs) == len({job.job_id for job in jobs}) == 2 * 4 * 2
    assert [job.label for job in jobs[:3]] == [
        "acdc · unet · none · seed 0",
        "acdc · unet · none · seed 1",
        "acdc · unet · js_stability · seed 0",
    ]
    assert jobs[6].control == "random"
    assert [job.job_id for job in expand(load(tmp_path, GOOD)).jobs] == [j.job_id for j in jobs]


def test_axes_that_go_together_are_not_crossed(tmp_path):
    text = GOOD.replace(
        "      seed: [0, 1]", "      seed: [0, 1]\n      split.fold: [2, 3]"
    ).replace("    stages:", "    together: [[seed, split.fold]]\n    stages:")
    jobs = expand(load(tmp_path, text)).jobs
    assert len(jobs) == len(expand(load(tmp_path, GOOD)).jobs)
    assert {(job.seed, job.settings.split.fold) for job in jobs} == {(0, 2), (1, 3)}
    crossed = expand(load(tmp_path, text.replace("    together: [[seed, split.fold]]\n", ""))).jobs
    assert len(crossed) == 2 * len(jobs)
    assert {job.job_id for job in jobs} < {job.job_id for job in crossed}


def test_excludes_drop_cells_and_includes_add_them_once(tmp_path):
    extra = """\
    exclude: [{pruner: random, seed: 1}, {backbone: wide}]
    include:
      - {dataset: acdc, backbone: wide, pruner: none, seed: 7}
      - {dataset: acdc, backbone: unet, pruner: none, seed: 0}
"""
    found = expand(load(tmp_path, GOOD + extra))
    assert len(found.dropped) == 8 + 1
    assert len(found.jobs) == 16 - 9 + 1
    assert found.jobs[-1].seed == 7


def test_a_list_in_an_exclude_stands_for_each_of_its_values(tmp_path):
    lists = "    exclude: [{pruner: [random, none], backbone: wide, seed: [0, 1]}]\n"
    one_by_one = """\
    exclude: [{pruner: random, backbone: wide}, {pruner: none, backbone: wide}]
"""
    found, expected = (expand(load(tmp_path, GOOD + text)) for text in (lists, one_by_one))
    assert len(found.dropped) == 4
    assert found.jobs == expected.jobs
    with pytest.raises(ConfigError, match=r"must match a cell.*'seed': 5"):
        expand(load(tmp_path, GOOD + "    exclude: [{pruner: random, seed: [0, 5]}]\n"))


def test_a_list_that_is_a_value_of_an_axis_is_excluded_as_it_is(tmp_path):
    axis = "seed: [0]\n      evaluate.subsets: [[test], [validation, test]]"
    text = GOOD.replace("seed: [0, 1]", axis)
    kept = expand(load(tmp_path, text + "    exclude: [{evaluate.subsets: [test]}]\n")).jobs
    assert {job.settings.evaluate.subsets for job in kept} == {("validation", "test")}


def test_an_exclude_that_matches_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="must match a cell"):
        expand(load(tmp_path, GOOD + "    exclude: [{seed: 5}]\n"))


def test_a_setting_on_the_grid_reaches_the_job(tmp_path):
    text = GOOD.replace("seed: [0, 1]", "seed: [0]\n      cell.form: [replace, residual]")
    jobs = expand(load(tmp_path, text)).jobs
    assert [job.settings.cell.form for job in jobs[:2]] == ["replace", "residual"]
    assert len(jobs) == 2 * 4 * 2


def test_augmentation_is_an_axis_of_its_own(tmp_path):
    text = GOOD.replace("seed: [0, 1]", "seed: [0]\n      augmentation: [false, true]")
    spec = load(tmp_path, text + "    exclude: [{pruner: none, augmentation: true}]\n")
    found = {(job.pruner, job.settings.augmentation.enabled) for job in expand(spec).jobs}
    assert ("none", False) in found
    assert ("none", True) not in found
    assert ("js_stability", True) in found


def test_a_backbone_without_skips_keeps_the_arms_without_cells(tmp_path):
    text = GOOD.replace("[unet, wide]", "[unet, attention_unet]").replace(
        "pruner: [none,", "pruner: [no_cell, no_cell_longer, none,"
    )
    expansion = expand(load(tmp_path, text))
    arms = {job.pruner for job in expansion.jobs if job.backbone == "attention_unet"}
    assert arms == {"no_cell", "no_cell_longer"}
    dropped = {cell["pruner"] for cell in expansion.dropped}
    assert dropped == {"none", "js_stability", "patient", "random"}
    include = "    include: [{dataset: acdc, backbone: attention_unet, pruner: none, seed: 9}]\n"
    with pytest.raises(ConfigError, match="no_cell or no_cell_longer, got attention_unet"):
        expand(load(tmp_path, text + include))


def test_an_external_network_is_used_by_its_type_alone(tmp_path):
    named = GOOD.replace(
        "wide: {type: unet, widths: [32, 64]}",
        "wide: {type: external, target: 'nets:Mine', skips: [{module: up.0, argument: skip}]}",
    )
    spec = load(tmp_path, named)
    assert spec.backbones["wide"].skips[0].argument == "skip"
    flat = expand(spec).jobs[-1].flat_settings()
    assert flat["config_backbone_skips"] == (
        '[{"argument": "skip", "module": "up.0", "upsampled": 0}]'
    )
    with pytest.raises(SweepError, match="backbone must be a known one, got 'external'"):
        load(tmp_path, GOOD.replace("[unet, wide]", "[unet, external]"))
    with pytest.raises(SweepError, match=r"target must be package\.module:Class"):
        load(tmp_path, named.replace("nets:Mine", "nets.Mine"))


def test_encoder_weights_lie_beside_the_sweep_and_count_by_their_hash(tmp_path):
    def jobs(path):
        text = GOOD.replace(
            "wide: {type: unet, widths: [32, 64]}",
            f"wide: {{type: resnet18_unet, encoder_weights: {path}, "
            f"encoder_weights_sha256: '{'0' * 64}'}}",
        )
        return expand(load(tmp_path, text)).jobs

    one, other = jobs("w.pt"), jobs("/elsewhere/v.pt")
    assert one[-1].settings.backbone.encoder_weights == str(tmp_path / "w.pt")
    assert [job.job_id for job in one] == [job.job_id for job in other]


def test_a_sweep_file_is_a_ray_cluster_file():
    import json
    from pathlib import Path

    import jsonschema
    import ray
    import yaml

    schema_path = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    schema = json.loads(schema_path.read_text())
    cluster = "cluster_name: lab\nprovider: {type: local, head_ip: 127.0.0.1, worker_ips: []}\n"
    jsonschema.validate(yaml.safe_load(cluster + GOOD), schema)
    from orchestrator.sweep_file import CLUSTER_KEYS

    assert set(CLUSTER_KEYS) >= set(schema["properties"])

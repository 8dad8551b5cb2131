import json
from dataclasses import fields, replace

import pytest

from iac_core.backbones.nnunet_unet import NnunetSettings
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.genotype import RandomCellSettings, UniformCellSettings
from iac_core.config import (
    AugmentationSettings,
    CellSettings,
    EvaluateSettings,
    PrepareSettings,
    PretrainSettings,
    RetrainSettings,
    SearchPace,
    SearchSettings,
    SplitSettings,
)
from iac_core.errors import ConfigError
from iac_core.pruners.js_stability import JsStabilitySettings
from iac_core.pruners.no_pruning import NoPruningSettings
from workers.job import Job, JobSettings, content_hash
from workers.task import DataSource
from workers.task_graph import stage_tasks

SOURCE = DataSource(layout="acdc", path="/data", fingerprint="f" * 16)
GENOTYPE = '{"n_nodes":1,"levels":[[[0,2,"skip_connect"],[1,2,"skip_connect"]]]}'
SETTINGS = JobSettings(
    prepare=PrepareSettings(),
    split=SplitSettings(),
    augmentation=AugmentationSettings(enabled=True),
    pretrain=PretrainSettings(),
    cell=CellSettings(form="residual", node_width=None, start="plain"),
    search=SearchSettings(),
    retrain=RetrainSettings(),
    evaluate=EvaluateSettings(),
    backbone=UNetSettings(),
    pruner=JsStabilitySettings(),
)


def job(pruner="js_stability", control="", settings=SETTINGS, seed=0, **changes):
    return replace(
        Job(
            dataset="acdc",
            backbone="unet",
            pruner=pruner,
            seed=seed,
            settings=replace(settings, pruner=None) if control else settings,
            control=control,
        ),
        **changes,
    )


def keys(of_job, genotypes=None):
    """Role → key; `genotypes` are those of finished searches, by key."""
    known = {("search", key): {"genotype": found} for key, found in (genotypes or {}).items()}
    return {task.role: task.key for task in stage_tasks(of_job, SOURCE, known)}


def old_keys(found):
    """The keys of the kinds that were there when the keys below were noted, in order."""
    return [key for role, key in found.items() if role != "predict"]


def full_keys(of_job):
    found = keys(of_job)
    return keys(of_job, {found["search"]: GENOTYPE}) if "search" in found else found


ANOTHER = {
    "size": 64, "spacing_mm": 2.0, "clip_percentiles": (1.0, 99.0), "background_share": 0.2,
    "n_folds": 4, "fold": 1, "validation_share": 0.2, "n_train_patients": 9,
    "epochs": 7, "batch_size": 5, "steps_per_epoch": 3, "learning_rate": 2e-3,
    "min_learning_rate": 1e-5, "validate_every_epochs": 2, "checkpoint_every_epochs": 3,
    "n_nodes": 3, "partial_channels": 2, "operations": ("none", "skip_connect"),
    "second_input": "skip", "form": "replace", "architecture": "per_level",
    "node_width": 0.5, "start": "matched",
    "weight_learning_rate": 0.1, "momentum": 0.8, "weight_decay": 1e-4, "gradient_clip": 1.0,
    "alpha_learning_rate": 1e-3, "alpha_betas": (0.9, 0.999), "alpha_weight_decay": 0.0,
    "alpha_warmup_epochs": 3,
    "precision": "bfloat16", "backbone_learning_rate": 1e-5, "scope": "all",
    "subsets": ("test",), "surface_tolerance_mm": 1.0, "widths": (8, 16), "seed": 3,
    "window_epochs": 4, "noise_factor": 3.0, "patience_epochs": 4,
    "max_share": 0.4, "min_operations": 2,
    "stop_operations": 2, "stop_edge_share": 0.5, "stop_patience_epochs": 9, "prune_edges": True,
    "join": "added", "alpha_optimiser": "adam_l2",
    "pace": SearchPace(start_share=0.5), "keep_features": False, "enabled": False,
    "normalisation": "ct", "n_neighbours": 1, "test": "official", "validation": "next_fold",
    "flips": False, "rotation_degrees": 5.0, "scale": 0.2, "shift": 0.2, "intensity": 0.2,
    "noise_sd": 0.2,
}  # fmt: skip
SECTIONS = [
    entry.name for entry in fields(JobSettings) if entry.name not in ("split_content", "others")
]
EVERY_SETTING = [
    (section, entry.name)
    for section in SECTIONS
    for entry in fields(getattr(SETTINGS, section))
    if (section, entry.name) != ("split", "file")
]


@pytest.mark.parametrize(("section", "name"), EVERY_SETTING)
def test_every_setting_changes_the_job_id(section, name):
    part = getattr(SETTINGS, section)
    changed = replace(part, **{name: ANOTHER[name]})
    assert changed != part
    other = job(settings=replace(SETTINGS, **{section: changed}))
    assert other.job_id != job().job_id


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"dataset": "b"}, {"backbone": "b"}, {"pruner": "b"}]
)
def test_every_axis_changes_the_job_id(changes):
    assert job(**changes).job_id != job().job_id


def test_a_split_file_counts_by_content_and_not_by_path():
    def with_file(path, content):
        split = SplitSettings(file=path)
        return job(settings=replace(SETTINGS, split=split, split_content=content))

    assert with_file("/a/s.json", "1" * 16).job_id == with_file("/b/s.json", "1" * 16).job_id
    assert with_file("/a/s.json", "1" * 16).job_id != with_file("/a/s.json", "2" * 16).job_id


def test_the_share_of_validation_patients_counts_only_where_a_share_validates():
    def keys_with(**changes):
        return full_keys(job(settings=replace(SETTINGS, split=SplitSettings(**changes))))

    assert keys_with(validation="first") == full_keys(job())
    rotated = keys_with(validation="next_fold")
    assert rotated == keys_with(validation="next_fold", validation_share=0.5)
    assert rotated["prepare"] == full_keys(job())["prepare"]
    assert all(rotated[kind] != key for kind, key in full_keys(job()).items() if kind != "prepare")


def test_the_hash_ignores_the_order_of_keys_and_refuses_what_is_not_plain():
    assert content_hash({"a": 1, "b": [2.5]}) == content_hash({"b": [2.5], "a": 1})
    with pytest.raises(ConfigError, match="finite"):
        content_hash({"a": float("nan")})
    with pytest.raises(ConfigError, match="plain"):
        content_hash({"a": object()})


def test_keys_stay_what_they_were():
    """Stores hold results under these: whatever changes them makes every sweep run again."""
    assert job().job_id == "621f5d2bbba3bf34"
    assert old_keys(full_keys(job())) == [
        "bca62b145492a2b7", "8a23de7e72c9589c", "a7e47992f92ba7e0", "e0af0d8f7b53773a",
        "05c68b2837a161c4",
    ]  # fmt: skip
    random = job("random", "random", seed=3)
    assert random.job_id == "448cf9190ac43fab"
    assert old_keys(keys(random)) == [
        "bca62b145492a2b7", "ba03dab8775e3c16", "baa6a1f1066928fa", "5386522977959c4b",
    ]  # fmt: skip
    nnunet = full_keys(job(settings=replace(SETTINGS, backbone=NnunetSettings())))
    assert nnunet["retrain"] == "c1fd773c7fb31df0"
    value = {"b": {"z": 1e-06, "A": 1e22}, "a": [1, 2.5, None, True, 'é"\\']}
    assert content_hash(value) == "f071090dc11ece08"


@pytest.mark.parametrize(
    ("backbone", "is_augmented", "expected"),
    [
        (UNetSettings(), True, "bca62b145492a2b7 8a23de7e72c9589c 872ed47496ac3f86"),
        (UNetSettings(), False, "bca62b145492a2b7 3fec64dccfc0aaae cde58fa0ee05e627"),
        (UNetSettings(widths=(16, 32, 64, 128)), False,
         "bca62b145492a2b7 0d91bd71508d466f dc91befbad1e031e"),
        (NnunetSettings(), True, "4db6aa206a0e5a3a 421573143271969f bd91392209533190"),
    ],
)  # fmt: skip
def test_what_was_prepared_pre_trained_and_scored_without_cells_is_found_again(
    backbone, is_augmented, expected
):
    settings = replace(
        SETTINGS,
        backbone=backbone,
        augmentation=AugmentationSettings(enabled=is_augmented),
        cell=CellSettings(node_width=0.5, start="matched", form="added"),
    )
    assert old_keys(keys(job("no_cell", "no_cell", settings=settings))) == expected.split()


def test_jobs_may_share_a_backbone_and_retrain_a_cell_with_several_seeds():
    def with_seeds(seed, pretrain=None, retrain=None):
        settings = replace(
            SETTINGS,
            pretrain=replace(SETTINGS.pretrain, seed=pretrain),
            retrain=replace(SETTINGS.retrain, seed=retrain),
        )
        return full_keys(job(settings=settings, seed=seed))

    one, other = with_seeds(0, pretrain=7), with_seeds(1, pretrain=7)
    assert one["pretrain"] == other["pretrain"] == with_seeds(7)["pretrain"]
    assert one["search"] != other["search"]
    again = with_seeds(0, retrain=5)
    assert again["search"] == with_seeds(0)["search"]
    assert again["retrain"] != with_seeds(0)["retrain"]
    assert with_seeds(3, retrain=3) == with_seeds(3)


def test_a_later_setting_of_the_cell_is_in_the_key_of_a_retraining_only_where_it_differs():
    plain_cell = keys(job("random", "random"))["retrain"]
    for changes in ({"node_width": 0.5}, {"start": "matched"}):
        changed = replace(SETTINGS, cell=replace(SETTINGS.cell, **changes))
        assert keys(job("random", "random", settings=changed))["retrain"] != plain_cell
    settings = stage_tasks(job("random", "random"), SOURCE, {})[2].settings["cell"]
    assert set(settings) == {"n_nodes", "partial_channels", "second_input", "form"}


def given(arm, seed=0, cell=None):
    """The genotype that a control with settings retrains."""
    settings = replace(SETTINGS, pruner=arm, cell=cell or SETTINGS.cell)
    control = "uniform" if isinstance(arm, UniformCellSettings) else "random"
    one = Job(
        dataset="acdc",
        backbone="unet",
        pruner="arm",
        seed=seed,
        settings=settings,
        control=control,
    )
    return stage_tasks(one, SOURCE, {})[-1].genotype


def test_a_numbered_draw_is_the_same_cell_for_every_seed():
    assert given(RandomCellSettings(draw=4), seed=0) == given(RandomCellSettings(draw=4), seed=1)
    assert given(RandomCellSettings(draw=4)) != given(RandomCellSettings(draw=5))
    assert given(RandomCellSettings(), seed=0) != given(RandomCellSettings(), seed=1)
    assert given(RandomCellSettings(draw=1)) == given(None, seed=1)


def test_a_random_cell_draws_from_the_operations_it_names():
    names = ("sep_conv_3x3", "skip_connect")
    for draw in range(5):
        levels = json.loads(given(RandomCellSettings(draw=draw, operations=names)))["levels"]
        assert {operation for _, _, operation in levels[0]} <= set(names)
    with pytest.raises(ConfigError, match="operations must be among"):
        RandomCellSettings(operations=("sep_conv_9x9",))


def test_a_uniform_cell_must_name_an_operation_that_does_something():
    levels = json.loads(given(UniformCellSettings(operation="skip_connect")))["levels"]
    assert {operation for _, _, operation in levels[0]} == {"skip_connect"}
    for wrong in ("none", "sep_conv"):
        with pytest.raises(ConfigError, match="operation must be among"):
            UniformCellSettings(operation=wrong)


def test_all_pruners_and_controls_share_one_pre_training():
    jobs = [
        job(),
        job("none", settings=replace(SETTINGS, pruner=NoPruningSettings())),
        *(job(name, control=name) for name in ("random", "no_cell", "no_cell_longer")),
    ]
    assert len({keys(entry)["pretrain"] for entry in jobs}) == 1
    assert len({keys(entry)["prepare"] for entry in jobs}) == 1


def test_a_search_chain_ends_where_its_genotype_is_unknown():
    assert list(keys(job())) == ["prepare", "pretrain", "search"]
    assert list(full_keys(job())) == [
        "prepare",
        "pretrain",
        "search",
        "retrain",
        "predict",
        "evaluate",
    ]


def test_controls_have_the_chains_they_stand_for():
    assert list(keys(job("no_cell", "no_cell"))) == ["prepare", "pretrain", "predict", "evaluate"]
    for name in ("random", "no_cell_longer"):
        assert list(keys(job(name, name))) == [
            "prepare",
            "pretrain",
            "retrain",
            "predict",
            "evaluate",
        ]


def test_two_searches_that_find_one_genotype_share_the_retraining():
    none = job("none", settings=replace(SETTINGS, pruner=NoPruningSettings()))
    assert keys(none)["search"] != keys(job())["search"]
    assert full_keys(none)["retrain"] == full_keys(job())["retrain"]
    assert full_keys(none)["evaluate"] == full_keys(job())["evaluate"]


CHANGED_FROM = {
    "prepare": "prepare", "split": "pretrain", "pretrain": "pretrain", "backbone": "pretrain",
    "search": "search", "pruner": "search", "evaluate": "predict", "augmentation": "pretrain",
}  # fmt: skip


@pytest.mark.parametrize("section", sorted(CHANGED_FROM))
def test_a_setting_changes_the_keys_from_its_stage_on_and_none_before(section):
    part = getattr(SETTINGS, section)
    name = next(entry.name for entry in fields(part) if entry.name in ANOTHER)
    other = job(settings=replace(SETTINGS, **{section: replace(part, **{name: ANOTHER[name]})}))
    before, after = full_keys(job()), full_keys(other)
    kinds = list(before)
    first = kinds.index(CHANGED_FROM[section])
    for kind in kinds[:first]:
        assert before[kind] == after[kind]
    assert before[kinds[first]] != after[kinds[first]]


def test_ranges_of_views_count_for_nothing_when_there_are_none():
    off = [AugmentationSettings(enabled=False, scale=scale) for scale in (0.1, 0.2)]
    jobs = [job(settings=replace(SETTINGS, augmentation=entry)) for entry in off]
    assert jobs[0].job_id == jobs[1].job_id
    assert full_keys(jobs[0]) == full_keys(jobs[1])


def test_the_longer_backbone_does_not_depend_on_the_cell():
    other = replace(SETTINGS, cell=CellSettings(form="replace"))
    longer = [job("no_cell_longer", "no_cell_longer", settings=s) for s in (SETTINGS, other)]
    assert keys(longer[0]) == keys(longer[1])


def test_random_cells_follow_the_seed():
    tasks = [stage_tasks(job("random", "random", seed=seed), SOURCE, {}) for seed in (0, 0, 1)]
    genotypes = [entry[2].genotype for entry in tasks]
    assert genotypes[0] == genotypes[1] != genotypes[2]


def test_nnunet_is_planned_per_split_and_trained_once_for_both_settings_of_augmentation():
    nnunet = replace(SETTINGS, backbone=NnunetSettings())
    plain = replace(nnunet, augmentation=AugmentationSettings())
    with_views, without = full_keys(job(settings=nnunet)), full_keys(job(settings=plain))
    assert with_views["pretrain"] == without["pretrain"]
    assert with_views["search"] != without["search"]
    assert with_views["retrain"] != without["retrain"]
    longer = [job("no_cell_longer", "no_cell_longer", each) for each in (nnunet, plain)]
    assert len({keys(each)["retrain"] for each in longer}) == 2
    smaller = replace(
        nnunet, prepare=PrepareSettings(size=64), pretrain=PretrainSettings(epochs=7)
    )
    assert full_keys(job(settings=smaller)) == with_views
    other_fold = replace(nnunet, split=SplitSettings(fold=1))
    assert full_keys(job(settings=other_fold))["prepare"] != with_views["prepare"]
    trained = replace(nnunet, backbone=NnunetSettings(epochs=5))
    changed = full_keys(job(settings=trained))
    assert changed["prepare"] == with_views["prepare"]
    assert changed["pretrain"] != with_views["pretrain"]

"""The repository itself: links, sweeps, documented fields, who imports what."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

from orchestrator.expand import expand
from orchestrator.resources import ResourceSettings, StageResources
from orchestrator.session import tables
from orchestrator.spec import (
    STAGE_SETTINGS,
    DatasetSettings,
    TrackingSettings,
    VolumeSettings,
    load_sweep,
)
from orchestrator.study_settings import StudySettings

ROOT = Path(__file__).parents[1]
PACKAGES = ("addresses", "files", "iac_core", "workers", "results", "orchestrator")
ONLY_IN = {
    "nibabel": {f"iac_core/data/{name}.py" for name in ("nifti", "volume_grid", "volume_header")},
    "numba": {"iac_core/kernels/compiling.py"},
    "monai": {
        "iac_core/backbones/flexible_unet.py",
        "iac_core/backbones/dyn_unet.py",
        "iac_core/backbones/rivals.py",
    },
    "optuna": {
        "orchestrator/confirmed.py",
        "orchestrator/proposals.py",
        "orchestrator/study.py",
        "orchestrator/study_export.py",
        "orchestrator/study_report.py",
        "orchestrator/study_settings.py",
        "orchestrator/trial_pruning.py",
        "orchestrator/tuning.py",
    },
    "ray": {
        "orchestrator/confirmed.py",
        "orchestrator/nodes.py",
        "orchestrator/ray_executor.py",
        "orchestrator/submission.py",
    },
    "pydantic": {"orchestrator/spec.py"},
    "yaml": {
        "iac_core/bounded_yaml/nodes.py",
        "iac_core/bounded_yaml/resolving.py",
        "iac_core/bounded_yaml/values.py",
        "iac_core/data/side_files.py",
    },
    "pyarrow": {"results/store.py"},
    "matplotlib": {"results/figures.py"},
    "mlflow": {
        "orchestrator/tracking.py",
        "orchestrator/tracking_fields.py",
        "results/collect.py",
        "results/tracking/artifacts.py",
        "results/tracking/database.py",
        "results/tracking/experiment.py",
        "results/tracking/faults.py",
        "results/tracking/server.py",
        "results/tracking/trial.py",
    },
    "nnunetv2": {
        "iac_core/backbones/nnunet_unet.py",
        "iac_core/nnunet/cases.py",
        "iac_core/nnunet/commands.py",
    },
    "s3fs": {"workers/object_place.py"},
    "botocore": {"workers/object_place.py"},
    "jinja2": {"results/report.py", "orchestrator/data_page.py"},
}
CORE_IMPORTS = {
    "torch", "numpy", "scipy", "nibabel", "numba", "jaxtyping", "yaml", "safetensors", "monai",
    "onnxruntime", "onnxscript", "nnunetv2", "addresses", "files", "iac_core",
}  # fmt: skip


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_heavy_library_is_imported_in_its_file_alone(library):
    found = {str(path.relative_to(ROOT)) for path in SOURCES if library in imports(path)}
    assert found == ONLY_IN[library]


def test_the_core_imports_few_libraries():
    import sys

    allowed = CORE_IMPORTS | set(sys.stdlib_module_names)
    for path in (ROOT / "iac_core").rglob("*.py"):
        assert set(imports(path)) <= allowed, path


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps").glob("*.yaml")), ids=lambda p: p.name)
def test_every_sweep_is_valid_and_has_jobs(path):
    assert expand(load_sweep(path, tables=tables())).jobs


def test_every_field_of_a_sweep_is_documented():
    text = (ROOT / "sweeps" / "README.md").read_text()
    known = tables()
    classes = [
        *STAGE_SETTINGS.values(), *known.backbones.values(), *known.pruners.values(),
        DatasetSettings, VolumeSettings, TrackingSettings, ResourceSettings, StageResources,
        StudySettings,
    ]  # fmt: skip
    missing = [
        f"{kind.__name__}.{field.name}"
        for kind in classes
        for field in fields(kind)
        if f"`{field.name}`" not in text
    ]
    assert missing == []
    for name in [*known.layouts, *known.backbones, *known.pruners, *known.controls]:
        assert f"`{name}`" in text


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("*.md")) + sorted((ROOT / "sweeps").glob("*.md")),
    ids=lambda p: p.name,
)
def test_links_of_a_page_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


def test_the_map_of_the_readme_names_files_that_exist():
    text = (ROOT / "README.md").read_text()
    named = re.findall(r"^\s*`([\w/.]+\.(?:py|yaml|md)|[\w/]+/)`", text, re.MULTILINE)
    named += re.findall(r"\| `([\w/.]+)` \|", text)
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_dependencies_name_the_file_that_needs_them():
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.optional")]
    for line in block.splitlines()[1:]:
        match = re.match(r'\s+"[^"]+",\s+# ([\w/]+(?:\.py)?)', line)
        if line.strip().startswith('"'):
            assert match, line
            assert (ROOT / match[1]).exists(), line

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
        "orchestrator/study_journal.py",
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


WRITERS = {
    "write_text", "write_bytes", "savez", "savez_compressed", "save", "save_file", "to_parquet",
    "to_csv", "to_json", "write_table", "dump", "savefig", "touch", "open", "mkstemp", "link",
    "rename", "replace", "NamedTemporaryFile", "TemporaryFile",
}  # fmt: skip
"""Names of calls that write files, or put them into place."""
WRITES_AND_WHY = {
    ("iac_core/data/nifti.py", "save"): "under a name of whole_path, and phantoms, made whole",
    ("iac_core/data/phantom.py", "rename"): "a folder of patients, whole",
    ("iac_core/exported.py", "save"): "programs, in a folder that is renamed when it is whole",
    ("iac_core/exported.py", "save_file"): "under a name of whole_path",
    ("iac_core/nnunet/commands.py", "open"): "adds lines that another process reads meanwhile",
    ("iac_core/nnunet/run_apart.py", "open"): "nnU-Net's log grows; reads of its progress",
    ("iac_core/training/kept_features.py", "TemporaryFile"): "has no name, and ends with its user",
    ("orchestrator/cli/commands.py", "open"): "of nothing: the null device",
    ("orchestrator/disk.py", "TemporaryFile"): "has no name: whether a folder can be written to",
    ("orchestrator/tracking_writer.py", "open"): "a connection",
    ("orchestrator/tracking.py", "write_text"): "in a temporary folder, for MLflow to copy",
    ("orchestrator/study_journal.py", "open"): "a journal grows by lines, each with its checksum",
    ("orchestrator/watch.py", "touch"): "an empty file is a signal",
    ("results/tracking/artifacts.py", "replace"): "of a damaged artifact, put aside",
    ("results/tracking/database.py", "link"): "MLflow's database, which SQLite writes",
    ("results/tracking/database.py", "replace"): "the same, where there are no links",
    ("results/tracking/experiment.py", "write_text"): "in a temporary folder, for MLflow to copy",
    ("results/early_decision.py", "rename"): "a column",
    ("results/figures.py", "savefig"): "into memory",
    ("results/statistics/intervals.py", "rename"): "a column",
    ("workers/export.py", "rename"): "a folder of an export, whole",
    ("workers/lease.py", "rename"): "of a whole file, on a disk that takes no new one",
    ("workers/memory.py", "write_text"): "a file of the kernel",
    ("workers/object_place.py", "rename"): "a folder of an outcome, whole",
    ("workers/places.py", "rename"): "a folder of an attempt, whole",
    ("workers/run_stage.py", "open"): "adds a line, for a benchmark of kills",
}
"""(file, call) → why it may write without `files.writing`."""
TAKES_A_FILE = {"savez", "savez_compressed", "write_table"}
"""Writers that may be given the open file of `files.writing.whole_file`."""


def plain_writes(path):
    """(name of the call, line) of whatever may write a file in a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name not in WRITERS or _is_harmless(node, name):
            continue
        yield name, node.lineno


def _is_harmless(node, name):
    owner = getattr(getattr(node.func, "value", None), "id", "")
    texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
    texts += [one.value.value for one in node.keywords if isinstance(one.value, ast.Constant)]
    if name == "open":
        modes = [text for text in texts if isinstance(text, str) and set(text) <= set("rwxab+t")]
        is_ours = owner in (
            "PreparedData",
            "room",
            "settings",
            "source",
            "self",
            "webbrowser",
            "curves",
        )
        return is_ours or (bool(node.args or node.keywords) and modes in (["r"], ["rb"]))
    if owner in ("os", "shutil"):
        return False
    if name in ("write_text", "write_bytes"):
        return isinstance(node.func, ast.Name)  # of files.writing
    if name == "write_table" and isinstance(node.func, ast.Name):
        return True  # of results.store
    if name in ("replace", "rename"):
        # Of strings, dataclasses and tables; a path is moved by one argument without a name.
        return isinstance(node.func, ast.Name) or len(node.args) != 1 or owner == "dataclasses"
    if name in TAKES_A_FILE:
        return any(getattr(one, "id", "") == "file" for one in node.args)
    if name in ("to_json", "save", "to_csv"):
        is_text = name != "save" and not any(
            isinstance(one, ast.Name) and one.id.endswith("path") for one in node.args
        )
        return (
            is_text
            or owner in ("split", "run", "self")
            or any(getattr(one, "id", "") == "file" for one in node.args)
        )
    return False


def test_files_are_written_in_one_place():
    found = {
        (str(path.relative_to(ROOT)), name): line
        for path in SOURCES
        if path.parts[len(ROOT.parts)] != "files"
        for name, line in plain_writes(path)
    }
    unknown = {place: line for place, line in found.items() if place not in WRITES_AND_WHY}
    assert not unknown, "write through files.writing"
    assert sorted(WRITES_AND_WHY.keys() - found.keys()) == []  # exceptions that nothing needs


def test_a_plain_write_is_seen(tmp_path):
    path = tmp_path / "module.py"
    for line in (
        "path.write_text('x')", "path.open('w')", "open(path, mode='ab')", "np.save(path, array)",
        "table.to_csv(path)", "os.replace(beside, path)", "beside.rename(path)", "path.open('x')",
        "np.savez(path, a=a)", "pq.write_table(arrow, temporary)", "torch.save(state, path)",
    ):  # fmt: skip
        path.write_text(line)
        assert list(plain_writes(path)), line
    for line in ("path.open('rb')", "text.replace('a', 'b')", "write_text(path, 'x')",
                 "np.savez(file, a=a)", "replace(settings, a=1)"):  # fmt: skip
        path.write_text(line)
        assert not list(plain_writes(path)), line


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


def test_errors_carry_their_facts_and_no_message_is_read():
    """`ConfigError(rule, value=…, way_out=…)`: what was given is no part of a rule's text."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            texts = [
                part.value
                for part in ast.walk(node.args[0])
                if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            is_message = name in ("ConfigError", "UnknownNameError", "partition", "rpartition")
            if is_message and any(", got " in text for text in texts):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


FORKS = re.compile(r"get_context\(\W*fork\W*\)|os\.fork\(|\bpreexec_fn=")


def test_no_process_is_copied_with_the_threads_of_its_libraries():
    """A copy of a process keeps the locks that other threads held, and no thread to free them."""
    here = Path(__file__)
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for folder in (*PACKAGES, "benchmarks", "tests", "sweeps")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != here
        for match in FORKS.finditer(path.read_text())
    ]
    assert found == []

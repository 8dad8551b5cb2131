"""Whatever is damaged in an exported folder is one error that names the file and the way out."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.genotype import random_genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.config import CellSettings
from iac_core.errors import ConfigError
from iac_core.exported import CELLS, DESCRIPTION, NETWORK, ExportedCells, write_export
from iac_core.exported_reading import CHECKSUMS, DESCRIPTION_SUM, description_sum
from iac_core.seeding import numpy_generator

CELL = CellSettings(n_nodes=2)


@pytest.fixture
def exported(tmp_path):
    genotype = random_genotype(CELL, 1, numpy_generator(0, "cell"))
    backbone = build_backbone(UNetSettings(widths=(4, 8)), n_channels=1, n_classes=2, seed=5)
    network = ImplantedNetwork(backbone, genotype, CELL, scope="cell", seed=3)
    write_export(tmp_path, network, genotype, CELL, {"job": {"seed": 0}})
    return tmp_path


def refused(folder, pattern=""):
    with pytest.raises(ConfigError, match=pattern) as caught:
        ExportedCells.load(folder)
    assert str(folder) in str(caught.value)
    assert "export" in str(caught.value)
    return str(caught.value)


def loaded_or_none(folder):
    try:
        return ExportedCells.load(folder)
    except ConfigError:
        return None


def signed(folder, change):
    """Change the description, and take the checksums away, as older versions wrote none."""
    description = json.loads((folder / DESCRIPTION).read_text())
    description.pop(CHECKSUMS)
    change(description)
    weights = load_file(folder / CELLS)
    save_file(weights, folder / CELLS)
    (folder / DESCRIPTION).write_text(json.dumps(description))


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (None, "must hold description.json"),
        (b"", "must hold description.json"),
        (b"\xff\xfe{}", "must hold description.json"),
        (b"[]", "must be a JSON object"),
        (b"[" * 100_000, "must hold description.json"),
        (b'{"schema":' + b"9" * 5000 + b"}", "must hold description.json"),
        (b"{}", "schema must be 2, got None"),
        (b'{"schema": 2}', "genotype must be a mapping"),
    ],
)
def test_a_description_that_is_none_is_refused(exported, content, pattern):
    path = exported / DESCRIPTION
    path.unlink() if content is None else path.write_bytes(content)
    refused(exported, pattern)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda d: d.update(genotype=[]), "genotype must be a mapping"),
        (lambda d: d["genotype"].pop("levels"), "levels must be a list"),
        (lambda d: d["genotype"].update(n_nodes="2"), "n_nodes must be from 1 to 64"),
        (lambda d: d["genotype"].update(n_nodes=10**9), "n_nodes must be from 1 to 64"),
        (lambda d: d["genotype"].update(n_nodes=3), "as many nodes, got 3 and 2"),
        (lambda d: d["genotype"].update(levels=[7]), "list of edges, got 7"),
        (lambda d: d["genotype"]["levels"][0].append([0, 2]), r"\[source, target, operation\]"),
        (lambda d: d["genotype"]["levels"][0].append([0, 2.5, "none"]), "source, target"),
        (lambda d: d["genotype"]["levels"][0].append([0, 9, "skip_connect"]), "earlier state"),
        (lambda d: d["genotype"]["levels"][0].append([0, 2, "os.system"]), "an operation must be"),
        (lambda d: d["genotype"]["levels"][0].append([0, 2, ["none"]]), "an operation must be"),
        (lambda d: d["genotype"]["levels"][0].append(d["genotype"]["levels"][0][0]), "differ"),
        (lambda d: d.pop("cell"), "cell must be a mapping"),
        (lambda d: d["cell"].pop("operations"), r"a mismatch in \['operations'\]"),
        (lambda d: d["cell"].update(colour=1), r"a mismatch in \['colour'\]"),
        (lambda d: d["cell"].update(n_nodes=None), "cell.n_nodes must be a whole number"),
        (lambda d: d["cell"].update(n_nodes=True), "cell.n_nodes must be a whole number"),
        (lambda d: d["cell"].update(form="sideways"), "cell.form must be one of replace"),
        (lambda d: d["cell"].update(start=[]), "cell.start must be one of plain"),
        (lambda d: d["cell"].update(node_width="1"), "node_width must be a number"),
        (lambda d: d["cell"].update(node_width=float("nan")), "node_width must be a number"),
        (lambda d: d["cell"].update(node_width=7), "node_width must be above 0"),
        (lambda d: d["cell"].update(operations="none"), "operations must be a list"),
        (lambda d: d["cell"].update(operations=[{}]), "operations must be a list"),
        (lambda d: d["cell"].update(operations=["conv_9x9"]), "operations must be among"),
        (lambda d: d.update(sites={}), "sites must be a list"),
        (lambda d: d["sites"].append({}), "a site must have skip_channels"),
    ],
)
def test_a_description_with_wrong_parts_is_refused(exported, change, pattern):
    signed(exported, change)
    refused(exported, pattern)


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda path: path.unlink(), "must hold cells.safetensors"),
        (lambda path: path.write_bytes(b""), "weights must be whole"),
        (lambda path: path.write_bytes(path.read_bytes()[:-7]), "weights must be whole"),
        (lambda path: path.write_bytes(b"\xff" * 8 + path.read_bytes()[8:]), "weights must be"),
        (lambda path: path.write_bytes(b"<html>not found</html>"), "weights must be"),
        (lambda path: (path.unlink(), path.mkdir()), "must hold cells.safetensors"),
    ],
)
def test_weights_that_are_not_whole_are_refused(exported, change, pattern):
    change(exported / CELLS)
    refused(exported, pattern)


def test_weights_that_are_not_finite_are_refused_without_checksums_too(exported):
    signed(exported, lambda description: None)
    weights = load_file(exported / CELLS)
    name = next(name for name, tensor in weights.items() if tensor.is_floating_point())
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, exported / CELLS)
    refused(exported, f"finite numbers, got 'NaN or infinity in {name}")


@pytest.mark.parametrize("name", [DESCRIPTION, CELLS, NETWORK])
def test_every_flipped_bit_is_noticed(exported, name):
    path, draw = exported / name, random.Random(0)
    whole = path.read_bytes()
    before = ExportedCells.load(exported).description
    for _ in range(60):
        content = bytearray(whole)
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        after = loaded_or_none(exported)
        if after is not None:  # white space, or the checksum of a file that is not there
            assert name == DESCRIPTION
            assert {**after.description, CHECKSUMS: None} == {**before, CHECKSUMS: None}


def test_an_export_of_a_version_without_checksums_is_read(exported):
    before = ExportedCells.load(exported)
    signed(exported, lambda description: None)
    after = ExportedCells.load(exported)
    assert after.genotype == before.genotype
    assert all(torch.equal(after.weights[name], before.weights[name]) for name in before.weights)


def test_weights_of_another_export_are_refused(exported):
    description = json.loads((exported / DESCRIPTION).read_text())
    other = {**description, "job": {"seed": 1}}
    metadata = {DESCRIPTION_SUM: description_sum(other)}
    save_file(load_file(exported / CELLS), exported / CELLS, metadata=metadata)
    refused(exported, "another checksum")

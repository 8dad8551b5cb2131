"""An exported folder says everything that its cells are built from."""

import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.genotype import random_genotype
from iac_core.cells.implant import ImplantedNetwork
from iac_core.config import CellSettings
from iac_core.exported import ExportedCells, write_export
from iac_core.seeding import numpy_generator


def backbone():
    return build_backbone(UNetSettings(widths=(8, 16)), n_channels=1, n_classes=3, seed=5)


@pytest.mark.parametrize(
    "cell",
    [
        CellSettings(),
        CellSettings(form="residual", start="plain"),
        CellSettings(form="added", node_width=None),
        CellSettings(
            n_nodes=2,
            node_width=0.5,
            start="plain",
            second_input="skip",
            architecture="per_level",
            operations=("none", "skip_connect", "sep_conv_3x3"),
        ),
    ],
)
def test_cells_of_any_settings_come_back_whole(cell, tmp_path):
    genotype = random_genotype(cell, 1, numpy_generator(0, "cell"))
    network = ImplantedNetwork(backbone(), genotype, cell, scope="cell", seed=3)
    write_export(tmp_path, network, genotype, cell, {})
    cells = ExportedCells.load(tmp_path)
    assert cells.settings == cell
    assert cells.genotype == genotype
    again = cells.implant_into(backbone(), seed=4).eval()
    images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(again(images), network.eval()(images))

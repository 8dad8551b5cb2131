import copy

import pytest
import torch

from iac_core.backbones import build_backbone
from iac_core.backbones.unet import UNetSettings
from iac_core.cells.genotype import random_genotype
from iac_core.cells.implant import ImplantedNetwork, Supernet
from iac_core.config import CellSettings
from iac_core.seeding import numpy_generator

SETTINGS = UNetSettings(widths=(8, 16, 32))


def backbone(seed=0):
    return build_backbone(SETTINGS, n_channels=1, n_classes=4, seed=seed)


def implanted(scope="cell", form="replace", second_input="decoder"):
    cell = CellSettings(n_nodes=2, form=form, second_input=second_input)
    genotype = random_genotype(cell, 2, numpy_generator(0, "test"))
    return ImplantedNetwork(backbone(), genotype, cell, scope=scope, seed=0)


def moved_after_a_step(network, parameters):
    before = copy.deepcopy(network.state_dict())
    optimiser = torch.optim.SGD(parameters, lr=0.1)
    network.train()
    loss = network(torch.randn(4, 1, 16, 16)).square().mean()
    loss.backward()
    optimiser.step()
    return {
        name
        for name, value in network.state_dict().items()
        if not torch.equal(value, before[name])
    }


@pytest.mark.parametrize("join", ["replace", "added", "residual"])
def test_a_weight_step_of_the_search_moves_no_frozen_tensor(join):
    supernet = Supernet(backbone(), CellSettings(n_nodes=2), seed=0, join=join)
    moved = moved_after_a_step(supernet, supernet.implant.cell_parameters())
    assert moved
    assert not [name for name in moved if "backbone" in name]


@pytest.mark.parametrize(
    ("scope", "parts"),
    [("cell", set()), ("cell_and_decoder", {"decoder"}), ("all", {"encoder", "decoder"})],
)
def test_a_retraining_step_moves_what_the_scope_names_and_nothing_else(scope, parts):
    network = implanted(scope=scope)
    trained = [*network.implant.cell_parameters(), *network.implant.backbone_parameters()]
    moved = moved_after_a_step(network, trained)
    prefix = "implant.backbone."
    found = {name[len(prefix) :].split(".")[0] for name in moved if name.startswith(prefix)}
    assert found == parts
    assert any(name.startswith("implant.cells.") for name in moved)


@pytest.mark.parametrize("second_input", ["decoder", "skip"])
def test_a_residual_cell_starts_as_the_backbone_bit_for_bit(second_input):
    network = implanted(form="residual", second_input=second_input).eval()
    images = torch.randn(2, 1, 17, 23)
    with torch.no_grad():
        assert torch.equal(network(images), backbone().eval()(images))


def test_the_seed_fixes_the_cell_weights():
    states = [implanted().state_dict() for _ in range(2)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_supernet_with_an_architecture_per_level_uses_each_for_its_level():
    cell = CellSettings(n_nodes=2, architecture="per_level", form="replace")
    supernet = Supernet(backbone(), cell, seed=0)
    assert supernet.architecture.n_levels == 2
    supernet(torch.randn(2, 1, 16, 16)).square().mean().backward()
    gradient = supernet.architecture.alpha.grad.view(2, 5, 8)
    assert (gradient != 0).all()

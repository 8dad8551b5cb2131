import numpy as np
import pytest
import torch
from reference_cell import reference_forward, shuffled

from iac_core.cells.architecture import ArchitectureParameters
from iac_core.cells.search_cell import SearchCell, shuffle_channels
from iac_core.config import CellSettings


def cell_and_architecture(settings, channels=16, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    cell = SearchCell(channels, 8, settings).to(dtype)
    architecture = ArchitectureParameters(settings, 1, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        architecture.alpha.mul_(700)
        architecture.beta.mul_(700)
    return cell, architecture.to(dtype)


def output_and_gradients(forward, cell, architecture):
    generator = torch.Generator().manual_seed(3)
    dtype = architecture.beta.dtype
    skip = torch.randn(3, 16, 9, 7, dtype=dtype, generator=generator, requires_grad=True)
    second = torch.randn(3, 8, 9, 7, dtype=dtype, generator=generator, requires_grad=True)
    importance, weights = architecture.importance()[0], architecture.edge_weights()[0]
    out = forward(cell, skip, second, importance, weights)
    direction = torch.randn(out.shape, dtype=dtype, generator=generator)
    wanted = [skip, second, *cell.parameters(), *architecture.parameters()]
    gradients = torch.autograd.grad((out * direction).sum(), wanted, allow_unused=True)
    return [out.detach(), *gradients]


def random_subset(settings, seed):
    """A mask of operations that keeps two edges with something on them for each node."""
    generator = np.random.default_rng(seed)
    architecture = ArchitectureParameters(settings, 1, torch.Generator())
    keep = generator.random((1, len(architecture.edges), len(settings.operations))) < 0.4
    for edge, (source, _) in enumerate(architecture.edges):
        if source < 2 or not keep[0, edge].any():
            keep[0, edge, generator.integers(1, len(settings.operations))] = True
    return keep


@pytest.mark.parametrize("n_nodes", [2, 3, 4, 5])
@pytest.mark.parametrize("partial_channels", [1, 2, 4])
@pytest.mark.parametrize("subset", [None, 0, 1])
def test_cell_equals_the_plain_reference_in_value_and_every_gradient(
    n_nodes, partial_channels, subset
):
    settings = CellSettings(n_nodes=n_nodes, partial_channels=partial_channels)
    cell, architecture = cell_and_architecture(settings)
    if subset is not None:
        keep = random_subset(settings, subset)
        cell.prune(keep[0])
        architecture.prune(keep, None)
    ours = output_and_gradients(SearchCell.forward, cell, architecture)
    reference = output_and_gradients(reference_forward, cell, architecture)
    for value, expected in zip(ours, reference, strict=True):
        assert (value is None) == (expected is None)
        if value is not None:
            assert (value - expected).norm() <= 1e-10 * expected.norm().clamp_min(1e-3)


def test_wide_partial_channels_take_the_other_path_with_the_same_result():
    settings = CellSettings(n_nodes=2, partial_channels=1)
    torch.manual_seed(0)
    cell = SearchCell(32, 8, settings).double()
    assert cell.n_active_channels == 16
    _, architecture = cell_and_architecture(settings)
    skip = torch.randn(2, 32, 6, 6, dtype=torch.float64)
    second = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    arguments = (skip, second, architecture.importance()[0], architecture.edge_weights()[0])
    assert torch.allclose(cell(*arguments), reference_forward(cell, *arguments), atol=1e-10)


def test_shuffle_equals_its_definition():
    x = torch.randn(2, 12, 3, 3)
    for groups in (1, 2, 3, 4):
        assert torch.equal(shuffle_channels(x, groups), shuffled(x, groups))


def test_every_architecture_parameter_gets_a_finite_gradient_that_is_not_zero():
    cell, architecture = cell_and_architecture(CellSettings())
    *_, alpha, beta = output_and_gradients(SearchCell.forward, cell, architecture)
    assert torch.isfinite(alpha).all()
    assert torch.isfinite(beta).all()
    assert (alpha != 0).all()
    assert (beta != 0).all()


def test_pruned_operations_leave_parameters_and_optimiser_state():
    settings = CellSettings(n_nodes=2)
    cell, architecture = cell_and_architecture(settings)
    optimiser = torch.optim.Adam(architecture.parameters(), lr=0.1)
    architecture.importance().square().sum().backward()
    architecture.beta.grad = torch.ones_like(architecture.beta)
    optimiser.step()
    before = {name: value.clone() for name, value in optimiser.state[architecture.alpha].items()}
    n_before = sum(parameter.numel() for parameter in cell.parameters())
    keep = np.ones((1, 5, 8), dtype=bool)
    keep[0, 0, 4:] = False
    gone = cell.prune(keep[0])
    architecture.prune(keep, optimiser)
    assert sum(parameter.numel() for parameter in cell.parameters()) == n_before - sum(
        parameter.numel() for parameter in gone
    )
    assert len(gone) == 2 * 4 + 2 * 2
    assert architecture.alpha.shape == (36,)
    state = optimiser.state[architecture.alpha]
    assert torch.equal(state["exp_avg"], before["exp_avg"][keep.flatten()])
    assert architecture.importance()[0, 0, 4:].eq(0).all()
    assert architecture.importance()[0].sum(dim=-1).allclose(torch.ones(5, dtype=torch.float64))


def test_an_edge_left_with_none_is_out_of_the_edge_normalisation():
    settings = CellSettings(n_nodes=2)
    _, architecture = cell_and_architecture(settings)
    keep = np.ones((1, 5, 8), dtype=bool)
    keep[0, 4, 1:] = False
    architecture.prune(keep, None)
    weights = architecture.edge_weights()[0]
    assert weights[4] == 0
    assert float(weights[2:4].sum().detach()) == pytest.approx(1)

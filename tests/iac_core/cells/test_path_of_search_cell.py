"""A search cell that runs one path: the value, the gradients, and what stays untouched."""

import copy

import numpy as np
import pytest
import torch

from benchmarks.reference_cell import ReferenceCell
from iac_core.cells.discrete_cell import DiscreteCell
from iac_core.cells.search_cell import SearchCell
from iac_core.config import CellSettings
from iac_core.searches.cell_space import CellSpace


def cell_and_path(settings, *, seed=0, channels=16, dtype=torch.float64, norm="batch"):
    torch.manual_seed(seed)
    cell = SearchCell(channels, 8, settings, norm).to(dtype)
    space = CellSpace(settings, 1)
    genotype = space.sample(np.random.default_rng(seed))
    return cell, genotype, space.mask(genotype)[0]


def inputs(dtype, channels=16):
    generator = torch.Generator().manual_seed(3)
    skip, second, direction = (
        torch.randn(3, width, 9, 7, dtype=dtype, generator=generator)
        for width in (channels, 8, channels)
    )
    return skip.requires_grad_(), second.requires_grad_(), direction


@pytest.mark.parametrize("in_planes", [True, False], ids=["planes", "tensors"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("partial_channels", "n_nodes"), [(1, 2), (1, 4), (2, 3)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_path_equals_its_operations_one_by_one_in_value_and_gradients(
    in_planes, norm, partial_channels, n_nodes, seed
):
    settings = CellSettings(n_nodes=n_nodes, partial_channels=partial_channels)
    cell, _, path = cell_and_path(settings, seed=seed, channels=24, norm=norm)
    cell.twice_differentiable = not in_planes
    pruned = copy.deepcopy(cell)
    pruned.prune(path, None)
    reference = ReferenceCell(pruned)
    if norm == "instance":
        for module in list(reference.modules()):
            for name, part in module.named_children():
                if isinstance(part, torch.nn.BatchNorm2d):
                    setattr(module, name, torch.nn.InstanceNorm2d(part.num_features))
    skip, second, direction = inputs(torch.float64, 24)
    ours = cell.forward_path(skip, second, path)
    ones = torch.from_numpy(path).double()
    theirs = reference(skip, second, ones, ones.amax(dim=-1))
    assert torch.allclose(ours, theirs, atol=1e-10)

    of_inputs = [layer.conv.weight for layer in cell.inputs]
    found = torch.autograd.grad((ours * direction).sum(), [skip, second, *of_inputs, cell.weights])
    kernels = [conv.weight for _, conv in reference.kernel_at]
    expected = torch.autograd.grad(
        (theirs * direction).sum(),
        [skip, second, *(layer[1].weight for layer in reference.inputs), *kernels],
    )
    for value, other in zip(found[:4], expected[:4], strict=True):
        assert (value - other).norm() <= 1e-9 * other.norm()
    places = pruned.layout.places_in(cell.layout)
    on_path = found[4][places]
    for (place, _), gradient in zip(reference.kernel_at, expected[4:], strict=True):
        difference = (on_path[place] - gradient.flatten()).norm()
        assert difference <= 1e-9 * gradient.norm().clamp_min(1e-3 * on_path.norm())
    off_path = torch.ones_like(cell.weights, dtype=torch.bool)
    off_path[places] = False
    assert off_path.any()
    assert (found[4][off_path] == 0).all()


def test_a_path_of_a_pruned_cell_is_that_of_the_whole_one():
    settings = CellSettings(partial_channels=1)
    cell, _, path = cell_and_path(settings)
    skip, second, _ = inputs(torch.float64)
    before = cell.forward_path(skip, second, path)
    keep = path | (np.random.default_rng(0).random(path.shape) < 0.5)
    cell.prune(keep, None)
    assert torch.equal(cell.forward_path(skip, second, path), before)


def test_a_path_without_pools_is_the_discrete_cell_of_its_genotype():
    settings = CellSettings(
        partial_channels=1, operations=("none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")
    )
    cell, genotype, path = cell_and_path(settings)
    discrete = DiscreteCell(16, 8, settings, genotype.levels[0]).double().train()
    pruned = copy.deepcopy(cell)
    pruned.prune(path, None)
    kernels = {}
    for edge, column, place, shape in pruned.layout.tensors():
        kernels.setdefault((edge, column), []).append(pruned.weights[place].view(shape))
    with torch.no_grad():
        for ours, theirs in zip(cell.inputs, discrete.inputs, strict=True):
            theirs.conv.weight.copy_(ours.conv.weight)
        discrete.output.load_state_dict(cell.output.state_dict())
        for edge, operation in zip(discrete.edges, discrete.operations, strict=True):
            column = settings.operations.index(edge.operation)
            place = cell.edges.index((edge.source, edge.target)), column
            weights = [one for one in operation.parameters() if one.ndim == 4]
            for weight, value in zip(weights, kernels.get(place, []), strict=True):
                weight.copy_(value)
        skip, second, _ = inputs(torch.float64)
        assert torch.allclose(
            cell.forward_path(skip, second, path), discrete(skip, second), atol=1e-10
        )


@pytest.mark.parametrize("in_planes", [True, False], ids=["planes", "tensors"])
@pytest.mark.parametrize("operation", CellSettings().operations[1:])
def test_a_path_of_one_operation_runs_and_has_gradients(in_planes, operation):
    settings = CellSettings(partial_channels=1)
    cell, _, path = cell_and_path(settings)
    cell.twice_differentiable = not in_planes
    uniform = np.zeros_like(path)
    uniform[path.any(axis=1), settings.operations.index(operation)] = True
    skip, second, direction = inputs(torch.float64)
    loss = (cell.forward_path(skip, second, uniform) * direction).sum()
    of_skip, of_weights = torch.autograd.grad(loss, [skip, cell.weights], allow_unused=True)
    assert torch.isfinite(of_skip).all()
    assert (of_skip != 0).any()
    has_gradient = of_weights is not None and bool((of_weights != 0).any())
    assert has_gradient == ("conv" in operation)


def test_only_a_few_plans_are_kept():
    settings = CellSettings(partial_channels=1)
    cell, _, _ = cell_and_path(settings)
    space, generator = CellSpace(settings, 1), np.random.default_rng(0)
    skip, second, _ = inputs(torch.float64)
    with torch.no_grad():
        for _ in range(40):
            cell.forward_path(skip, second, space.mask(space.sample(generator))[0])
    assert len(cell._paths) == 16

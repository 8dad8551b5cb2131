import numpy as np
import pytest
import torch

from benchmarks.reference_cell import ReferenceCell, shuffled
from iac_core.cells.architecture import ArchitectureParameters
from iac_core.cells.search_cell import SearchCell
from iac_core.cells.tensor_dag import shuffle_channels
from iac_core.config import CellSettings


def cell_and_architecture(settings, channels=16, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    cell = SearchCell(channels, 8, settings).to(dtype)
    architecture = ArchitectureParameters(settings, 1, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        architecture.alpha.mul_(700)
        architecture.beta.mul_(700)
    return cell, architecture.to(dtype)


def inputs(dtype, channels=16, size=(9, 7), batch=3):
    generator = torch.Generator().manual_seed(3)
    return [
        torch.randn(batch, width, *size, dtype=dtype, generator=generator)
        for width in (channels, 8, channels)
    ]


def output_and_gradients(forward, weights, architecture, channels=16):
    """The output, then the gradients of inputs, alpha, beta and the given weights."""
    skip, second, direction = inputs(architecture.beta.dtype, channels)
    skip.requires_grad_()
    second.requires_grad_()
    importance, edge_weights = architecture.importance()[0], architecture.edge_weights()[0]
    out = forward(skip, second, importance, edge_weights)
    wanted = [skip, second, architecture.alpha, architecture.beta, *weights]
    gradients = torch.autograd.grad((out * direction).sum(), wanted)
    return [out.detach(), *gradients]


def pairs(cell, architecture, channels=16):
    """Every result of a cell beside the reference's: output, gradients of all tensors."""
    reference = ReferenceCell(cell)
    if cell.norm == "instance":
        use_instance_norms(reference)
    ours = output_and_gradients(
        cell,
        [cell.weights, *(layer.conv.weight for layer in cell.inputs)],
        architecture,
        channels,
    )
    kernels = [conv.weight for _, conv in reference.kernel_at]
    theirs = output_and_gradients(
        reference,
        [*kernels, *(layer[1].weight for layer in reference.inputs)],
        architecture,
        channels,
    )
    flat = ours[5]
    parts = [flat[place] for place, _ in reference.kernel_at]
    floor = 1e-3 * flat.norm()
    return [*zip([*ours[:5], *parts, *ours[6:]], theirs, strict=True)], floor


def use_instance_norms(reference):
    for module in list(reference.modules()):
        for name, part in module.named_children():
            if isinstance(part, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.InstanceNorm2d(part.num_features))


def assert_equal(cell, architecture, tolerance, channels=16):
    found, floor = pairs(cell, architecture, channels)
    for value, expected in found:
        # A norm after a kernel leaves it little gradient, of one channel none: hence a floor.
        difference = (value.flatten() - expected.flatten()).norm()
        assert difference <= tolerance * expected.norm().clamp_min(floor)


def random_subset(settings, seed):
    """A mask of operations that keeps two edges with something on them for each node."""
    generator = np.random.default_rng(seed)
    architecture = ArchitectureParameters(settings, 1, torch.Generator())
    keep = generator.random((1, len(architecture.edges), len(settings.operations))) < 0.4
    for edge, (source, _) in enumerate(architecture.edges):
        if source < 2 or not keep[0, edge].any():
            keep[0, edge, generator.integers(1, len(settings.operations))] = True
    return keep


@pytest.mark.parametrize("in_planes", [True, False], ids=["planes", "tensors"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["f64", "f32"]
)
@pytest.mark.parametrize("n_nodes", [2, 3, 4, 5])
@pytest.mark.parametrize("partial_channels", [1, 2, 4])
@pytest.mark.parametrize("subset", [None, 0, 1])
def test_cell_equals_the_plain_reference_in_value_and_every_gradient(
    in_planes, dtype, tolerance, n_nodes, partial_channels, subset
):
    # Of these inputs one activation of a wide cell is zero to rounding, which float32 turns.
    settings = CellSettings(
        n_nodes=n_nodes,
        partial_channels=partial_channels,
        node_width=None if dtype == torch.float32 else 1.0,
    )
    cell, architecture = cell_and_architecture(settings, channels=48, dtype=dtype)
    cell.twice_differentiable = not in_planes
    if subset is not None:
        keep = random_subset(settings, subset)
        cell.prune(keep[0], None)
        architecture.prune(keep, None)
    assert_equal(cell, architecture, tolerance, channels=48)


@pytest.mark.parametrize("in_planes", [True, False], ids=["planes", "tensors"])
def test_wide_nodes_equal_the_reference(in_planes):
    for width, n_channels in ((None, 22), (1.0, 44)):
        settings = CellSettings(n_nodes=2, partial_channels=1, node_width=width)
        cell, architecture = cell_and_architecture(settings, channels=44)
        assert cell.n_active_channels == n_channels
        cell.twice_differentiable = not in_planes
        assert_equal(cell, architecture, 1e-10, channels=44)


@pytest.mark.parametrize("operation", CellSettings().operations[1:])
def test_an_operation_alone_equals_the_reference(operation):
    settings = CellSettings(n_nodes=2)
    cell, architecture = cell_and_architecture(settings)
    keep = np.zeros((1, 5, 8), dtype=bool)
    keep[..., settings.operations.index(operation)] = True
    cell.prune(keep[0], None)
    architecture.prune(keep, None)
    assert_equal(cell, architecture, 1e-10)


@pytest.mark.parametrize("in_planes", [True, False], ids=["planes", "tensors"])
def test_masks_of_groups_give_what_each_mask_gives_alone(in_planes):
    settings = CellSettings(n_nodes=3)
    cell, architecture = cell_and_architecture(settings)
    cell.twice_differentiable = not in_planes
    generator = np.random.default_rng(0)
    masks = torch.from_numpy(generator.random((3, 9, 8)) < 0.6)
    skip, second, _ = inputs(torch.float64)
    importance = architecture.importance()[0].detach() * masks
    weights = architecture.edge_weights()[0].detach()
    with torch.no_grad():
        together = cell(
            skip.repeat(3, 1, 1, 1),
            second.repeat(3, 1, 1, 1),
            importance,
            weights.expand(3, -1),
        )
        alone = torch.cat([cell(skip, second, row, weights) for row in importance])
    assert torch.allclose(together, alone, atol=1e-12)
    assert not torch.allclose(together[:3], together[3:6])


def test_a_nan_in_the_input_reaches_the_output():
    cell, architecture = cell_and_architecture(CellSettings(n_nodes=2))
    skip, second, _ = inputs(torch.float64)
    skip[0, 0, 0, 0] = torch.nan
    arguments = (skip, second, architecture.importance()[0], architecture.edge_weights()[0])
    assert torch.isnan(cell(*arguments)).any()


def test_memory_that_is_used_again_changes_no_result():
    cell, architecture = cell_and_architecture(CellSettings())
    weights = [cell.weights]
    first = output_and_gradients(cell, weights, architecture)
    for _ in range(3):
        with torch.no_grad():
            cell(
                *inputs(torch.float64)[:2],
                architecture.importance()[0] * 2,
                architecture.edge_weights()[0],
            )
        again = output_and_gradients(cell, weights, architecture)
        for value, expected in zip(again, first, strict=True):
            assert torch.equal(value, expected)


def test_second_derivatives_need_the_tensor_form():
    cell, architecture = cell_and_architecture(CellSettings(n_nodes=2))
    skip, second, _ = inputs(torch.float64)

    def gradient():
        out = cell(skip, second, architecture.importance()[0], architecture.edge_weights()[0])
        loss = out.square().sum()
        return torch.autograd.grad(loss, architecture.alpha, create_graph=True)[0]

    with pytest.raises(RuntimeError, match="twice_differentiable"):
        gradient()
    cell.twice_differentiable = True
    (second_derivative,) = torch.autograd.grad(gradient().sum(), architecture.alpha)
    assert torch.isfinite(second_derivative).all()
    assert (second_derivative != 0).any()


def test_shuffle_equals_its_definition():
    x = torch.randn(2, 12, 3, 3)
    for groups in (1, 2, 3, 4):
        assert torch.equal(shuffle_channels(x, groups), shuffled(x, groups))


def test_every_architecture_parameter_gets_a_finite_gradient_that_is_not_zero():
    cell, architecture = cell_and_architecture(CellSettings())
    _, _, _, alpha, beta = output_and_gradients(cell, [], architecture)
    assert torch.isfinite(alpha).all()
    assert torch.isfinite(beta).all()
    assert (alpha != 0).all()
    assert (beta != 0).all()


def test_pruned_operations_leave_parameters_and_optimiser_state():
    settings = CellSettings(n_nodes=2)
    cell, architecture = cell_and_architecture(settings)
    optimiser = torch.optim.Adam([*cell.parameters(), *architecture.parameters()], lr=0.1)
    for parameter in [*cell.parameters(), *architecture.parameters()]:
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
    kernels = {
        (edge, column, place.stop - place.start): (
            cell.weights.detach()[place].clone(),
            optimiser.state[cell.weights]["exp_avg"][place].clone(),
        )
        for edge, column, place, _ in cell.layout.tensors()
    }
    alpha_moments = optimiser.state[architecture.alpha]["exp_avg"].clone()
    keep = np.ones((1, 5, 8), dtype=bool)
    keep[0, 0, 4:] = False
    n_before = cell.weights.numel()
    cell.prune(keep[0], optimiser)
    architecture.prune(keep, optimiser)
    m = cell.n_active_channels
    assert n_before - cell.weights.numel() == 2 * (9 + 25) * m + 4 * m**2 + (9 + 25) * m + 2 * m**2
    assert architecture.alpha.shape == (36,)
    moments = optimiser.state[architecture.alpha]["exp_avg"]
    assert torch.equal(moments, alpha_moments[keep.flatten()])
    for edge, column, place, _ in cell.layout.tensors():
        if settings.operations[column].startswith("dil"):
            weights, moments = kernels[edge, column, place.stop - place.start]
            assert torch.equal(cell.weights[place], weights)
            assert torch.equal(optimiser.state[cell.weights]["exp_avg"][place], moments)
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


@pytest.mark.parametrize("twice_differentiable", [False, True])
def test_with_instance_norm_every_slice_has_its_own_statistics(twice_differentiable):
    settings = CellSettings(n_nodes=3, partial_channels=2)
    torch.manual_seed(0)
    cell = SearchCell(16, 8, settings, "instance").double()
    cell.twice_differentiable = twice_differentiable
    _, architecture = cell_and_architecture(settings)
    assert_equal(cell, architecture, 1e-10)
    keep = random_subset(settings, 1)
    cell.prune(keep[0], None)
    architecture.prune(keep, None)
    assert_equal(cell, architecture, 1e-10)

"""The searched cell of one skip level: a DAG of mixed operations over partial channels.

The mathematics is PC-DARTS's: with the states x_i, the first 1/K of their channels a_i and the
others b_i,

    node_j = shuffle(concat(sum_i w_ij sum_o p_ijo o_ijo(a_i), sum_i w_ij b_i)),

where p is the softmax of alpha over an edge's active operations and w that of beta over a node's
live edges. It is computed in another order, with the same result:

* what all edges that leave a state share is done once: the pools with their norm, and the ReLU;
* one convolution serves all edges that leave a state through the same operation;
* w p is the scale of the last batch norm of an operation, so weighting costs nothing;
* concatenation and shuffle are linear, so they run once per node, on the sum.

Each operation still owns its parameters, as the module of `OPERATIONS`; a pruned one is deleted.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from iac_core.cells.genotype import N_INPUTS, cell_edges
from iac_core.cells.layout import InputLayer, node_channels, output_layer
from iac_core.cells.operations import OPERATIONS, Pool, SeparableBranch, SeparableConv
from iac_core.config import CellSettings

_POOLED = ("max_pool_3x3", "avg_pool_3x3", "skip_connect")
_COMPOSE_UP_TO_CHANNELS = 8
"""Up to this width a depthwise kernel and the pointwise one after it run as one dense kernel: more
arithmetic, less memory traffic. Measured on a CPU with channels last; wider pays if dilated."""


def shuffle_channels(x: Float[Tensor, "b c h w"], groups: int) -> Float[Tensor, "b c h w"]:
    """Move channel ``a·(C/groups) + b`` to ``b·groups + a`` (PC-DARTS).

    Examples:
        >>> shuffle_channels(torch.arange(4.0).view(1, 4, 1, 1), 2).flatten().tolist()
        [0.0, 2.0, 1.0, 3.0]
    """
    if groups == 1:
        return x
    batch, channels, height, width = x.shape
    grouped = x.view(batch, groups, channels // groups, height, width)
    return grouped.transpose(1, 2).reshape(batch, channels, height, width)


class SearchCell(nn.Module):
    """The mixed cell of one skip level.

    Args:
        skip_channels: Channels of the encoder's skip, and of the output.
        second_channels: Channels of the second input.
        settings: The cell.
    """

    def __init__(self, skip_channels: int, second_channels: int, settings: CellSettings) -> None:
        super().__init__()
        self.n_nodes = settings.n_nodes
        self.partial_channels = settings.partial_channels
        self.operation_names = settings.operations
        self.edges = cell_edges(settings.n_nodes)
        channels = node_channels(skip_channels, settings)
        self.n_active_channels = channels // settings.partial_channels
        self.inputs = nn.ModuleList(
            InputLayer(width, channels, affine=False) for width in (skip_channels, second_channels)
        )
        self.operations = nn.ModuleDict(
            {
                _module_name(edge, name): OPERATIONS[name](self.n_active_channels, affine=False)
                for edge in range(len(self.edges))
                for name in settings.operations
                if name != "none"
            }
        )
        self.output = output_layer(settings.n_nodes, channels, skip_channels)

    def forward(
        self,
        skip: Float[Tensor, "b c h w"],
        second: Float[Tensor, "b c2 h w"],
        importance: Float[Tensor, "edges ops"],
        edge_weights: Float[Tensor, " edges"],
    ) -> Float[Tensor, "b c h w"]:
        """Return the cell's output.

        Args:
            skip: Encoder feature.
            second: Second input, of the same spatial size.
            importance: Softmax of alpha, 0 for operations that are gone.
            edge_weights: Softmax of beta, 0 for edges that are gone.
        """
        coefficients = importance * edge_weights[:, None]
        states = [
            layer(feature) for layer, feature in zip(self.inputs, (skip, second), strict=True)
        ]
        sums: dict[int, Tensor] = {}
        for source in range(N_INPUTS + self.n_nodes - 1):
            if source >= N_INPUTS:
                states.append(self._node(source, sums, states, edge_weights))
            active = states[source][:, : self.n_active_channels]
            for edges, value in self._leaving(source, active, coefficients):
                for edge, part in zip(
                    edges, torch.split(value, self.n_active_channels, 1), strict=True
                ):
                    target = self.edges[edge][1]
                    sums[target] = sums[target] + part if target in sums else part
        states.append(self._node(N_INPUTS + self.n_nodes - 1, sums, states, edge_weights))
        out: Tensor = self.output(torch.cat(states[N_INPUTS:], dim=1))
        return out

    def prune(self, keep: Bool[ndarray, "edges ops"]) -> list[nn.Parameter]:
        """Delete every operation outside `keep`; return the parameters that went with them."""
        gone: list[nn.Parameter] = []
        for edge in range(len(self.edges)):
            for column, name in enumerate(self.operation_names):
                key = _module_name(edge, name)
                if not keep[edge, column] and key in self.operations:
                    gone += list(self.operations[key].parameters())
                    del self.operations[key]
        return gone

    def _edges_with(self, source: int, name: str) -> list[int]:
        """Edges that leave a state and still have an operation."""
        return [
            edge
            for edge, (start, _) in enumerate(self.edges)
            if start == source and _module_name(edge, name) in self.operations
        ]

    def _node(
        self, target: int, sums: dict[int, Tensor], states: Sequence[Tensor], weights: Tensor
    ) -> Tensor:
        """Join the summed operations of a node with its summed bypass, then shuffle."""
        if self.partial_channels == 1:
            return sums[target]
        bypass: Tensor | None = None
        for edge, (source, node) in enumerate(self.edges):
            if node == target and self._is_live(edge):
                part = weights[edge] * states[source][:, self.n_active_channels :]
                bypass = part if bypass is None else bypass + part
        assert bypass is not None, "a node keeps at least one live edge"
        joined = torch.cat([sums[target], bypass], dim=1)
        return shuffle_channels(joined, self.partial_channels)

    def _is_live(self, edge: int) -> bool:
        return any(_module_name(edge, name) in self.operations for name in self.operation_names)

    def _leaving(
        self, source: int, active: Tensor, coefficients: Tensor
    ) -> list[tuple[tuple[int, ...], Tensor]]:
        """Weighted results of all operations on the edges that leave a state.

        Returns:
            Pairs of edges and a tensor whose channels are theirs side by side; results over the
            same edges are summed already.
        """
        totals: dict[tuple[int, ...], Tensor] = {}
        rectified: Tensor | None = None
        results = [self._pooled(source, active, coefficients)]
        for column, name in enumerate(self.operation_names):
            edges = self._edges_with(source, name)
            if name in _POOLED or not edges:
                continue
            rectified = torch.relu(active) if rectified is None else rectified
            value = self._convolved(name, edges, rectified, coefficients[edges, column])
            results.append((tuple(edges), value))
        for edges_key, value in results:
            if edges_key:
                before = totals.get(edges_key)
                totals[edges_key] = value if before is None else before + value
        return list(totals.items())

    def _pooled(
        self, source: int, active: Tensor, coefficients: Tensor
    ) -> tuple[tuple[int, ...], Tensor]:
        """Weighted pools and identity of all edges that leave a state: one 1 × 1 convolution."""
        columns, tensors, edges = [], [], set()
        for column, name in enumerate(self.operation_names):
            having = self._edges_with(source, name) if name in _POOLED else []
            if having:
                columns.append(column)
                edges.update(having)
                operation = self.operations[_module_name(having[0], name)]
                tensors.append(operation(active) if isinstance(operation, Pool) else active)
        if not edges:
            return (), active
        order = sorted(edges)
        mixing = coefficients[order][:, columns]
        identity = torch.eye(self.n_active_channels, dtype=mixing.dtype, device=mixing.device)
        kernel = torch.kron(mixing, identity)[:, :, None, None]
        return tuple(order), F.conv2d(torch.cat(tensors, dim=1), kernel)

    def _convolved(
        self, name: str, edges: Sequence[int], rectified: Tensor, scale: Tensor
    ) -> Tensor:
        """Weighted results of one convolutional operation on edges that leave one state."""
        modules = [self.operations[_module_name(edge, name)] for edge in edges]
        branches: list[list[SeparableBranch]] = []
        for module in modules:
            assert isinstance(module, SeparableConv)
            branches.append([branch for branch in module if isinstance(branch, SeparableBranch)])
        by_stage = list(zip(*branches, strict=True))
        out = _shared_input(by_stage[0], rectified)
        for stage in by_stage[1:]:
            out = torch.relu(F.batch_norm(out, None, None, training=True))
            out = _side_by_side(stage, out)
        width = self.n_active_channels
        return F.batch_norm(out, None, None, scale.repeat_interleave(width), training=True)


def _module_name(edge: int, operation: str) -> str:
    return f"edge{edge}_{operation}"


def _stacked(branches: Sequence[SeparableBranch]) -> tuple[Tensor, Tensor]:
    depthwise = torch.cat([branch.depthwise.weight for branch in branches])
    pointwise = torch.cat([branch.pointwise.weight for branch in branches])
    return depthwise, pointwise


def _shared_input(branches: Sequence[SeparableBranch], x: Tensor) -> Tensor:
    """Depthwise and pointwise convolution of one input by several branches, side by side."""
    conv = branches[0].depthwise
    channels, n_branches = x.shape[1], len(branches)
    if channels > _COMPOSE_UP_TO_CHANNELS and conv.dilation == (1, 1):
        return _side_by_side(branches, x.repeat(1, n_branches, 1, 1))
    depthwise, pointwise = _stacked(branches)
    taps = depthwise.view(n_branches, 1, channels, *conv.kernel_size)
    kernel = pointwise.view(n_branches, channels, channels, 1, 1) * taps
    dense = kernel.reshape(n_branches * channels, channels, *conv.kernel_size)
    return F.conv2d(x, dense, padding=conv.padding, dilation=conv.dilation)


def _side_by_side(branches: Sequence[SeparableBranch], x: Tensor) -> Tensor:
    """The same for inputs that lie side by side in the channels, one per branch."""
    conv = branches[0].depthwise
    depthwise, pointwise = _stacked(branches)
    out = F.conv2d(x, depthwise, padding=conv.padding, dilation=conv.dilation, groups=x.shape[1])
    return F.conv2d(out, pointwise, groups=len(branches))

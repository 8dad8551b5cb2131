"""The searched cell of one skip level: a DAG of mixed operations over partial channels.

The mathematics is PC-DARTS's: with the states x_i, the first 1/K of their channels a_i and the
others b_i,

    node_j = shuffle(concat(sum_i w_ij sum_o p_ijo o_ijo(a_i), sum_i w_ij b_i)),

where p is the softmax of alpha over an edge's active operations and w that of beta over a node's
live edges. It is computed in another order, with the same result:

* what all edges that leave a state share is done once: the pools with their norm, and the ReLU;
* all branches of an operation over one state run together;
* w p is part of the last batch norm of an operation, so weighting costs nothing;
* concatenation and shuffle are linear, so they run once per node, on the sum.

On a CPU the DAG runs through `iac_core.cells.plane_dag`, elsewhere through
`iac_core.cells.tensor_dag`. A pruned operation's weights leave the cell's one flat parameter.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from iac_core.backbones.interface import CellNorm
from iac_core.cells.dag_plan import DagPlan
from iac_core.cells.flat_parameter import shrink_parameter
from iac_core.cells.genotype import cell_edges
from iac_core.cells.layout import InputLayer, node_channels, output_layer
from iac_core.cells.operation_weights import WeightLayout
from iac_core.cells.plane_dag import mixed_dag
from iac_core.cells.tensor_dag import mixed_dag_of_tensors
from iac_core.config import CellSettings

_MOST_PATHS = 16
"""Plans of paths that a cell keeps: a path is scored on many batches, then rarely seen again."""


class SearchCell(nn.Module):
    """The mixed cell of one skip level.

    Args:
        skip_channels: Channels of the encoder's skip, and of the output.
        second_channels: Channels of the second input.
        settings: The cell.
        norm: Of every operation; an instance norm is a batch norm over parts of one slice each.

    Attributes:
        weights: Convolution kernels of the live operations; `layout` says which is where.
        live: Operations in the graph, bool, ``(edges, ops)``.
        twice_differentiable: Whether to compute in plain tensor operations on every device, which
            second derivatives need.
    """

    def __init__(
        self,
        skip_channels: int,
        second_channels: int,
        settings: CellSettings,
        norm: CellNorm = "batch",
    ) -> None:
        super().__init__()
        self.norm = norm
        self.n_nodes = settings.n_nodes
        self.partial_channels = settings.partial_channels
        self.operation_names = settings.operations
        self.edges = cell_edges(settings.n_nodes)
        self.twice_differentiable = False
        channels = node_channels(skip_channels, settings)
        self.n_active_channels = channels // settings.partial_channels
        self.inputs = nn.ModuleList(
            InputLayer(width, channels, affine=False) for width in (skip_channels, second_channels)
        )
        self.live = np.ones((len(self.edges), len(self.operation_names)), dtype=bool)
        self._arrange()
        self.weights = nn.Parameter(self.layout.initial())
        self.output = output_layer(settings.n_nodes, channels, skip_channels)

    def forward(
        self,
        skip: Float[Tensor, "b c h w"],
        second: Float[Tensor, "b c2 h w"],
        importance: Float[Tensor, "*groups edges ops"],
        edge_weights: Float[Tensor, "*groups edges"],
    ) -> Float[Tensor, "b c h w"]:
        """Return the cell's output.

        Args:
            skip: Encoder feature.
            second: Second input, of the same spatial size.
            importance: Softmax of alpha, 0 for operations that are gone. With a first axis G the
                batch is G equal parts, each with its own, and with batch statistics of its own.
            edge_weights: Softmax of beta, 0 for edges that are gone; with the same first axis.
        """
        if importance.ndim == 2:
            importance, edge_weights = importance[None], edge_weights[None]
        if self.norm == "instance":
            slices_per_group = len(skip) // len(importance)
            importance, edge_weights = (
                one.repeat_interleave(slices_per_group, dim=0)
                for one in (importance, edge_weights)
            )
        coefficients = importance * edge_weights[:, :, None]
        return self._nodes(skip, second, coefficients, edge_weights, self.weights, self.plan)

    def forward_path(
        self,
        skip: Float[Tensor, "b c h w"],
        second: Float[Tensor, "b c2 h w"],
        path: Bool[ndarray, "edges ops"],
    ) -> Float[Tensor, "b c h w"]:
        """Return the output of a part of the operations, at the cost of that part.

        Every operation and edge has weight 1, so that a node is the plain sum of what the path
        leads into it, as in `iac_core.cells.discrete_cell`. Weights outside the path get a
        gradient of 0.

        Args:
            skip: Encoder feature.
            second: Second input, of the same spatial size.
            path: Operations of the path, a subset of the live ones.
        """
        plan, places = self._path(path)
        n_groups = len(skip) if self.norm == "instance" else 1
        ones = skip.new_ones((n_groups, *path.shape), dtype=self.weights.dtype)
        return self._nodes(skip, second, ones, ones[:, :, 0], self.weights[places], plan)

    def _nodes(
        self,
        skip: Tensor,
        second: Tensor,
        coefficients: Tensor,
        edge_weights: Tensor,
        weights: Tensor,
        plan: DagPlan,
    ) -> Tensor:
        first, other = (
            layer(feature, len(coefficients)).to(self.weights.dtype)
            for layer, feature in zip(self.inputs, (skip, second), strict=True)
        )
        dag = mixed_dag
        if skip.device.type != "cpu" or self.twice_differentiable:
            dag = mixed_dag_of_tensors
        nodes = dag(first, other, coefficients, edge_weights, weights, plan)
        out: Tensor = self.output(nodes)
        return out

    def _path(self, path: Bool[ndarray, "edges ops"]) -> tuple[DagPlan, Tensor]:
        """Plan of a path, and where its weights lie; the latest few are kept."""
        key = str(self.weights.device), path.tobytes()
        if key not in self._paths:
            assert not (path & ~self.live).any(), "a path consists of live operations"
            layout = WeightLayout(path, self.edges, self.operation_names, self.n_active_channels)
            plan = DagPlan(path, self.edges, self.operation_names, self.n_nodes, layout)
            places = layout.places_in(self.layout).to(self.weights.device)
            while len(self._paths) >= _MOST_PATHS:
                del self._paths[next(iter(self._paths))]
            self._paths[key] = plan, places
        return self._paths[key]

    def prune(
        self, keep: Bool[ndarray, "edges ops"], optimiser: torch.optim.Optimizer | None
    ) -> None:
        """Remove every operation outside `keep`, with its weights and their optimiser state."""
        before = self.layout
        self.live = self.live & keep
        self._arrange()
        places = self.layout.places_in(before).to(self.weights.device)
        self.weights = shrink_parameter(self.weights, places, optimiser)

    def _arrange(self) -> None:
        """Lay out weights and forward pass for the live operations."""
        self.layout = WeightLayout(
            self.live, self.edges, self.operation_names, self.n_active_channels
        )
        self.plan = DagPlan(self.live, self.edges, self.operation_names, self.n_nodes, self.layout)
        self._paths: dict[tuple[str, bytes], tuple[DagPlan, Tensor]] = {}

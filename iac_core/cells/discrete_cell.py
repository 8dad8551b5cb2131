"""The cell that a genotype describes: full channels, affine norms, fresh weights."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from iac_core.backbones.interface import CellNorm
from iac_core.cells.genotype import N_INPUTS, GenotypeEdge
from iac_core.cells.layout import InputLayer, node_channels, output_layer
from iac_core.cells.operations import OPERATIONS
from iac_core.config import CellSettings
from iac_core.registry import look_up


class DiscreteCell(nn.Module):
    """The cell of one skip level after the search (K = 1 in retraining, rows 14 and 15).

    Args:
        skip_channels: Channels of the encoder's skip, and of the output.
        second_channels: Channels of the second input.
        settings: The cell; K only fixes the width of the nodes, so that it equals the search's.
        edges: The kept edges. A node without any is left out of the sum and outputs zeros.
        norm: Of every operation.
    """

    def __init__(
        self,
        skip_channels: int,
        second_channels: int,
        settings: CellSettings,
        edges: Sequence[GenotypeEdge],
        norm: CellNorm = "batch",
    ) -> None:
        super().__init__()
        self.n_nodes = settings.n_nodes
        self.edges = tuple(edges)
        channels = node_channels(skip_channels, settings)
        self.inputs = nn.ModuleList(
            InputLayer(width, channels, affine=True, norm=norm)
            for width in (skip_channels, second_channels)
        )
        self.operations = nn.ModuleList(
            look_up(edge.operation, OPERATIONS, what="operation")(channels, affine=True, norm=norm)
            for edge in self.edges
        )
        self.output = output_layer(settings.n_nodes, channels, skip_channels)

    def forward(
        self, skip: Float[Tensor, "b c h w"], second: Float[Tensor, "b c2 h w"]
    ) -> Float[Tensor, "b c h w"]:
        """Return the cell's output for the encoder feature and the second input."""
        states = [
            layer(feature) for layer, feature in zip(self.inputs, (skip, second), strict=True)
        ]
        for node in range(N_INPUTS, N_INPUTS + self.n_nodes):
            parts = [
                operation(states[edge.source])
                for edge, operation in zip(self.edges, self.operations, strict=True)
                if edge.target == node
            ]
            states.append(sum(parts[1:], parts[0]) if parts else torch.zeros_like(states[0]))
        out: Tensor = self.output(torch.cat(states[N_INPUTS:], dim=1))
        return out

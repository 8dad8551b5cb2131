"""The architecture parameters alpha and beta, and what happens to them when operations go."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from torch import Tensor, nn

from iac_core.cells.flat_parameter import shrink_parameter
from iac_core.cells.genotype import N_INPUTS, Genotype, cell_edges, discretise, live_edges
from iac_core.config import CellSettings


class ArchitectureParameters(nn.Module):
    """Logits of the operations that are still in the graph, and of the edges.

    Alpha is kept as one flat vector of the active (level, edge, operation) triples, so a pruned
    operation has no logit, no gradient and no optimiser state left.

    Args:
        settings: The cell.
        n_levels: Skip levels; 1 architecture is kept if they share it.
        generator: Both logits start as 1e-3 × N(0, 1) (PC-DARTS).
    """

    active: Tensor
    _live: Tensor

    def __init__(self, settings: CellSettings, n_levels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.operations = settings.operations
        self.n_nodes = settings.n_nodes
        self.edges = cell_edges(settings.n_nodes)
        levels = 1 if settings.architecture == "shared" else n_levels
        shape = (levels, len(self.edges), len(self.operations))
        self.alpha = nn.Parameter(1e-3 * torch.randn(shape, generator=generator).flatten())
        self.beta = nn.Parameter(1e-3 * torch.randn(shape[:2], generator=generator))
        self.register_buffer("active", torch.ones(shape, dtype=torch.bool))
        self.register_buffer("_live", torch.ones(shape[:2], dtype=torch.bool), persistent=False)
        self._refresh_live()

    @property
    def n_levels(self) -> int:
        """Architectures kept: 1 if the skip levels share one."""
        return int(self.active.shape[0])

    def active_mask(self) -> Bool[ndarray, "levels edges ops"]:
        """Return a copy of which operations are in the graph."""
        return self.active.cpu().numpy().copy()

    def dense_alpha(self) -> Float[Tensor, "levels edges ops"]:
        """Return alpha with -inf where an operation is gone; differentiable."""
        dense = self.alpha.new_full(self.active.shape, float("-inf"))
        return dense.masked_scatter(self.active, self.alpha)

    def importance(self) -> Float[Tensor, "levels edges ops"]:
        """Return the softmax of alpha over the active operations of each edge, 0 elsewhere."""
        return self.dense_alpha().softmax(dim=-1)

    def edge_weights(self) -> Float[Tensor, "levels edges"]:
        """Return the softmax of beta over the live edges into each node (edge normalisation).

        The softmax runs over one node's incoming edges only, so a node's degree does not scale it.
        """
        beta = self.beta.masked_fill(~self._live, float("-inf"))
        counts = [N_INPUTS + node for node in range(self.n_nodes)]
        return torch.cat(
            [part.softmax(dim=-1) for part in torch.split(beta, counts, dim=-1)], dim=-1
        )

    def as_arrays(self) -> tuple[ndarray, ndarray]:
        """Return alpha ``(levels, edges, ops)`` (NaN where gone) and beta ``(levels, edges)``."""
        alpha = np.full(tuple(self.active.shape), np.nan)
        alpha[self.active.cpu().numpy()] = self.alpha.detach().cpu().numpy()
        return alpha, self.beta.detach().cpu().numpy().astype(np.float64)

    def genotype(self) -> Genotype:
        """Return the genotype that the logits stand for now."""
        alpha, beta = self.as_arrays()
        active = self.active.cpu().numpy()
        return discretise(np.nan_to_num(alpha), beta, active, self.operations, self.n_nodes)

    def prune(
        self, keep: Bool[ndarray, "levels edges ops"], optimiser: torch.optim.Optimizer | None
    ) -> None:
        """Remove every operation outside `keep`, with its logit and its optimiser state.

        Args:
            keep: Operations that stay; a subset of the active ones, none of whose edges is empty.
            optimiser: The optimiser of alpha and beta; its moments of alpha shrink alike.
        """
        kept = torch.from_numpy(np.ascontiguousarray(keep)).to(self.active.device)
        index = kept[self.active].nonzero().squeeze(1)
        self.alpha = shrink_parameter(self.alpha, index, optimiser)
        self.active.copy_(kept)
        self._refresh_live()

    def restore_active(self, active: Bool[ndarray, "levels edges ops"]) -> None:
        """Shrink to `active` before a checkpoint with that many logits is loaded."""
        self.prune(active, None)

    def _refresh_live(self) -> None:
        mask = live_edges(self.active.cpu().numpy(), self.operations)
        self._live.copy_(torch.from_numpy(mask))

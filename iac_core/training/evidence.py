"""Evidence of a running search: sums of the gradients of alpha and beta, and looks for life.

Sums stay on the search's device; nothing waits for it within an epoch.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from iac_core.cells.architecture import ArchitectureParameters
from iac_core.pruners.evidence import evidence_bound, is_look, n_looks_within
from iac_core.types import AlphaEvidence


class EvidenceMeter:
    """Adds up gradients at every architecture step; looks for life at steps 8, 16, 32 and so on.

    An edge is alive from the first look at which, for one of its operations other than ``none``,
    |Σ g| / √Σ g² exceeds the bound, g being the gradient of the loss centred over the edge's
    operations. Once an edge has lost an operation its liveness stays what it was.

    Args:
        architecture: Whose gradients are added up, with all operations in the graph.
        n_steps: Architecture steps of the full search; they give the number of looks.

    Attributes:
        bound: What evidence must exceed.
        n_steps: Architecture steps so far.
    """

    def __init__(self, architecture: ArchitectureParameters, n_steps: int) -> None:
        levels, edges, operations = architecture.active.shape
        device = architecture.active.device
        self.bound = evidence_bound(levels * edges, operations, n_looks_within(n_steps))
        self.n_steps = 0
        self._counts = torch.tensor(
            [name != "none" for name in architecture.operations], device=device
        )
        shapes = {
            "gradient_sum": (levels, edges, operations),
            "gradient_products": (levels, edges, operations, operations),
            "edge_gradient_sum": (levels, edges),
            "edge_gradient_products": (levels, edges, edges),
            "centred_sum": (levels, edges, operations),
            "centred_squares": (levels, edges, operations),
        }
        self._sums = {
            name: torch.zeros(shape, dtype=torch.float64, device=device)
            for name, shape in shapes.items()
        }
        self._alive_since = torch.full((levels, edges), -1, dtype=torch.int64, device=device)
        self._pending: list[tuple[int, Tensor, Tensor]] = []

    def add(self, architecture: ArchitectureParameters) -> None:
        """Add the gradients that alpha and beta hold: those of one architecture step's loss."""
        alpha, beta = architecture.alpha.grad, architecture.beta.grad
        assert alpha is not None
        assert beta is not None
        self.n_steps += 1
        active, sums = architecture.active, self._sums
        g = torch.zeros(active.shape, dtype=torch.float64, device=active.device)
        g = g.masked_scatter(active, alpha.double())
        sums["gradient_sum"] += g
        sums["gradient_products"] += g.unsqueeze(-1) * g.unsqueeze(-2)
        of_edges = beta.double()
        sums["edge_gradient_sum"] += of_edges
        sums["edge_gradient_products"] += of_edges.unsqueeze(-1) * of_edges.unsqueeze(-2)
        is_whole = active.all(dim=-1, keepdim=True)
        centred = (g - g.mean(dim=-1, keepdim=True)) * is_whole
        sums["centred_sum"] += centred
        sums["centred_squares"] += centred.square()
        if is_look(self.n_steps):
            self._look(is_whole[..., 0])

    def _look(self, is_whole: Tensor) -> None:
        found = self._sums["centred_sum"].abs() / self._sums["centred_squares"].sqrt()
        strongest = (found.nan_to_num(0.0) * self._counts).amax(dim=-1)
        is_found = (self._alive_since < 0) & is_whole & (strongest > self.bound)
        self._alive_since = torch.where(is_found, self.n_steps, self._alive_since)
        self._pending.append((self.n_steps, strongest, self._alive_since >= 0))

    def read(self) -> AlphaEvidence:
        """Return what has been added up so far."""
        arrays = {
            name: _read_only(tensor.cpu().numpy().copy())
            for name, tensor in self._sums.items()
            if not name.startswith("centred")
        }
        return AlphaEvidence(
            n_steps=self.n_steps,
            bound=self.bound,
            alive_since=_read_only(self._alive_since.cpu().numpy().copy()),
            **arrays,
        )

    @property
    def live_edge_share(self) -> float:
        """Share of the edges that are alive; waits for the device."""
        return float((self._alive_since >= 0).double().mean())

    def rows_of_looks(
        self, epoch: int, entropy_bits: Float[ndarray, "levels edges"]
    ) -> list[dict[str, Any]]:
        """Return one row per look since the last call, level and edge.

        Args:
            epoch: The epoch that has just ended.
            entropy_bits: Of each edge's importances at its end; it decides nothing.
        """
        rows = []
        for step, strongest, is_alive in self._pending:
            look = n_looks_within(step) - 1
            evidence, alive = strongest.tolist(), is_alive.tolist()
            for level, edge in np.ndindex(entropy_bits.shape):
                rows.append(
                    {
                        "look": look,
                        "alpha_step": step,
                        "epoch": epoch,
                        "level": level,
                        "edge": edge,
                        "evidence": evidence[level][edge],
                        "bound": self.bound,
                        "is_alive": alive[level][edge],
                        "entropy_bits": float(entropy_bits[level, edge]),
                    }
                )
        self._pending = []
        return rows

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later looks and sums depend on."""
        return {
            "n_steps": self.n_steps,
            "sums": {name: tensor.cpu() for name, tensor in self._sums.items()},
            "alive_since": self._alive_since.cpu(),
            "pending": [(step, found.cpu(), alive.cpu()) for step, found, alive in self._pending],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state that `state_dict` returned."""
        device = self._counts.device
        self.n_steps = state["n_steps"]
        self._sums = {name: tensor.to(device) for name, tensor in state["sums"].items()}
        self._alive_since = state["alive_since"].to(device)
        self._pending = [
            (step, found.to(device), alive.to(device)) for step, found, alive in state["pending"]
        ]


def entropy_bits(importance: Float[ndarray, "levels edges ops"]) -> Float[ndarray, "levels edges"]:
    """Return the entropy of each edge's importances, in bits.

    Examples:
        >>> entropy_bits(np.full((1, 1, 8), 0.125)).tolist()
        [[3.0]]
    """
    logarithms = np.log2(importance, out=np.zeros_like(importance), where=importance > 0)
    found: ndarray = 0.0 - (importance * logarithms).sum(axis=-1)
    return found


def _read_only(array: ndarray) -> ndarray:
    array.flags.writeable = False
    return array

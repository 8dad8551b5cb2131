"""Parameters that are one flat vector, and lose entries when operations are pruned."""

import torch
from torch import Tensor, nn


def shrink_parameter(
    old: nn.Parameter, places: Tensor, optimiser: torch.optim.Optimizer | None
) -> nn.Parameter:
    """Return the entries of a flat parameter at `places`, the optimiser's state of them alike."""
    new = nn.Parameter(old.detach()[places].clone(), requires_grad=old.requires_grad)
    if optimiser is None:
        return new
    for group in optimiser.param_groups:
        group["params"] = [new if entry is old else entry for entry in group["params"]]
    state = optimiser.state.pop(old, {})
    if state:
        optimiser.state[new] = {
            name: value[places].clone() if torch.is_tensor(value) and value.ndim else value
            for name, value in state.items()
        }
    return new

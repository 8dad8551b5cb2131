"""Parameters and multiply–accumulates of a network."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCount:
    """Parameters of a network, and those of them that have gradients."""

    total: int
    trainable: int


def count_parameters(module: nn.Module) -> ParameterCount:
    """Count parameters, each shared one once."""
    parameters = list(module.parameters())
    return ParameterCount(
        total=sum(parameter.numel() for parameter in parameters),
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
    )


def count_macs(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count multiply–accumulates of convolutions and matrix products in one forward pass.

    Half of what `torch.utils.flop_counter` counts. Pooling, norms, activations and element-wise
    work count 0, so parameter-free operations of a cell are free here, but not in seconds.

    Args:
        module: The network; run in evaluation mode, then put back into its own.
        input_shape: Shape of the input, ``(1, C, H, W)``.
    """
    device = next(module.parameters()).device
    was_training = module.training
    module.eval()
    counter = FlopCounterMode(display=False)
    try:
        with torch.no_grad(), counter:
            module(torch.zeros(input_shape, device=device))
    finally:
        module.train(was_training)
    return counter.get_total_flops() // 2

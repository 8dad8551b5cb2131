"""Where the convolution weights of a search cell lie in its one flat parameter.

One parameter, so that a step of the optimiser touches one tensor; ordered by source, operation and
stage, so that the weights of all branches that run together are one block without a copy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

from iac_core.cells.operations import SEPARABLE


@dataclass(frozen=True, slots=True)
class StageWeights:
    """The weights of one stage (ReLU, depthwise, pointwise) of a bundle's branches.

    Attributes:
        kernel_size: Of the depthwise kernels.
        dilation: Of the depthwise kernels.
        depthwise: Start and stop of a block of shape ``(N, m, k, k)``.
        pointwise: Start and stop of a block of shape ``(N, m, m)``.
    """

    kernel_size: int
    dilation: int
    depthwise: tuple[int, int]
    pointwise: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Bundle:
    """One separable convolution on all edges that leave one state and still have it."""

    source: int
    operation: str
    column: int
    edges: tuple[int, ...]
    stages: tuple[StageWeights, ...]


class WeightLayout:
    """The blocks of a cell's flat parameter for a set of live operations.

    Args:
        live: Operations in the graph.
        edges: ``(source, target)`` of every edge.
        operations: Names along the last axis of `live`.
        channels: m; channels that operations see.
    """

    def __init__(
        self,
        live: Bool[ndarray, "edges ops"],
        edges: tuple[tuple[int, int], ...],
        operations: tuple[str, ...],
        channels: int,
    ) -> None:
        self.channels = channels
        self.size = 0
        bundles = []
        for source in sorted({source for source, _ in edges}):
            for column, name in enumerate(operations):
                having = tuple(
                    edge
                    for edge, (start, _) in enumerate(edges)
                    if start == source and live[edge, column]
                )
                if name in SEPARABLE and having:
                    stages = tuple(self._stages(name, len(having)))
                    bundles.append(Bundle(source, name, column, having, stages))
        self.bundles = tuple(bundles)

    def _stages(self, name: str, n_branches: int) -> Iterator[StageWeights]:
        kind = SEPARABLE[name]
        for _ in range(kind.n_stages):
            middle = self.size + n_branches * self.channels * kind.kernel_size**2
            stop = middle + n_branches * self.channels**2
            yield StageWeights(
                kind.kernel_size, kind.dilation, (self.size, middle), (middle, stop)
            )
            self.size = stop

    def tensors(self) -> Iterator[tuple[int, int, slice, tuple[int, ...]]]:
        """Yield edge, column, place and shape of every convolution kernel, in order of edges.

        The shapes are those of ``nn.Conv2d``: ``(m, 1, k, k)`` depthwise, ``(m, m, 1, 1)``
        pointwise; an operation's kernels come in the order in which they are applied.
        """
        m = self.channels
        for bundle in self.bundles:
            for branch, edge in enumerate(bundle.edges):
                for stage in bundle.stages:
                    k = stage.kernel_size
                    for start, shape in (
                        (stage.depthwise[0], (m, 1, k, k)),
                        (stage.pointwise[0], (m, m, 1, 1)),
                    ):
                        n = int(np.prod(shape))
                        first = start + branch * n
                        yield edge, bundle.column, slice(first, first + n), shape

    def initial(self) -> Float[Tensor, " n"]:
        """Return fresh weights, each kernel as ``nn.Conv2d`` starts it: U(±1/√fan-in)."""
        flat = torch.empty(self.size)
        for _, _, place, (_, n_inputs, k, _) in self.tensors():
            bound = (n_inputs * k * k) ** -0.5
            flat[place].uniform_(-bound, bound)
        return flat

    def places_in(self, other: "WeightLayout") -> Int[Tensor, " n"]:
        """Return where each of these weights lies in a layout of more operations."""
        theirs = other.by_operation
        places = np.empty(self.size, dtype=np.int64)
        for key, ours in self.by_operation.items():
            for place, source in zip(ours, theirs[key], strict=True):
                places[place] = np.arange(source.start, source.stop)
        return torch.from_numpy(places)

    @cached_property
    def by_operation(self) -> dict[tuple[int, int], list[slice]]:
        """Places of the kernels of each ``(edge, column)``, in the order of their application."""
        found: dict[tuple[int, int], list[slice]] = {}
        for edge, column, place, _ in self.tensors():
            found.setdefault((edge, column), []).append(place)
        return found

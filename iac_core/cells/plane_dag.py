"""The DAG of a search cell on a CPU: one differentiable function over planes.

Forward and backward walk the states in order and back; all loops over pixels are in
`iac_core.kernels.planes`. Values and gradients are those of the formula in
`iac_core.cells.search_cell`.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from iac_core.cells.dag_plan import POOLS, DagPlan, TargetTerms
from iac_core.cells.genotype import N_INPUTS
from iac_core.cells.operation_weights import Bundle, StageWeights
from iac_core.kernels import planes

EPSILON = 1e-5
"""Of every batch norm (the default of ``nn.BatchNorm2d``)."""


def mixed_dag(
    first: Float[Tensor, "b c h w"],
    second: Float[Tensor, "b c h w"],
    coefficients: Float[Tensor, "groups edges ops"],
    edge_weights: Float[Tensor, "groups edges"],
    weights: Float[Tensor, " n"],
    plan: DagPlan,
) -> Float[Tensor, "b c2 h w"]:
    """Return the concatenated nodes, channels last.

    The result can be differentiated once, and once only: its buffers are used again.

    Args:
        first: State 0; the batch is `groups` equal parts, each with batch statistics of its own.
        second: State 1.
        coefficients: Weight of every operation times that of its edge. Without gradients, 0
            leaves an operation out at no cost.
        edge_weights: Weight of every edge.
        weights: Of the operations, as the plan's layout has them.
        plan: Of the live operations.
    """
    with_gradients = torch.is_grad_enabled()
    out: Tensor = _MixedDag.apply(  # type: ignore[no-untyped-call]
        first, second, coefficients, edge_weights, weights, plan, with_gradients
    )
    return out


def _pixels(x: Tensor) -> ndarray:
    """An array ``(B, H, W, C)`` of a tensor ``(B, C, H, W)``; a view if it is channels last."""
    array: ndarray = x.permute(0, 2, 3, 1).contiguous().numpy()
    return array


def _tensor_of(state: ndarray) -> Tensor:
    """A channels-last tensor ``(B, C, H, W)`` of one state ``(1, B, C, H, W)``."""
    _, batch, channels, height, width = state.shape
    pixels = np.empty((batch, height, width, channels), state.dtype)
    planes.to_pixels(state, pixels)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


class _Buffers:
    """Memory that forward passes take and backward passes give back."""

    def __init__(self) -> None:
        self._free: list[Tensor] = []

    def take(self, size: int, dtype: torch.dtype) -> Tensor:
        """Return uninitialised memory of at least `size` elements."""
        for index, buffer in enumerate(self._free):
            if buffer.dtype == dtype and size <= buffer.numel() <= 2 * size:
                return self._free.pop(index)
        return torch.empty(size, dtype=dtype)

    def give_back(self, buffer: Tensor) -> None:
        """Keep a buffer for the next; the oldest go first."""
        self._free = [*self._free[-7:], buffer]


_buffers = _Buffers()


class _Arrays:
    """Views of one buffer, handed out one after the other."""

    def __init__(self, buffer: Tensor) -> None:
        self._flat, self._used = buffer.numpy(), 0

    def take(self, *shape: int) -> ndarray:
        """Return the next view, uninitialised."""
        start, self._used = self._used, self._used + int(np.prod(shape))
        view: ndarray = self._flat[start : self._used].reshape(shape)
        return view


class _Forward:
    """Everything a backward pass needs from a forward one."""

    def __init__(
        self,
        plan: DagPlan,
        first: Tensor,
        coefficients: ndarray,
        edge_weights: ndarray,
        weights: ndarray,
        *,
        skips_zeros: bool,
    ) -> None:
        batch, channels, height, width = first.shape
        self.plan, self.weights = plan, weights
        self.coefficients, self.edge_weights = coefficients, edge_weights
        self.n_pixels, self.batch = height * width, batch
        self.n_groups = len(coefficients)
        self.skips_zeros = skips_zeros
        hidden = sum(
            len(bundle.edges) * (2 * len(bundle.stages) - 1)
            for bundles in plan.bundles
            for bundle, _ in bundles
        )
        n_sources_with_pools = sum(slot is not None for slot in plan.pool_slot)
        plane = batch * height * width
        size = plane * (
            plan.n_states * channels + plan.m * (plan.n_slots + hidden + n_sources_with_pools)
        )
        self.buffer = _buffers.take(size, first.dtype)
        arrays = _Arrays(self.buffer)
        self.states = arrays.take(plan.n_states, batch, channels, height, width)
        self.results = arrays.take(plan.n_slots, batch, plan.m, height, width)
        dtype = self.states.dtype
        self.mean = np.zeros((plan.n_slots, self.n_groups, plan.m), dtype)
        self.inverse = np.zeros_like(self.mean)
        self.stages: dict[tuple[int, str], list[_Stage]] = {}
        self.places: dict[int, ndarray] = {}
        self._arrays = arrays

    def run(self, first: Tensor, second: Tensor) -> Tensor:
        """Compute all nodes; return them side by side."""
        _, channels, height, width = first.shape
        planes.to_planes(_pixels(first), self.states[:1])
        planes.to_planes(_pixels(second), self.states[1:2])
        for source in range(self.plan.n_states - 1):
            if source >= N_INPUTS:
                self._node(source)
            self._operations(source)
        self._node(self.plan.n_states - 1)
        shape = (self.batch, height, width, self.plan.n_nodes * channels)
        out = torch.empty(shape, dtype=first.dtype)
        planes.to_pixels(self.states[N_INPUTS:], out.numpy())
        return out.permute(0, 3, 1, 2)

    def _operations(self, source: int) -> None:
        """Results of all operations that leave a state."""
        plan, state = self.plan, self.states[source]
        slot = plan.pool_slot[source]
        if slot is not None:
            places = self._arrays.take(*self.results.shape[1:])
            moments = np.empty((2, 2, self.batch, plan.m), state.dtype)
            planes.pool_forward(state, self.results[slot], places, self.results[slot + 1], moments)
            self.places[source] = places
            runs = np.ones((2, self.n_groups), bool)
            self.mean[slot : slot + 2], self.inverse[slot : slot + 2] = planes.group_norm(
                moments[0], moments[1], self.n_pixels, EPSILON, runs
            )
        for bundle, start in plan.bundles[source]:
            stop = start + len(bundle.edges)
            runs = np.ones((len(bundle.edges), self.n_groups), bool)
            if self.skips_zeros:
                runs = (self.coefficients[:, bundle.edges, bundle.column] != 0).T.copy()
            x = state[None]
            scale = np.ones((1, self.n_groups, plan.m), state.dtype)
            shift = np.zeros_like(scale)
            x_mean = shift
            kept = self.stages[source, bundle.operation] = []
            for index, place in enumerate(bundle.stages):
                is_last = index + 1 == len(bundle.stages)
                shape = (len(bundle.edges), *self.results.shape[1:])
                k = place.kernel_size
                arrays = planes.Stage(
                    x=x,
                    scale=scale,
                    shift=shift,
                    depthwise=self.weights[slice(*place.depthwise)].reshape(-1, plan.m, k, k),
                    pointwise=self.weights[slice(*place.pointwise)].reshape(-1, plan.m, plan.m),
                    dilation=place.dilation,
                    filtered=self._arrays.take(*shape),
                    out=self.results[start:stop] if is_last else self._arrays.take(*shape),
                )
                stage = _Stage(arrays, x_mean, place)
                mean, inverse = stage.forward(runs, self.n_pixels)
                kept.append(stage)
                x, scale, shift, x_mean = arrays.out, inverse, -mean * inverse, mean
            self.mean[start:stop], self.inverse[start:stop] = mean, inverse

    def _node(self, target: int) -> None:
        terms = self.plan.targets[target - N_INPUTS]
        weights = np.ascontiguousarray(self.coefficients[:, terms.edges, terms.columns].T)
        factors = weights[:, :, None] * self.inverse[terms.slots]
        offsets = -(factors * self.mean[terms.slots]).sum(axis=0)
        planes.node_forward(
            self.states, target, self.edges(terms), self.results, terms.slots, factors, offsets
        )

    def edges(self, terms: TargetTerms) -> planes.IncomingEdges:
        """Weights of the live edges into a node."""
        column = self.plan.identity_column
        identities = np.zeros((self.n_groups, len(terms.live_edges)), self.states.dtype)
        if column is not None:
            identities = self.coefficients[:, terms.live_edges, column] * terms.has_identity
        bypass = self.edge_weights[:, terms.live_edges]
        return planes.IncomingEdges(
            terms.live_sources, np.ascontiguousarray(identities.T), np.ascontiguousarray(bypass.T)
        )


class _Stage:
    """One stage of a bundle, as it ran.

    Args:
        arrays: Input, weights and room for the results.
        x_mean: Mean of each channel of the input, ``(S, G, m)``; 0 for a state.
        place: Where its weights lie.
    """

    def __init__(self, arrays: planes.Stage, x_mean: ndarray, place: StageWeights) -> None:
        self.arrays, self.x_mean, self.place = arrays, x_mean, place

    def forward(self, runs: ndarray, n_pixels: int) -> tuple[ndarray, ndarray]:
        """Run the stage; return mean and 1/sd of its results, ``(N, G, m)``."""
        means = np.zeros(self.arrays.out.shape[:3], self.arrays.out.dtype)
        squares = np.zeros_like(means)
        planes.stage_forward(self.arrays, runs, means, squares)
        return planes.group_norm(means, squares, n_pixels, EPSILON, runs)

    def backward(
        self,
        upstream: planes.Upstream,
        of_weights: ndarray | None,
        of_x: ndarray,
        *,
        is_shared: bool,
    ) -> tuple[ndarray, ndarray]:
        """Write the gradients; return the sums that the norm before needs, each ``(N, B, m)``."""
        n_branches, batch, m = self.arrays.out.shape[:3]
        k, dtype = self.place.kernel_size, self.arrays.out.dtype
        n_kept = 0 if of_weights is None else batch
        of_depthwise = np.empty((n_branches, n_kept, m, k, k), dtype)
        of_pointwise = np.empty((n_branches, n_kept, m, m), dtype)
        sums = np.zeros((n_branches, batch, m), dtype)
        products = np.zeros_like(sums)
        planes.stage_backward(
            self.arrays,
            upstream,
            self.x_mean,
            is_shared,
            of_depthwise,
            of_pointwise,
            of_x,
            sums,
            products,
        )
        if of_weights is not None:
            of_weights[slice(*self.place.depthwise)] = of_depthwise.sum(axis=1).ravel()
            of_weights[slice(*self.place.pointwise)] = of_pointwise.sum(axis=1).ravel()
        return sums, products


class _Backward:
    """The walk back through a forward pass."""

    def __init__(self, forward: _Forward, with_weights: bool) -> None:
        self.forward, plan = forward, forward.plan
        self.of_coefficients = np.zeros(forward.coefficients.shape)
        self.of_edge_weights = np.zeros(forward.edge_weights.shape)
        self.of_weights = np.zeros_like(forward.weights) if with_weights else None
        shape = forward.results.shape[1:]
        n_hidden = max(
            (
                len(bundle.edges)
                for bundles in plan.bundles
                for bundle, _ in bundles
                if len(bundle.stages) > 1
            ),
            default=0,
        )
        size = forward.states.size + int(np.prod(shape)) * (plan.n_nodes + n_hidden + 2)
        self.buffer = _buffers.take(size, forward.buffer.dtype)
        arrays = _Arrays(self.buffer)
        self.of_states = arrays.take(*forward.states.shape)
        self.of_mixed = arrays.take(plan.n_nodes, *shape)
        self.of_hidden = arrays.take(n_hidden, *shape)
        self.of_pools = arrays.take(2, *shape)
        self.sums = np.zeros((plan.n_nodes, *shape[:2]), self.of_states.dtype)

    def run(self, of_out: Tensor) -> None:
        """Fill all gradients from that of the output."""
        plan = self.forward.plan
        self.of_states[:N_INPUTS] = 0
        planes.to_planes(_pixels(of_out), self.of_states[N_INPUTS:])
        for state in reversed(range(plan.n_states)):
            self._operations(state)
            if state >= N_INPUTS:
                self._node(state)

    def _operations(self, source: int) -> None:
        """Gradients through all operations that leave a state; all their targets are done."""
        forward, plan = self.forward, self.forward.plan
        terms = plan.sources[source]
        if not len(terms.slots):
            return
        mean, inverse = forward.mean[terms.slots], forward.inverse[terms.slots]
        products = np.empty((len(terms.slots), *self.sums.shape[1:]), self.sums.dtype)
        planes.centred_products(
            self.of_mixed, terms.targets, forward.results, terms.slots, mean, products
        )
        weights = np.ascontiguousarray(forward.coefficients[:, terms.edges, terms.columns].T)
        n_values = forward.batch // forward.n_groups * forward.n_pixels
        a, b, c, of_weight = planes.norm_gradient(
            weights, mean, inverse, self.sums[terms.targets], products, n_values
        )
        self.of_coefficients[:, terms.edges, terms.columns] += of_weight.T
        slot = plan.pool_slot[source]
        if slot is not None:
            for which in range(len(POOLS)):
                place = np.flatnonzero(terms.slots == slot + which)
                planes.pooled_gradient(
                    planes.Upstream(
                        self.of_mixed, terms.targets[place], a[place], b[place], c[place]
                    ),
                    forward.results[slot + which],
                    self.of_pools[which],
                )
            planes.pool_backward(
                self.of_pools[0], forward.places[source], self.of_pools[1], self.of_states[source]
            )
        for bundle, start in plan.bundles[source]:
            first = int(np.flatnonzero(terms.slots == start)[0])
            branches = slice(first, first + len(bundle.edges))
            upstream = planes.Upstream(
                self.of_mixed, terms.targets[branches], a[branches], b[branches], c[branches]
            )
            self._bundle(source, bundle, upstream)

    def _bundle(self, source: int, bundle: Bundle, upstream: planes.Upstream) -> None:
        forward = self.forward
        stages = forward.stages[source, bundle.operation]
        n_branches = len(bundle.edges)
        for index in reversed(range(len(stages))):
            stage = stages[index]
            of_x = self.of_states[source][None] if index == 0 else self.of_hidden[:n_branches]
            sums, products = stage.backward(upstream, self.of_weights, of_x, is_shared=index == 0)
            if index == 0:
                return
            n_values = forward.batch // forward.n_groups * forward.n_pixels
            ones = np.ones((n_branches, forward.n_groups), sums.dtype)
            a, b, c, _ = planes.norm_gradient(
                ones, stage.x_mean, stage.arrays.scale, sums, products, n_values
            )
            upstream = planes.Upstream(of_x, np.arange(n_branches), a, b, c)

    def _node(self, target: int) -> None:
        forward = self.forward
        terms = forward.plan.targets[target - N_INPUTS]
        n_edges = len(terms.live_edges)
        of_identities = np.empty((n_edges, forward.batch))
        of_bypass = np.empty((n_edges, forward.batch))
        planes.node_backward(
            forward.states,
            self.of_states,
            target,
            forward.edges(terms),
            self.of_mixed[target - N_INPUTS],
            self.sums[target - N_INPUTS],
            of_identities,
            of_bypass,
        )
        grouped = (n_edges, forward.n_groups, -1)
        column = forward.plan.identity_column
        if column is not None:
            self.of_coefficients[:, terms.live_edges, column] += (
                of_identities.reshape(grouped).sum(axis=-1).T
            )
        self.of_edge_weights[:, terms.live_edges] += of_bypass.reshape(grouped).sum(axis=-1).T


class _MixedDag(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - what autograd passes has no type
        first: Tensor,
        second: Tensor,
        coefficients: Tensor,
        edge_weights: Tensor,
        weights: Tensor,
        plan: DagPlan,
        with_gradients: bool,
    ) -> Tensor:
        forward = _Forward(
            plan,
            first,
            coefficients.detach().numpy(),
            edge_weights.detach().numpy(),
            weights.detach().numpy(),
            skips_zeros=not with_gradients,
        )
        out = forward.run(first.detach(), second.detach())
        ctx.forward_pass = None
        if with_gradients:
            ctx.forward_pass = forward
        else:
            _buffers.give_back(forward.buffer)
        return out

    @staticmethod
    def backward(
        ctx: Any,  # noqa: ANN401
        of_out: Tensor,
    ) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError("second derivatives need SearchCell.twice_differentiable")
        forward, ctx.forward_pass = ctx.forward_pass, None
        if forward is None:
            raise RuntimeError("a search cell on a CPU can be differentiated once")
        backward = _Backward(forward, with_weights=ctx.needs_input_grad[4])
        backward.run(of_out)
        dtype = of_out.dtype
        of_inputs = [
            _tensor_of(backward.of_states[state : state + 1]) for state in range(N_INPUTS)
        ]
        of_coefficients = torch.from_numpy(backward.of_coefficients).to(dtype)
        of_edge_weights = torch.from_numpy(backward.of_edge_weights).to(dtype)
        of_weights = None if backward.of_weights is None else torch.from_numpy(backward.of_weights)
        _buffers.give_back(forward.buffer)
        _buffers.give_back(backward.buffer)
        return (
            of_inputs[0],
            of_inputs[1],
            of_coefficients,
            of_edge_weights,
            of_weights,
            None,
            None,
        )

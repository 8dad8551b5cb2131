"""The DAG of a search cell in plain tensor operations: for a GPU, and for second derivatives."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from jaxtyping import Float
from torch import Tensor

from iac_core.cells.dag_plan import DagPlan
from iac_core.cells.genotype import N_INPUTS
from iac_core.cells.layout import group_norm
from iac_core.cells.operation_weights import Bundle, StageWeights

_COMPOSE_UP_TO_CHANNELS = 8
"""Up to this width a depthwise kernel and the pointwise one after it run as one dense kernel: more
arithmetic, less memory traffic; wider pays if dilated."""


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


def mixed_dag_of_tensors(
    first: Float[Tensor, "b c h w"],
    second: Float[Tensor, "b c h w"],
    coefficients: Float[Tensor, "groups edges ops"],
    edge_weights: Float[Tensor, "groups edges"],
    weights: Float[Tensor, " n"],
    plan: DagPlan,
) -> Float[Tensor, "b c2 h w"]:
    """Return the concatenated nodes; arguments as in `plane_dag.mixed_dag`."""
    walk = _Walk(coefficients, edge_weights, weights, plan)
    states = [first, second]
    for source in range(plan.n_states - 1):
        if source >= N_INPUTS:
            states.append(walk.node(source, states))
        walk.leave(source, states[source])
    states.append(walk.node(plan.n_states - 1, states))
    return torch.cat(states[N_INPUTS:], dim=1)


class _Walk:
    """Sums of the nodes as they grow."""

    def __init__(
        self, coefficients: Tensor, edge_weights: Tensor, weights: Tensor, plan: DagPlan
    ) -> None:
        self.coefficients, self.edge_weights, self.plan = coefficients, edge_weights, plan
        self.n_groups = len(coefficients)
        places = [
            place
            for bundles in plan.bundles
            for bundle, _ in bundles
            for stage in bundle.stages
            for place in (stage.depthwise, stage.pointwise)
        ]
        parts = torch.split(weights, [stop - start for start, stop in places])
        self.blocks = dict(zip(places, parts, strict=True))
        self.sums: dict[int, Tensor] = {}

    def node(self, target: int, states: Sequence[Tensor]) -> Tensor:
        """Join the summed operations of a node with its summed bypass, then shuffle."""
        m, terms = self.plan.m, self.plan.targets[target - N_INPUTS]
        n_shuffle = states[0].shape[1] // m
        mixed = self.sums.get(target)
        if mixed is None:
            mixed = torch.zeros_like(states[0][:, :m])
        if n_shuffle == 1:
            return mixed
        bypass = sum(
            self._per_slice(self.edge_weights[:, edge], states[0]) * states[source][:, m:]
            for edge, source in zip(terms.live_edges, terms.live_sources, strict=True)
        )
        assert isinstance(bypass, Tensor), "a node keeps at least one live edge"
        return shuffle_channels(torch.cat([mixed, bypass], dim=1), n_shuffle)

    def leave(self, source: int, state: Tensor) -> None:
        """Add the weighted results of all operations that leave a state to their nodes' sums."""
        active = state[:, : self.plan.m]
        self._pools_and_identity(source, active)
        rectified: Tensor | None = None
        for bundle, _ in self.plan.bundles[source]:
            rectified = torch.relu(active) if rectified is None else rectified
            out = self._convolved(bundle, rectified)
            self._add(bundle.edges, out)

    def _add(self, edges: Sequence[int], values: Tensor) -> None:
        """Add values that lie side by side in the channels, one part for each edge."""
        parts = torch.split(values, self.plan.m, dim=1)
        for edge, part in zip(edges, parts, strict=True):
            target = self.plan.edges[edge][1]
            self.sums[target] = self.sums[target] + part if target in self.sums else part

    def _per_slice(self, weights: Tensor, like: Tensor) -> Tensor:
        """One weight for each group, spread over the batch: ``(B, 1, 1, 1)``."""
        return weights.repeat_interleave(like.shape[0] // self.n_groups)[:, None, None, None]

    def _pools_and_identity(self, source: int, active: Tensor) -> None:
        """Weighted pools and identity, each computed once for all edges that leave a state."""
        plan = self.plan
        pooled: dict[int, Tensor] = {}
        slot = plan.pool_slot[source]
        for edge, (start, _) in enumerate(plan.edges):
            if start != source:
                continue
            for column, name in enumerate(plan.operations):
                if not plan.live[edge, column] or name not in _UNWEIGHTED:
                    continue
                if column not in pooled:
                    pooled[column] = _UNWEIGHTED[name](active)
                    if slot is not None and name != "skip_connect":
                        pooled[column] = group_norm(pooled[column], self.n_groups)
                weight = self._per_slice(self.coefficients[:, edge, column], active)
                self._add([edge], weight * pooled[column])

    def _convolved(self, bundle: Bundle, rectified: Tensor) -> Tensor:
        """Weighted results of one convolution on all its edges, side by side."""
        out = self._shared_input(bundle.stages[0], len(bundle.edges), rectified)
        for stage in bundle.stages[1:]:
            out = torch.relu(group_norm(out, self.n_groups))
            out = self._side_by_side(stage, len(bundle.edges), out)
        # Views, not an index: an index would be copied to a GPU, and waited for.
        weights = torch.stack(
            [self.coefficients[:, edge, bundle.column] for edge in bundle.edges], dim=1
        )
        return group_norm(out, self.n_groups, weights.repeat_interleave(self.plan.m, dim=1))

    def _kernels(self, stage: StageWeights, n_branches: int) -> tuple[Tensor, Tensor]:
        m, k = self.plan.m, stage.kernel_size
        depthwise = self.blocks[stage.depthwise].view(n_branches * m, 1, k, k)
        pointwise = self.blocks[stage.pointwise].view(n_branches * m, m, 1, 1)
        return depthwise, pointwise

    def _shared_input(self, stage: StageWeights, n_branches: int, x: Tensor) -> Tensor:
        m, k = self.plan.m, stage.kernel_size
        if m > _COMPOSE_UP_TO_CHANNELS and stage.dilation == 1:
            return self._side_by_side(stage, n_branches, x.repeat(1, n_branches, 1, 1))
        depthwise, pointwise = self._kernels(stage, n_branches)
        kernel = pointwise.view(n_branches, m, m, 1, 1) * depthwise.view(n_branches, 1, m, k, k)
        return F.conv2d(
            x,
            kernel.reshape(n_branches * m, m, k, k),
            padding=stage.dilation * (k // 2),
            dilation=stage.dilation,
        )

    def _side_by_side(self, stage: StageWeights, n_branches: int, x: Tensor) -> Tensor:
        depthwise, pointwise = self._kernels(stage, n_branches)
        padding = stage.dilation * (stage.kernel_size // 2)
        out = F.conv2d(x, depthwise, padding=padding, dilation=stage.dilation, groups=x.shape[1])
        return F.conv2d(out, pointwise, groups=n_branches)


def _max_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _average_pool(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def _identity(x: Tensor) -> Tensor:
    return x


_UNWEIGHTED = {
    "max_pool_3x3": _max_pool,
    "avg_pool_3x3": _average_pool,
    "skip_connect": _identity,
}

"""Loops over the planes ``(H, W)`` of a batch: separable convolutions, pools, weighted sums.

The stock CPU convolutions are made for many channels; a search cell has 2 to 32 of them and many
branches over the same input. Here a plane is copied once into a zero-padded buffer that fits the
cache, and every tap is one long multiply-add over it, rows and padding alike.

Arrays, all contiguous, of one float type. N counts branches, B slices, m channels that operations
see, G groups: the batch is G equal parts, each normalised by statistics of its own.

* ``x (S, B, C, H, W)``: inputs; S is 1 if all branches share one, else N. Channels ≥ m are passed
  over.
* ``scale, shift (S, G, m)``: the stage's input is ``relu(x · scale + shift)``.
* ``depthwise (N, m, k, k)`` with k 3 or 5, ``pointwise (N, m, m)`` (output, input).
* ``runs (N, G)``: bool; a branch that does not run for a group is not touched.
* Sums are kept per slice, ``(..., B, ...)``, so that slices can be computed in any order.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from iac_core.kernels.compiling import compiled


class Stage(NamedTuple):
    """A stage of N branches: ReLU, depthwise and pointwise convolution.

    Attributes:
        x: Inputs.
        scale: Of the input before the ReLU.
        shift: Likewise.
        depthwise: Kernels.
        pointwise: Kernels.
        dilation: Of the depthwise kernels.
        filtered: Depthwise results, ``(N, B, m, H, W)``, written by the forward pass.
        out: Results, ``(N, B, m, H, W)``, written by the forward pass.
    """

    x: ndarray
    scale: ndarray
    shift: ndarray
    depthwise: ndarray
    pointwise: ndarray
    dilation: int
    filtered: ndarray
    out: ndarray


class Upstream(NamedTuple):
    """A gradient ``a · g + b · u + c`` of results u, which several branches may share.

    Attributes:
        g: ``(T, B, m, H, W)``; branch n reads ``g[targets[n]]``.
        targets: ``(N,)``.
        a: ``(N, G, m)``.
        b: ``(N, G, m)``.
        c: ``(N, G, m)``.
    """

    g: ndarray
    targets: ndarray
    a: ndarray
    b: ndarray
    c: ndarray


class IncomingEdges(NamedTuple):
    """The live edges into a node.

    Attributes:
        sources: State that each comes from, ``(e,)``.
        identities: Weight of the identity on each, ``(e, G)``.
        bypass: Weight of the bypass channels on each, ``(e, G)``.
    """

    sources: ndarray
    identities: ndarray
    bypass: ndarray


@compiled
def to_planes(pixels: ndarray, states: ndarray) -> None:
    """Deal the channels of ``(B, H, W, n · C)`` out to states ``(n, B, C, H, W)``, written."""
    n_states, n_slices, channels, height, width = states.shape
    for b in range(n_slices):
        for y in range(height):
            source = pixels[b, y]
            for n in range(n_states):
                for c in range(channels):
                    row = states[n, b, c, y]
                    for i in range(width):
                        row[i] = source[i, n * channels + c]


@compiled
def to_pixels(states: ndarray, pixels: ndarray) -> None:
    """Join states ``(n, B, C, H, W)`` to ``(B, H, W, n · C)``, written."""
    n_states, n_slices, channels, height, width = states.shape
    for b in range(n_slices):
        for y in range(height):
            target = pixels[b, y]
            for n in range(n_states):
                for c in range(channels):
                    row = states[n, b, c, y]
                    for i in range(width):
                        target[i, n * channels + c] = row[i]


@compiled
def _fill(plane: ndarray, pad: int, out: ndarray) -> None:
    """Copy a plane into the middle of a zero-padded flat buffer."""
    height, width = plane.shape
    stride = width + 2 * pad
    for row in range(height):
        target = out[(row + pad) * stride + pad :]
        source = plane[row]
        for i in range(width):
            target[i] = source[i]


@compiled
def _crop(flat: ndarray, stride: int, out: ndarray) -> None:
    """Copy the first pixels of each row of a flat buffer into a plane."""
    height, width = out.shape
    for row in range(height):
        source, target = flat[row * stride :], out[row]
        for i in range(width):
            target[i] = source[i]


@compiled
def _fill_rectified(plane: ndarray, scale: float, shift: float, pad: int, out: ndarray) -> None:
    """Write ``relu(plane · scale + shift)`` into the middle of a zero-padded flat buffer."""
    height, width = plane.shape
    stride = width + 2 * pad
    for row in range(height):
        start = (row + pad) * stride + pad
        target = out[start : start + width]
        source = plane[row]
        for i in range(width):
            value = source[i] * scale + shift
            target[i] = 0 if value <= 0 else value


@compiled
def _correlate(source: ndarray, taps: ndarray, step: int, stride: int, out: ndarray) -> None:
    """``out[q] = sum_ij taps[i, j] · source[q + (i · stride + j) · step]`` along the buffer."""
    n = out.shape[0]
    size = taps.shape[0]
    for i in range(size):
        # Slices, not sums of indices: the compiler then knows that no index is negative.
        first = source[i * step * stride :]
        second, third = first[step:], first[2 * step :]
        a, b, c = taps[i, 0], taps[i, 1], taps[i, 2]
        if size == 3:
            if i == 0:
                for q in range(n):
                    out[q] = a * first[q] + b * second[q] + c * third[q]
            else:
                for q in range(n):
                    out[q] += a * first[q] + b * second[q] + c * third[q]
        else:
            d, e = taps[i, 3], taps[i, 4]
            fourth, fifth = first[3 * step :], first[4 * step :]
            if i == 0:
                for q in range(n):
                    near = a * first[q] + b * second[q] + c * third[q]
                    out[q] = near + d * fourth[q] + e * fifth[q]
            else:
                for q in range(n):
                    near = a * first[q] + b * second[q] + c * third[q]
                    out[q] += near + d * fourth[q] + e * fifth[q]


@compiled
def _tap_gradients(
    source: ndarray, gradient: ndarray, step: int, stride: int, out: ndarray
) -> None:
    """``out[i, j] = sum_q gradient[q] · source[q + (i · stride + j) · step]``."""
    n = gradient.shape[0]
    size = out.shape[0]
    for i in range(size):
        first = source[i * step * stride :]
        second, third = first[step:], first[2 * step :]
        a = b = c = gradient.dtype.type(0)
        for q in range(n):
            g = gradient[q]
            a += g * first[q]
            b += g * second[q]
            c += g * third[q]
        out[i, 0], out[i, 1], out[i, 2] = a, b, c
        if size == 5:
            fourth, fifth = first[3 * step :], first[4 * step :]
            d = e = gradient.dtype.type(0)
            for q in range(n):
                g = gradient[q]
                d += g * fourth[q]
                e += g * fifth[q]
            out[i, 3], out[i, 4] = d, e


@compiled
def _combine(matrix: ndarray, rows: ndarray, out: ndarray) -> None:
    """``out[o] = sum_c matrix[o, c] · rows[c]`` for few long rows."""
    n_out, n_in = matrix.shape
    n = out.shape[1]
    for o in range(n_out):
        target, w = out[o], matrix[o]
        for c in range(n_in % 4):
            row, factor = rows[c], w[c]
            if c == 0:
                for q in range(n):
                    target[q] = factor * row[q]
            else:
                for q in range(n):
                    target[q] += factor * row[q]
        for c in range(n_in % 4, n_in, 4):
            e, f, g, h = rows[c], rows[c + 1], rows[c + 2], rows[c + 3]
            s, t, u, v = w[c], w[c + 1], w[c + 2], w[c + 3]
            if c == 0:
                for q in range(n):
                    target[q] = s * e[q] + t * f[q] + u * g[q] + v * h[q]
            else:
                for q in range(n):
                    target[q] += s * e[q] + t * f[q] + u * g[q] + v * h[q]


@compiled
def _dot(a: ndarray, b: ndarray) -> Any:
    total = a.dtype.type(0)
    for q in range(a.shape[0]):
        total += a[q] * b[q]
    return total


@compiled
def _products(left: ndarray, right: ndarray, out: ndarray) -> None:
    """``out[o, c] = sum_q left[o, q] · right[c, q]`` for few long rows."""
    n_left, n_right = out.shape
    for o in range(n_left):
        row = left[o]
        for c in range(n_right % 4):
            out[o, c] = _dot(row, right[c])
        for c in range(n_right % 4, n_right, 4):
            e, f, g, h = right[c], right[c + 1], right[c + 2], right[c + 3]
            s = t = u = v = row.dtype.type(0)
            for q in range(row.shape[0]):
                s += row[q] * e[q]
                t += row[q] * f[q]
                u += row[q] * g[q]
                v += row[q] * h[q]
            out[o, c], out[o, c + 1], out[o, c + 2], out[o, c + 3] = s, t, u, v


@compiled
def _add(weight: float, source: ndarray, out: ndarray) -> None:
    for q in range(out.shape[0]):
        out[q] += weight * source[q]


@compiled
def _dot_centred(a: ndarray, b: ndarray, centre: float) -> Any:
    total = a.dtype.type(0)
    for q in range(a.shape[0]):
        total += a[q] * (b[q] - centre)
    return total


@compiled
def _sum(a: ndarray) -> Any:
    total = a.dtype.type(0)
    for q in range(a.shape[0]):
        total += a[q]
    return total


@compiled
def _moments(plane: ndarray) -> tuple[float, float]:
    """Mean and sum of squared deviations of a flat plane."""
    n = plane.shape[0]
    mean = _sum(plane) / plane.dtype.type(n)
    total = plane.dtype.type(0)
    for q in range(n):
        difference = plane[q] - mean
        total += difference * difference
    return mean, total


@compiled
def group_norm(
    means: ndarray, squares: ndarray, n_pixels: int, epsilon: float, runs: ndarray
) -> tuple[ndarray, ndarray]:
    """Join moments of planes to the mean and 1/sd of each group, as batch norm defines them.

    Args:
        means: Mean of every plane, ``(N, B, m)``.
        squares: Sums of squared deviations, ``(N, B, m)``.
        n_pixels: Pixels of a plane.
        epsilon: Added to the (biased) variance.
        runs: ``(N, G)``; both results are 0 where a branch does not run.

    Returns:
        Both ``(N, G, m)``.
    """
    n, n_groups = runs.shape
    size = means.shape[1] // n_groups
    mean = np.zeros((n, n_groups, means.shape[2]), means.dtype)
    inverse = np.zeros_like(mean)
    for i in range(n):
        for g in range(n_groups):
            if not runs[i, g]:
                continue
            for c in range(means.shape[2]):
                centre = 0.0
                for b in range(g * size, (g + 1) * size):
                    centre += means[i, b, c]
                centre /= size
                total = 0.0
                for b in range(g * size, (g + 1) * size):
                    total += squares[i, b, c] + n_pixels * (means[i, b, c] - centre) ** 2
                mean[i, g, c] = centre
                inverse[i, g, c] = 1.0 / np.sqrt(total / (size * n_pixels) + epsilon)
    return mean, inverse


@compiled
def norm_gradient(
    weight: ndarray, mean: ndarray, inverse: ndarray, sums: ndarray, products: ndarray, n: int
) -> tuple[ndarray, ndarray, ndarray, ndarray]:
    """Gradient of ``weight · (u − mean) · inverse`` as ``a · g + b · u + c``, channel by channel.

    Args:
        weight: ``(N, G)``.
        mean: ``(N, G, m)``.
        inverse: ``(N, G, m)``.
        sums: Sum of the gradient g over a plane, ``(N, B, m)``.
        products: Sum of ``g · (u − mean)`` over a plane, ``(N, B, m)``.
        n: Values that a statistic rests on.

    Returns:
        a, b, c, each ``(N, G, m)``, and the gradient of `weight`, ``(N, G)`` in float64.
    """
    n_branches, n_groups, m = mean.shape
    size = sums.shape[1] // n_groups
    a, b, c = np.zeros_like(mean), np.zeros_like(mean), np.zeros_like(mean)
    of_weight = np.zeros((n_branches, n_groups))
    for i in range(n_branches):
        for g in range(n_groups):
            for channel in range(m):
                total = product = 0.0
                for s in range(g * size, (g + 1) * size):
                    total += sums[i, s, channel]
                    product += products[i, s, channel]
                r = float(inverse[i, g, channel])
                factor = weight[i, g] * r
                slope = -factor * r * r * product / n
                a[i, g, channel] = factor
                b[i, g, channel] = slope
                c[i, g, channel] = -factor * total / n - slope * mean[i, g, channel]
                of_weight[i, g] += r * product
    return a, b, c, of_weight


@compiled
def stage_forward(stage: Stage, runs: ndarray, means: ndarray, squares: ndarray) -> None:
    """Run every branch; write the results' moments too.

    Args:
        stage: `filtered` and `out` are written.
        runs: ``(N, G)``.
        means: ``(N, B, m)``, written.
        squares: ``(N, B, m)``, written.
    """
    x, scale, shift, depthwise, pointwise, dilation, filtered, out = stage
    n_inputs, n_slices, _, height, width = x.shape
    n_branches, m, size, _ = depthwise.shape
    pad = dilation * (size - 1) // 2
    stride = width + 2 * pad
    length = height * stride - 2 * pad
    group_size = n_slices // runs.shape[1]
    padded = np.zeros((m, (height + 2 * pad) * stride), x.dtype)
    line = np.empty(length, x.dtype)
    for b in range(n_slices):
        g = b // group_size
        is_filled = False
        for n in range(n_branches):
            if not runs[n, g]:
                continue
            if n_inputs > 1 or not is_filled:
                s = n if n_inputs > 1 else 0
                for c in range(m):
                    _fill_rectified(x[s, b, c], scale[s, g, c], shift[s, g, c], pad, padded[c])
                is_filled = True
            for c in range(m):
                _correlate(padded[c], depthwise[n, c], dilation, stride, line)
                _crop(line, stride, filtered[n, b, c])
            results = out[n, b].reshape((m, height * width))
            _combine(pointwise[n], filtered[n, b].reshape((m, height * width)), results)
            for c in range(m):
                means[n, b, c], squares[n, b, c] = _moments(results[c])


@compiled
def stage_backward(
    stage: Stage,
    upstream: Upstream,
    x_mean: ndarray,
    is_shared: bool,
    of_depthwise: ndarray,
    of_pointwise: ndarray,
    of_x: ndarray,
    sums: ndarray,
    products: ndarray,
) -> None:
    """Gradients of a stage.

    Args:
        stage: As it ran.
        upstream: Gradient of its results.
        x_mean: ``(S, G, m)``; `products` are of ``x − x_mean``.
        is_shared: Whether all branches read ``x[0]``.
        of_depthwise: ``(N, B, m, k, k)``, written; with B = 0 no weight's gradient is formed.
        of_pointwise: ``(N, B, m, m)``, written; the same.
        of_x: Gradient of the ReLU's argument, channels as in x. Branches with inputs of their own
            write theirs; a shared input's is added to what is there.
        sums: Of the written `of_x` over each plane, ``(N, B, m)``; unused with a shared input.
        products: Sums of ``of_x · (x − x_mean)``, ``(N, B, m)``; the same.
    """
    x, scale, shift, depthwise, pointwise, dilation, filtered, out = stage
    gradient, targets, a, b, c = upstream
    with_weights = of_depthwise.shape[1] > 0
    _, n_slices, _, height, width = x.shape
    n_branches, m, size, _ = depthwise.shape
    pad = dilation * (size - 1) // 2
    stride = width + 2 * pad
    length = height * stride - 2 * pad
    n_pixels = height * width
    middle = pad * stride + pad
    group_size = n_slices // a.shape[1]
    padded = np.zeros((m, (height + 2 * pad) * stride), x.dtype)
    padded_gradient = np.zeros_like(padded)
    dense = np.empty((m, n_pixels), x.dtype)
    before = np.empty((m, n_pixels), x.dtype)
    line = np.empty(length, x.dtype)
    total = np.zeros((m, length), x.dtype)
    for s in range(n_slices):
        g = s // group_size
        total[:] = 0
        for n in range(n_branches):
            if n == 0 or not is_shared:
                i = 0 if is_shared else n
                for q in range(m):
                    _fill_rectified(x[i, s, q], scale[i, g, q], shift[i, g, q], pad, padded[q])
            results = out[n, s].reshape((m, n_pixels))
            gradients = gradient[targets[n], s].reshape((m, n_pixels))
            for o in range(m):
                factor, slope, offset = a[n, g, o], b[n, g, o], c[n, g, o]
                result, above, target = results[o], gradients[o], dense[o]
                for q in range(n_pixels):
                    target[q] = factor * above[q] + slope * result[q] + offset
            kept = filtered[n, s].reshape((m, n_pixels))
            if with_weights:
                _products(dense, kept, of_pointwise[n, s])
            _combine(np.ascontiguousarray(pointwise[n].T), dense, before)
            for q in range(m):
                _fill(before[q].reshape((height, width)), pad, padded_gradient[q])
                if with_weights:
                    _tap_gradients(
                        padded[q],
                        padded_gradient[q, middle : middle + length],
                        dilation,
                        stride,
                        of_depthwise[n, s, q],
                    )
                flipped = np.ascontiguousarray(depthwise[n, q, ::-1, ::-1])
                _correlate(padded_gradient[q], flipped, dilation, stride, line)
                if is_shared:
                    _add(1, line, total[q])
                    continue
                centre = x_mean[n, g, q]
                for row in range(height):
                    inner = padded[q, middle + row * stride :]
                    above, target = line[row * stride :], of_x[n, s, q, row]
                    for i in range(width):
                        target[i] = above[i] if inner[i] > 0 else 0
                flat = of_x[n, s, q].reshape(n_pixels)
                sums[n, s, q] = _sum(flat)
                products[n, s, q] = _dot_centred(flat, x[n, s, q].reshape(n_pixels), centre)
        if is_shared:
            for q in range(m):
                for row in range(height):
                    inner = padded[q, middle + row * stride :]
                    above, target = total[q, row * stride :], of_x[0, s, q, row]
                    for i in range(width):
                        target[i] += above[i] if inner[i] > 0 else 0


@compiled
def pool_forward(
    x: ndarray, maxima: ndarray, places: ndarray, averages: ndarray, moments: ndarray
) -> None:
    """Max and average pool, 3 × 3, stride 1; the average counts pixels inside the image only.

    Args:
        x: ``(B, C, H, W)``; channels ≥ m are passed over.
        maxima: ``(B, m, H, W)``, written.
        places: Which of the 9 neighbours was the first largest, ``(B, m, H, W)``, written.
        averages: ``(B, m, H, W)``, written.
        moments: ``(2, 2, B, m)``, written: means of maxima and averages, then squares.
    """
    n_slices, _, height, width = x.shape
    m = maxima.shape[1]
    stride = width + 2
    low = np.full((height + 2) * stride, -np.inf, x.dtype)
    zero = np.zeros((height + 2) * stride, x.dtype)
    length = height * stride - 2
    best = np.empty(length, x.dtype)
    place = np.empty(length, x.dtype)
    total = np.empty(length, x.dtype)
    for b in range(n_slices):
        for c in range(m):
            _fill(x[b, c], 1, low)
            _fill(x[b, c], 1, zero)
            best[:] = low[:length]
            place[:] = 0
            for j in range(1, 9):
                source = low[(j // 3) * stride + j % 3 :]
                which = x.dtype.type(j)
                for q in range(length):
                    place[q] = which if source[q] > best[q] else place[q]
                    best[q] = source[q] if source[q] > best[q] else best[q]
            total[:] = 0
            for j in range(9):
                _add(1, zero[(j // 3) * stride + j % 3 :], total)
            for row in range(height):
                rows = 1 + (row > 0) + (row < height - 1)
                for i in range(width):
                    count = rows * (1 + (i > 0) + (i < width - 1))
                    maxima[b, c, row, i] = best[row * stride + i]
                    places[b, c, row, i] = place[row * stride + i]
                    averages[b, c, row, i] = total[row * stride + i] / x.dtype.type(count)
            n_pixels = height * width
            moments[0, 0, b, c], moments[1, 0, b, c] = _moments(maxima[b, c].reshape(n_pixels))
            moments[0, 1, b, c], moments[1, 1, b, c] = _moments(averages[b, c].reshape(n_pixels))


@compiled
def pool_backward(
    of_maxima: ndarray, places: ndarray, of_averages: ndarray, of_x: ndarray
) -> None:
    """Add the gradients of both pools, ``(B, m, H, W)``, to `of_x` ``(B, C, H, W)``."""
    n_slices, m, height, width = places.shape
    stride = width + 2
    gradient = np.zeros((height + 2) * stride, of_x.dtype)
    spread = np.zeros((height + 2) * stride, of_x.dtype)
    place = np.full((height + 2) * stride, -1, of_x.dtype)
    length = height * stride - 2
    total = np.empty(length, of_x.dtype)
    for b in range(n_slices):
        for c in range(m):
            for row in range(height):
                start = (row + 1) * stride + 1
                rows = 1 + (row > 0) + (row < height - 1)
                for i in range(width):
                    count = rows * (1 + (i > 0) + (i < width - 1))
                    gradient[start + i] = of_maxima[b, c, row, i]
                    place[start + i] = places[b, c, row, i]
                    spread[start + i] = of_averages[b, c, row, i] / of_x.dtype.type(count)
            total[:] = 0
            for j in range(9):
                # The output whose j-th neighbour this pixel is lies on the opposite side of it.
                offset = (2 - j // 3) * stride + 2 - j % 3
                where, value, even = place[offset:], gradient[offset:], spread[offset:]
                which = of_x.dtype.type(j)
                for q in range(length):
                    total[q] += (value[q] if where[q] == which else 0) + even[q]
            for row in range(height):
                for i in range(width):
                    of_x[b, c, row, i] += total[row * stride + i]


@compiled
def node_forward(
    states: ndarray,
    target: int,
    edges: IncomingEdges,
    results: ndarray,
    slots: ndarray,
    factors: ndarray,
    offsets: ndarray,
) -> None:
    """Write a node: weighted results and identities, summed bypass channels, shuffled.

    With ``K = C / m``, channel ``a · m + b`` of the sum goes to ``b · K + a``.

    Args:
        states: ``(states, B, C, H, W)``; ``states[target]`` is written.
        target: Index of the node.
        edges: Into the node.
        results: Results of operations, ``(slots, B, m, H, W)``.
        slots: Results that enter the node, ``(n,)``.
        factors: Their factors, ``(n, G, m)``; 0 is passed over.
        offsets: Added once, ``(G, m)``.
    """
    sources, identities, bypass = edges
    n_shuffle = states.shape[2] // results.shape[2]
    _, n_slices, channels, height, width = states.shape
    m = results.shape[2]
    n_pixels = height * width
    group_size = n_slices // offsets.shape[0]
    for s in range(n_slices):
        g = s // group_size
        for q in range(channels):
            out = states[target, s, (q % m) * n_shuffle + q // m].reshape(n_pixels)
            if q < m:
                out[:] = offsets[g, q]
                for t in range(slots.shape[0]):
                    if factors[t, g, q] != 0:
                        _add(factors[t, g, q], results[slots[t], s, q].reshape(n_pixels), out)
            else:
                out[:] = 0
            for e in range(sources.shape[0]):
                weight = identities[e, g] if q < m else bypass[e, g]
                if weight != 0:
                    _add(weight, states[sources[e], s, q].reshape(n_pixels), out)


@compiled
def node_backward(
    states: ndarray,
    of_states: ndarray,
    target: int,
    edges: IncomingEdges,
    of_mixed: ndarray,
    sums: ndarray,
    of_identities: ndarray,
    of_bypass: ndarray,
) -> None:
    """Gradients of `node_forward` but for the results of operations.

    Args:
        states: As in the forward pass.
        of_states: Gradients of all states; the target's is complete, those of its sources grow.
        target: Index of the node.
        edges: Into the node.
        of_mixed: Gradient of the summed operations, ``(B, m, H, W)``, written.
        sums: Of it over each plane, ``(B, m)``, written.
        of_identities: ``(e, B)``, written.
        of_bypass: ``(e, B)``, written.
    """
    sources, identities, bypass = edges
    m = of_mixed.shape[1]
    _, n_slices, channels, height, width = states.shape
    n_pixels = height * width
    n_shuffle = channels // m
    group_size = n_slices // bypass.shape[1]
    of_identities[:] = 0
    of_bypass[:] = 0
    for s in range(n_slices):
        g = s // group_size
        for q in range(channels):
            plane = of_states[target, s, (q % m) * n_shuffle + q // m].reshape(n_pixels)
            if q < m:
                of_mixed[s, q].reshape(n_pixels)[:] = plane
                sums[s, q] = _sum(plane)
            for e in range(sources.shape[0]):
                weight = identities[e, g] if q < m else bypass[e, g]
                if weight == 0:
                    continue
                _add(weight, plane, of_states[sources[e], s, q].reshape(n_pixels))
                product = _dot(plane, states[sources[e], s, q].reshape(n_pixels))
                if q < m:
                    of_identities[e, s] += product
                else:
                    of_bypass[e, s] += product


@compiled
def centred_products(
    gradient: ndarray,
    targets: ndarray,
    results: ndarray,
    slots: ndarray,
    mean: ndarray,
    products: ndarray,
) -> None:
    """Sums of ``g · (u − mean)`` over each plane, written to `products` ``(N, B, m)``.

    Args:
        gradient: ``(T, B, m, H, W)``; branch n reads ``gradient[targets[n]]``.
        targets: ``(N,)``.
        results: ``(slots, B, m, H, W)``; branch n reads ``results[slots[n]]``.
        slots: ``(N,)``.
        mean: ``(N, G, m)``.
        products: Written.
    """
    n_branches, n_slices, m = products.shape
    n_pixels = results.shape[3] * results.shape[4]
    group_size = n_slices // mean.shape[1]
    for n in range(n_branches):
        for s in range(n_slices):
            for c in range(m):
                products[n, s, c] = _dot_centred(
                    gradient[targets[n], s, c].reshape(n_pixels),
                    results[slots[n], s, c].reshape(n_pixels),
                    mean[n, s // group_size, c],
                )


@compiled
def pooled_gradient(upstream: Upstream, pooled: ndarray, out: ndarray) -> None:
    """Write the gradient of one pool's result that several edges share.

    Args:
        upstream: Its parts, one for each edge.
        pooled: The pool's result, ``(B, m, H, W)``.
        out: ``(B, m, H, W)``, written.
    """
    gradient, targets, a, b, c = upstream
    n_slices, m, height, width = pooled.shape
    n_pixels = height * width
    group_size = n_slices // a.shape[1]
    for s in range(n_slices):
        g = s // group_size
        for q in range(m):
            target = out[s, q].reshape(n_pixels)
            target[:] = 0
            slope = offset = pooled.dtype.type(0)
            for n in range(targets.shape[0]):
                _add(a[n, g, q], gradient[targets[n], s, q].reshape(n_pixels), target)
                slope += b[n, g, q]
                offset += c[n, g, q]
            source = pooled[s, q].reshape(n_pixels)
            for i in range(n_pixels):
                target[i] += slope * source[i] + offset

"""Surfaces of binary masks: boundary voxels, surface elements, distances in millimetres."""

import functools
import itertools
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy import ndarray
from scipy.ndimage import binary_erosion, generate_binary_structure
from scipy.spatial import cKDTree

Corner = tuple[int, int, int]
Cut = tuple[Corner, Corner]
"""A cube edge that the surface cuts: its corner in the set, then the one outside."""

_CORNERS: tuple[Corner, ...] = tuple(itertools.product((0, 1), repeat=3))  # type: ignore[arg-type]
_FACES = [[c for c in _CORNERS if c[axis] == side] for axis in range(3) for side in (0, 1)]
Spacing = tuple[float, float, float]


def boundary_voxels(mask: Bool[ndarray, "x y z"]) -> Integer[ndarray, "n 3"]:
    """Return the voxels of a mask with a 6-neighbour outside it; outside the array is outside."""
    inner = binary_erosion(mask, generate_binary_structure(3, 1), border_value=0)
    return np.argwhere(mask & ~inner)


def nearest_distances(
    start: Float[ndarray, "n 3"], goal: Float[ndarray, "m 3"]
) -> Float[ndarray, " n"]:
    """Return the distance of every start point to its nearest goal point."""
    return np.asarray(cKDTree(goal).query(start)[0])


def surface_elements(
    mask: Bool[ndarray, "x y z"], spacing_mm: Spacing
) -> tuple[Float[ndarray, "n 3"], Float[ndarray, " n"]]:
    """Return the surface elements of a mask: one per 2 × 2 × 2 cube of voxels that it passes.

    Args:
        mask: The structure.
        spacing_mm: Voxel edge lengths along X, Y, Z.

    Returns:
        Positions of the elements in millimetres and their areas in square millimetres.
    """
    padded = np.pad(mask, 1)
    code = np.zeros([extent - 1 for extent in padded.shape], dtype=np.uint8)
    for bit, corner in enumerate(_CORNERS):
        part = tuple(
            slice(offset, offset + extent - 1)
            for offset, extent in zip(corner, padded.shape, strict=True)
        )
        code |= padded[part].astype(np.uint8) << bit
    passed = np.argwhere((code != 0) & (code != 255))
    areas = element_areas(spacing_mm)[code[tuple(passed.T)]]
    return passed * np.asarray(spacing_mm), areas


@functools.lru_cache(maxsize=256)
def element_areas(spacing_mm: Spacing) -> Float[ndarray, " 256"]:
    """Return the area of the surface in a cube for each of its 256 patterns of corners.

    Marching cubes with vertices at the middle of the cut edges: on each face the cut edges are
    joined so that corners of the smaller set stay apart; each closed loop is a polygon. Polygons
    of more than four vertices are not plane: first the vertex of every corner with two neighbours
    in the set is cut off, the rest is a fan. This rule gives the table of DeepMind's
    surface-distance package, which the published surface Dice rests on.

    Args:
        spacing_mm: Edge lengths of the cube.

    Returns:
        Square millimetres by pattern; bit i of a pattern is corner i in the order of
        ``itertools.product((0, 1), repeat=3)``.
    """
    areas = np.zeros(256)
    for pattern in range(1, 255):
        inside = {corner for bit, corner in enumerate(_CORNERS) if pattern >> bit & 1}
        small = inside if len(inside) <= 4 else set(_CORNERS) - inside
        areas[pattern] = sum(
            _triangle_area(triangle, spacing_mm)
            for loop in _loops(_segments(small))
            for triangle in _triangles(loop, small)
        )
    return areas


def _is_edge(a: Corner, b: Corner) -> bool:
    return sum(x != y for x, y in zip(a, b, strict=True)) == 1


def _segments(small: set[Corner]) -> list[tuple[Cut, Cut]]:
    """On each face, pairs of cut edges that a line of the surface joins."""
    segments = []
    for face in _FACES:
        cuts: list[Cut] = [
            (a, b) for a in face if a in small for b in face if b not in small and _is_edge(a, b)
        ]
        if len(cuts) == 2:
            segments.append((cuts[0], cuts[1]))
        elif len(cuts) == 4:
            for corner in {a for a, _ in cuts}:
                first, second = [cut for cut in cuts if cut[0] == corner]
                segments.append((first, second))
    return segments


def _loops(segments: Iterable[tuple[Cut, Cut]]) -> list[list[Cut]]:
    """Closed polygons that the segments form."""
    neighbours: dict[Cut, list[Cut]] = {}
    for a, b in segments:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    loops, seen = [], set()
    for start in neighbours:
        loop: list[Cut] = []
        current: Cut | None = start
        while current is not None and current not in seen:
            seen.add(current)
            loop.append(current)
            current = next((cut for cut in neighbours[current] if cut not in seen), None)
        if loop:
            loops.append(loop)
    return loops


def _triangles(loop: list[Cut], small: set[Corner]) -> list[tuple[Cut, Cut, Cut]]:
    """Triangles of a polygon, by the rule of `element_areas`."""

    def n_neighbours(corner: Corner) -> int:
        return sum(_is_edge(corner, other) for other in small)

    triangles, rest = [], list(loop)
    if len(loop) > 4:
        for index, cut in enumerate(loop):
            if n_neighbours(cut[0]) == 2:
                triangles.append((loop[index - 1], cut, loop[(index + 1) % len(loop)]))
                rest.remove(cut)
    first = max(range(len(rest)), key=lambda index: n_neighbours(rest[index][1]))
    fan = rest[first:] + rest[:first]
    return triangles + [(fan[0], a, b) for a, b in itertools.pairwise(fan[1:])]


def _triangle_area(triangle: tuple[Cut, Cut, Cut], spacing_mm: Spacing) -> float:
    a, b, c = (
        (np.asarray(cut[0]) + np.asarray(cut[1])) / 2 * np.asarray(spacing_mm) for cut in triangle
    )
    return float(np.linalg.norm(np.cross(b - a, c - a))) / 2

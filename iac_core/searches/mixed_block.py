"""The space of mixed-block networks (MB-NAS), and the masks that make smaller spaces of it.

An encoding has four numbers for each node: level, block, kernel, skip. What its alphabets allow
may be no network; `MixedBlockSpace.repair` makes it one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from iac_core.backbones.mixed_block.genotype import (
    MixedGenotype,
    MixedNode,
    sources,
    u_net_genotype,
)
from iac_core.backbones.mixed_block.network import MixedBlockSettings
from iac_core.config import require
from iac_core.errors import ConfigError
from iac_core.searches.mixed_block_settings import KINDS, Kind, MixedBlockSpaceSettings
from iac_core.searches.space import others, random_neighbour

Encoding = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Variable:
    """Places of an encoding that hold one value, and what the values from 0 on stand for."""

    places: tuple[int, ...]
    options: tuple[int, ...] | tuple[str, ...]


class MixedBlockSpace:
    """Genotypes of mixed-block networks, of which some variables may be masked.

    A candidate is a `MixedGenotype`, in which a skip has a source: one network is one candidate.

    Args:
        settings: Which networks there are.
        free: Kinds of variables that may change. A level moves skips with it, so ``skip`` must be
            free where ``level`` is.
        base: Gives every masked variable its value; None is the U-Net of the first block and
            kernel.

    Raises:
        ConfigError: If level is free and skip is not, or the base is not of the space.

    Examples:
        >>> MixedBlockSpace().n_encodings
        1141260857376768000
        >>> MixedBlockSpace(free=("kernel",)).n_encodings
        59049
    """

    def __init__(
        self,
        settings: MixedBlockSpaceSettings | None = None,
        *,
        free: Sequence[Kind] = KINDS,
        base: MixedGenotype | None = None,
    ) -> None:
        self.settings = settings or MixedBlockSpaceSettings()
        require(bool(free) and set(free) <= set(KINDS), f"free must name some of {KINDS}", free)
        is_whole = "level" not in free or "skip" in free
        require(is_whole, "free must name skip where it names level", tuple(free))
        self.free = tuple(kind for kind in KINDS if kind in free)
        self.base = base or self._u_net()
        self._base = self.encode(self.base)
        self._variables = self._free_variables()

    @property
    def variables(self) -> tuple[str, ...]:
        """Names such as ``level_3`` and, of tied nodes, ``block_0_1_2``."""
        return tuple(self._variables)

    def options(self, variable: str) -> tuple[int, ...] | tuple[str, ...]:
        """Return the levels, blocks, kernels or skips of a variable."""
        return self._variables[variable].options

    @property
    def n_encodings(self) -> int:
        """Product of the options of the free variables."""
        return prod(len(variable.options) for variable in self._variables.values())

    def n_options(self, node: int, kind: Kind) -> int:
        """Return how many values a variable of the encoding has, masked or not.

        Levels begin at 0, rise by one from node to node, and can fall to 0 one step after the
        last node.
        """
        given = self.settings
        return {
            "level": min(node + 1, given.n_levels, given.n_nodes - node + 1),
            "block": len(given.blocks),
            "kernel": len(given.kernels),
            "skip": 1 + min(given.n_skip_sources, max(node - 1, 0)),
        }[kind]

    def encode(self, genotype: MixedGenotype) -> Encoding:
        """Return the four numbers of each node.

        Raises:
            ConfigError: If the genotype is not of the space's alphabets.
        """
        given = self.settings
        n_nodes = len(genotype.nodes)
        require(n_nodes == given.n_nodes, f"a genotype must have {given.n_nodes} nodes", n_nodes)
        found: list[int] = []
        for place, node in enumerate(genotype.nodes):
            is_known = (
                node.level < self.n_options(place, "level")
                and node.block in given.blocks
                and node.kernel in given.kernels
                and node.skip < self.n_options(place, "skip")
            )
            rule = "a genotype must have levels, blocks, kernels and skips of the space, at node"
            require(is_known, f"{rule} {place + 1} of it", str(node))
            found += [
                node.level,
                given.blocks.index(node.block),
                given.kernels.index(node.kernel),
                node.skip,
            ]
        return tuple(found)

    def decode(self, encoding: Sequence[int]) -> MixedGenotype:
        """Return the genotype of an encoding.

        Raises:
            ConfigError: If it is not valid; a repaired one is.
        """
        given = self.settings
        n_numbers = len(KINDS) * given.n_nodes
        require(len(encoding) == n_numbers, f"an encoding must have {n_numbers} numbers", encoding)
        return MixedGenotype(
            tuple(
                MixedNode(level, given.blocks[block], given.kernels[kernel], skip)
                for level, block, kernel, skip in zip(*[iter(encoding)] * len(KINDS), strict=True)
            )
        )

    def repair(self, encoding: Sequence[int]) -> Encoding:
        """Return the encoding made valid; one that is valid stays as it is.

        From the first node on, each level is pulled to within one of the level before; then each
        is capped so that the last can be 0 or 1 (``level <= n_nodes - node``), then each skip by
        the sources that there are (authors' code; skips last, so that repair is idempotent).
        Blocks and kernels never change.
        """
        given = self.settings
        repaired = list(encoding)
        levels: list[int] = []
        for node in range(given.n_nodes):
            level, before = encoding[len(KINDS) * node], levels[-1] if levels else -1
            highest = min(before + 1, given.n_levels - 1)
            levels.append(min(max(level, before - 1, 0), highest))
        levels = [min(level, given.n_nodes - node) for node, level in enumerate(levels)]
        for node, level in enumerate(levels):
            repaired[len(KINDS) * node] = level
            most = min(len(sources(levels, node)), given.n_skip_sources)
            place = len(KINDS) * node + KINDS.index("skip")
            repaired[place] = min(max(repaired[place], 0), most)
        return tuple(repaired)

    def is_valid(self, candidate: MixedGenotype) -> bool:
        """Whether a genotype is of the alphabets, with the masked values and ties of the space."""
        try:
            encoding = self.encode(candidate)
        except ConfigError:
            return False
        expected = list(self._base)
        for variable in self._variables.values():
            for place in variable.places:
                expected[place] = encoding[variable.places[0]]
        return tuple(expected) == encoding == self.repair(encoding)

    def canonical(self, candidate: MixedGenotype) -> MixedGenotype:
        """Return the genotype itself, in which a skip has a source.

        Raises:
            ConfigError: If it is not valid.
        """
        require(self.is_valid(candidate), "a genotype must be of the space", str(candidate))
        return candidate

    def sample(self, generator: np.random.Generator) -> MixedGenotype:
        """Draw every free variable uniformly, and repair."""
        encoding = list(self._base)
        for variable in self._variables.values():
            value = int(generator.integers(len(variable.options)))
            for place in variable.places:
                encoding[place] = value
        return self.decode(self.repair(encoding))

    def mutate(self, candidate: MixedGenotype, generator: np.random.Generator) -> MixedGenotype:
        """Return a neighbour: a variable drawn uniformly, then one of its other options."""
        return random_neighbour(self, candidate, generator)

    def neighbours(self, candidate: MixedGenotype, variable: str) -> list[MixedGenotype]:
        """Return the candidate with each other option of a variable, repaired, no two equal.

        A repair may move later levels and skips, so the distance can be more than 1.
        """
        places, encoding = self._variables[variable].places, self.encode(candidate)
        found = []
        for value in range(len(self._variables[variable].options)):
            changed = list(encoding)
            for place in places:
                changed[place] = value
            found.append(self.repair(changed))
        return [self.decode(neighbour) for neighbour in others(found, encoding)]

    def distance(self, first: MixedGenotype, second: MixedGenotype) -> int:
        """Return in how many numbers of the encoding two genotypes differ."""
        pairs = zip(self.encode(first), self.encode(second), strict=True)
        return sum(one != other for one, other in pairs)

    def to_settings(self, candidate: MixedGenotype) -> MixedBlockSettings:
        """Return the settings of a candidate's network."""
        given = self.settings
        return MixedBlockSettings(
            genotype=str(candidate), width=given.width, max_width=given.max_width
        )

    def masked(self, free: Sequence[Kind], base: MixedGenotype | None = None) -> "MixedBlockSpace":
        """Return the space with these kinds free and all others as in the base."""
        return MixedBlockSpace(self.settings, free=free, base=base or self.base)

    def _u_net(self) -> MixedGenotype:
        given = self.settings
        genotype = u_net_genotype(
            given.n_nodes, given.n_levels, block=given.blocks[0], kernel=given.kernels[0]
        )
        skips = (min(node.skip, given.n_skip_sources) for node in genotype.nodes)
        return MixedGenotype(
            tuple(
                node._replace(skip=skip) for node, skip in zip(genotype.nodes, skips, strict=True)
            )
        )

    def _options(self, node: int, kind: Kind) -> tuple[int, ...] | tuple[str, ...]:
        if kind == "block":
            return self.settings.blocks
        if kind == "kernel":
            return self.settings.kernels
        return tuple(range(self.n_options(node, kind)))

    def _free_variables(self) -> dict[str, _Variable]:
        """Name → variable with more than one option, node by node."""
        groups = {node: group for group in self.settings.tied for node in group}
        found: dict[str, _Variable] = {}
        for node in range(self.settings.n_nodes):
            for kind in self.free:
                is_tied = kind in ("block", "kernel")
                nodes = sorted(groups.get(node, (node,))) if is_tied else [node]
                options = self._options(node, kind)
                if len(options) == 1 or nodes[0] != node:
                    continue
                name = "_".join([kind, *map(str, nodes)])
                places = tuple(len(KINDS) * each + KINDS.index(kind) for each in nodes)
                found[name] = _Variable(places=places, options=options)
        return found


def level_paths(n_nodes: int, n_levels: int, *, last: int = 1) -> Iterator[tuple[int, ...]]:
    """Yield the levels of every valid chain: 835 of 10 nodes that end at level 0.

    Args:
        n_nodes: Nodes.
        n_levels: Levels.
        last: Highest level of the last node.

    Examples:
        >>> list(level_paths(3, 5, last=0))
        [(0, 0, 0), (0, 1, 0)]
    """
    paths: list[tuple[int, ...]] = [(0,)]
    while paths:
        path = paths.pop()
        if len(path) == n_nodes:
            yield path
            continue
        highest = min(path[-1] + 1, n_levels - 1, last + n_nodes - 1 - len(path))
        paths += [(*path, level) for level in range(highest, max(path[-1] - 1, 0) - 1, -1)]


def n_topologies(n_nodes: int, n_levels: int, *, n_skip_sources: int, last: int = 1) -> int:
    """Return how many valid choices of levels and skips there are (section 1.6 of the notes).

    Examples:
        >>> n_topologies(10, 5, n_skip_sources=1)
        170020
    """
    return sum(
        prod(1 + min(n_skip_sources, len(sources(path, node))) for node in range(n_nodes))
        for path in level_paths(n_nodes, n_levels, last=last)
    )

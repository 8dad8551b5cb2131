"""What a word of YAML stands for: text, a number, truth, nothing."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import yaml

TAGS = {
    "scalar": "tag:yaml.org,2002:str",
    "list": "tag:yaml.org,2002:seq",
    "mapping": "tag:yaml.org,2002:map",
    "int": "tag:yaml.org,2002:int",
}
"""Kind of node → the tag that it has by itself; of whole numbers too."""
_MOST_LETTERS = 100
"""Longer numbers are refused unread: Python takes seconds for a number of a million digits."""


class _Resolver(yaml.resolver.Resolver):
    """YAML 1.1 with numbers such as ``3e-3``, which it takes for text."""


_Resolver.yaml_implicit_resolvers = {
    first: list(resolvers)
    for first, resolvers in yaml.resolver.Resolver.yaml_implicit_resolvers.items()
}
_Resolver.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$", re.ASCII),
    list("-+0123456789."),
)
_RESOLVER = _Resolver()


def resolved_tag(word: str) -> str:
    """Return the tag of a word without quotes.

    Examples:
        >>> [resolved_tag(word).rpartition(":")[2] for word in ("acdc", "2017", "no", "3e-3", "~")]
        ['str', 'int', 'bool', 'float', 'null']
    """
    resolve: Callable[..., object] = _RESOLVER.resolve
    tag = str(resolve(yaml.ScalarNode, word, (True, False)))
    return TAGS["scalar"] if tag == "tag:yaml.org,2002:value" else tag


def _by(name: str) -> Callable[[str], Any]:
    """PyYAML's own reading of a word of a kind."""
    construct = getattr(yaml.constructor.SafeConstructor(), f"construct_yaml_{name}")

    def read(word: str) -> Any:  # noqa: ANN401 - number, truth, nothing
        if len(word) > _MOST_LETTERS and resolved_tag(word) == TAGS["int"]:
            raise OverflowError(word[:_MOST_LETTERS])
        if len(word) > _MOST_LETTERS or not word.isascii():
            raise ValueError(word[:_MOST_LETTERS])
        try:
            return construct(yaml.ScalarNode(f"tag:yaml.org,2002:{name}", word))
        except (KeyError, IndexError) as error:  # of an explicit tag, as in `!!bool maybe`
            raise ValueError(word) from error

    return read


CONSTRUCTOR: Mapping[str, Callable[[str], Any]] = {
    f"tag:yaml.org,2002:{name}": _by(name) for name in ("int", "float", "bool", "null")
}
"""Tag → reads a word; raises ValueError if it cannot be read so, OverflowError if too large."""

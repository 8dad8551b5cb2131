"""YAML files within limits: checked while they are read, before any object is built.

Size, encoding and control characters come first (`text`), then depth, aliases and number of nodes
(`nodes`), then the values, which are text, numbers, truth, nothing, lists and mappings (`values`).
"""

from iac_core.bounded_yaml.nodes import Node, compose
from iac_core.bounded_yaml.text import read_text
from iac_core.bounded_yaml.values import (
    KEY_RULE,
    Built,
    Place,
    build,
    needs_quotes,
    read_scalar,
    write,
)

__all__ = [
    "KEY_RULE",
    "Built",
    "Node",
    "Place",
    "build",
    "compose",
    "needs_quotes",
    "read_scalar",
    "read_text",
    "write",
]

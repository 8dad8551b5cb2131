"""From text to a graph of nodes, within limits on depth and on the number of nodes.

Nodes are made from the events of the parser one by one, without recursion, and what an alias would
add is counted where it stands: a text that would expand without end is refused at that line.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from iac_core.errors import ConfigError

MOST_DEPTH = 32
"""Mappings and lists within each other; the shipped sweeps have 6."""
MOST_NODES = 100_000
"""Keys and values; those behind aliases count wherever an alias stands. Shipped sweeps: 1,600."""
_PARSER: Any = getattr(
    yaml, "CSafeLoader", yaml.SafeLoader
)  # where it is there: ten times as fast


@dataclass(slots=True, kw_only=True)
class Node:
    """A scalar, list or mapping of the file.

    Attributes:
        kind: Which of them.
        tag: Tag that stands before it; None leaves it to what it looks like.
        line: From 1.
        text: Of a scalar.
        is_plain: Whether a scalar stands without quotes and tag.
        parts: Entries of a list; keys and values of a mapping in turn.
        n_nodes: Nodes of it, with what stands behind aliases.
        height: Levels of it.
        is_whole: Whether its end has been read.
    """

    kind: Literal["scalar", "list", "mapping"]
    tag: str | None
    line: int
    text: str = ""
    is_plain: bool = False
    parts: list["Node"] = field(default_factory=list)
    n_nodes: int = 1
    height: int = 1
    is_whole: bool = False

    def pairs(self) -> Iterator[tuple["Node", "Node"]]:
        """Yield keys with their values."""
        return zip(self.parts[::2], self.parts[1::2], strict=True)


def compose(text: str, where: str) -> Node | None:
    """Return the root of the only document; None if there is none.

    Args:
        text: YAML.
        where: The file, for messages.

    Raises:
        ConfigError: If it is no YAML, has a second document, is nested too deeply, has too many
            nodes, or an alias names nothing or what it stands in. The message has file and line.
    """
    try:
        return _Composer(where).compose(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(
            f"{where}:{line}: the text must be YAML",
            value=error.problem,
            way_out="mend this line",
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(
            f"{where}: the text must be YAML",
            value=" ".join(str(error).split()),
            way_out="mend it",
        ) from error


class _Composer:
    """Takes one event after the other; open lists and mappings lie on a stack."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.root: Node | None = None
        self.open: list[Node] = []
        self.named: dict[str, Node] = {}
        self.n_nodes = 0

    def compose(self, text: str) -> Node | None:
        event: Any
        for event in yaml.parse(text, Loader=_PARSER):
            line = event.start_mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
                raise self._fault(line, "a file must hold one document", "a second one", "---")
            if isinstance(event, yaml.AliasEvent):
                self._add(self._alias(str(event.anchor), line), line)
            elif isinstance(event, yaml.NodeEvent):
                self._begin(event, line)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
        return self.root

    def _begin(self, event: Any, line: int) -> None:  # noqa: ANN401 - yaml's event with a value
        tag = None if event.tag in (None, "!") else str(event.tag)
        if isinstance(event, yaml.ScalarEvent):
            is_plain = tag is None and bool(event.implicit[0])
            node = Node(kind="scalar", tag=tag, line=line, text=event.value, is_plain=is_plain)
        else:
            is_list = isinstance(event, yaml.SequenceStartEvent)
            node = Node(kind="list" if is_list else "mapping", tag=tag, line=line)
        if event.anchor is not None:
            if event.anchor in self.named:
                rule = "an anchor must stand once"
                raise self._fault(line, rule, f"&{event.anchor} again", "&" + event.anchor)
            self.named[event.anchor] = node
        if node.kind == "scalar":
            node.is_whole = True
            self._add(node, line)
        else:
            self._check(1, 1, line)
            self.open.append(node)

    def _end(self) -> None:
        node = self.open.pop()
        node.n_nodes = 1 + sum(part.n_nodes for part in node.parts)
        node.height = 1 + max((part.height for part in node.parts), default=0)
        node.is_whole = True
        if self.open:
            self.open[-1].parts.append(node)
        else:
            self.root = node

    def _add(self, node: Node, line: int) -> None:
        """Put a whole node into what is open."""
        self._check(node.n_nodes, node.height, line)
        if self.open:
            self.open[-1].parts.append(node)
        else:
            self.root = node

    def _check(self, n_nodes: int, height: int, line: int) -> None:
        self.n_nodes += n_nodes
        if self.n_nodes > MOST_NODES:
            raise ConfigError(
                f"{self.where}:{line}: a file must have at most {MOST_NODES} keys and values "
                "with all aliases written out",
                value="more",
                way_out="write it shorter, with fewer aliases",
            )
        if len(self.open) + height > MOST_DEPTH:
            raise ConfigError(
                f"{self.where}:{line}: lists and mappings must lie at most {MOST_DEPTH} deep",
                value="more",
                way_out="close some of them before this line",
            )

    def _alias(self, name: str, line: int) -> Node:
        node = self.named.get(name)
        if node is None:
            known = ", ".join(f"&{one}" for one in list(self.named)[:10]) or "none"
            raise ConfigError(
                f"{self.where}:{line}: an alias must follow its anchor",
                value=f"*{name}",
                way_out=f"anchors before it: {known}",
            )
        if not node.is_whole:
            raise ConfigError(
                f"{self.where}:{line}: an alias must not stand inside of what it names",
                value=f"*{name}, whose anchor in line {node.line} is still open",
                way_out="write it out",
            )
        return node

    def _fault(self, line: int, rule: str, found: str, what: str) -> ConfigError:
        return ConfigError(
            f"{self.where}:{line}: {rule}",
            value=found,
            way_out=f"remove {what}",
        )

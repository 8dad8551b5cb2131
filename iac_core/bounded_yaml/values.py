"""From nodes to values: text, whole and finite numbers, truth, nothing, lists and mappings."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from iac_core.bounded_yaml.nodes import Node, compose
from iac_core.bounded_yaml.resolving import CONSTRUCTOR, TAGS, resolved_tag
from iac_core.errors import ConfigError, Problem

Place = tuple[str | int, ...]
"""Keys and positions that lead to a value."""

LARGEST_WHOLE = 2**63 - 1
"""Of whole numbers anywhere: what a column of 64 bits holds."""
KEY_RULE = "a key must stand once"
_WHOLE_RULE = "a whole number must be from -2**63 + 1 to 2**63 - 1"
_SHOWN = 40
_PREFIX = "tag:yaml.org,2002:"
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
    "timestamp": "a date",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that no file may hold, and where."""

    place: Place
    problem: Problem


@dataclass(slots=True, kw_only=True)
class Built:
    """The values of a file.

    Attributes:
        value: What the root stands for; None where it could not be built.
        lines: Path of keys and positions → line, from 1.
        unquoted: Path of a value that is no text → how the file writes it, such as ``no``.
        faults: What is wrong, in the order of the file.
    """

    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    unquoted: dict[Place, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def build(root: Node, where: str) -> Built:
    """Return the values of a graph of nodes; what is wrong is noted and left out.

    Args:
        root: As `iac_core.bounded_yaml.nodes.compose` returns it.
        where: The file, for messages.
    """
    builder = _Builder(where)
    builder.built.value = builder.value_of(root, ())
    return builder.built


def read_scalar(text: str) -> Any:  # noqa: ANN401 - what YAML reads: text, number, truth, nothing
    """Return one value as a file would read it.

    Raises:
        ConfigError: If it is no YAML, or none of these.
    """
    try:
        node = compose(text, "value")
        built = Built() if node is None else build(node, "value")
    except ConfigError as error:
        raise ConfigError(
            "a value must be YAML",
            value=f"{text[:_SHOWN]!r}",
            way_out="quote it",
        ) from error
    if built.faults:
        problem = built.faults[0].problem
        raise ConfigError(
            f"{problem.rule}",
            value=problem.value,
            way_out=problem.way_out,
        )
    return built.value


def write(data: Mapping[str, Any]) -> str:
    """Return a mapping as YAML, in its own order."""
    return str(yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True))


def needs_quotes(source: str) -> str:
    """Return how to write a word that YAML takes for something else, as a way out.

    Examples:
        >>> needs_quotes("no")
        "put it in quotes: 'no'; YAML takes it for true or false"
    """
    kind = resolved_tag(source).removeprefix(_PREFIX)
    return f"put it in quotes: '{source[:_SHOWN]}'; YAML takes it for {_KINDS.get(kind, kind)}"


class _Builder:
    """Builds values; recursion is as deep as the nodes are, which is bounded."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.built = Built()

    def value_of(self, node: Node, place: Place) -> Any:  # noqa: ANN401 - plain data
        if node.kind == "scalar":
            return self._scalar(node, place)
        allowed = TAGS[node.kind]
        if node.tag not in (None, allowed):
            self._wrong_tag(node, place)
            return None
        if node.kind == "mapping":
            return self._mapping(node, place)
        found = []
        for index, part in enumerate(node.parts):
            self.built.lines[*place, index] = part.line
            found.append(self.value_of(part, (*place, index)))
        return found

    def _scalar(self, node: Node, place: Place) -> str | int | float | bool | None:
        tag = node.tag or (resolved_tag(node.text) if node.is_plain else TAGS["scalar"])
        if tag == TAGS["scalar"]:
            return self._text(node, place)
        if node.tag is None:
            self.built.unquoted[place] = node.text
        try:
            return self._number(CONSTRUCTOR[tag](node.text), node, place)
        except KeyError:
            if node.tag is None:
                rule = "a value must be text, a number, true, false or null"
                found, shown = _KINDS.get(tag.removeprefix(_PREFIX), "a sign"), _short(node.text)
                self._note(node, place, rule, f"{found}, {shown}", f"put it in quotes: '{shown}'")
            else:
                self._wrong_tag(node, place)
        except OverflowError:
            self._note(node, place, _WHOLE_RULE, _short(node.text), "write a smaller one")
        except ValueError:
            rule = f"a value that YAML takes for {_KINDS[tag.removeprefix(_PREFIX)]} must be one"
            self._note(node, place, rule, _short(node.text), "correct it, or put it in quotes")
        return None

    def _number(self, value: float | bool | None, node: Node, place: Place) -> float | bool | None:
        shown = _short(node.text)
        if isinstance(value, int) and abs(value) > LARGEST_WHOLE:
            self._note(node, place, _WHOLE_RULE, shown, "write a smaller one")
            return None
        if isinstance(value, float) and not math.isfinite(value):
            self._note(node, place, "a number must be finite", shown, "write a finite one")
            return None
        return value

    def _text(self, node: Node, place: Place) -> str:
        found = next((one for one in node.text if _is_refused(one)), None)
        if found is not None:
            rule = "text must hold no control characters"
            self._note(node, place, rule, repr(found), "remove it")
        return node.text

    def _mapping(self, node: Node, place: Place) -> dict[str, Any]:
        found = {}
        for name, (key, value) in self._pairs(node, place).items():
            self.built.lines[*place, name] = key.line
            found[name] = self.value_of(value, (*place, name))
        return found

    def _pairs(self, node: Node, place: Place) -> dict[str, tuple[Node, Node]]:
        """Name → key and value; what ``<<`` names comes after the mapping's own keys."""
        own: dict[str, tuple[Node, Node]] = {}
        merged: list[Node] = []
        for key, value in node.pairs():
            name = self._key(key, place)
            if name is None:
                continue
            is_merge = name == "<<" and key.is_plain
            first = own.get(name, (key, value))[0]
            if first is not key or (is_merge and merged):
                also = f"{name[:_SHOWN]!r} also in line {first.line}"
                self._note(key, place, KEY_RULE, also, "remove one of them")
            elif is_merge:
                merged = self._merged(value, place)
            else:
                own[name] = (key, value)
        for one in merged:  # of several, the earlier one wins
            own = {**self._pairs(one, place), **own}
        return own

    def _merged(self, value: Node, place: Place) -> list[Node]:
        """The mappings that ``<<`` names."""
        parts = value.parts if value.kind == "list" else [value]
        if all(part.kind == "mapping" for part in parts):
            return parts
        rule = "<< must name a mapping, or a list of them"
        self._note(value, place, rule, f"a {value.kind}", "write `<<: *ANCHOR`")
        return []

    def _key(self, key: Node, place: Place) -> str | None:
        """The text of a key, or None with a note."""
        if key.kind != "scalar":
            rule = "a key must be text"
            self._note(key, place, rule, f"a {key.kind}", "write `name: value` lines")
            return None
        tag = key.tag or (resolved_tag(key.text) if key.is_plain else TAGS["scalar"])
        if tag in (TAGS["scalar"], _PREFIX + "merge", _PREFIX + "value"):
            return self._text(key, place)
        kind = _KINDS.get(tag.removeprefix(_PREFIX), tag)
        shown = _short(key.text)
        self._note(
            key, place, "a key must be text", f"{kind}, {shown}", f"put it in quotes: '{shown}'"
        )
        return None

    def _wrong_tag(self, node: Node, place: Place) -> None:
        shown = (node.tag or "").replace(_PREFIX, "!!")
        rule = "a tag must be one of plain data: !!str, !!int, !!float, !!bool, !!null"
        self._note(node, place, rule, _short(shown), "leave it out")

    def _note(self, node: Node, place: Place, rule: str, value: str, way_out: str) -> None:
        problem = Problem(
            file=self.where, place=str(node.line), rule=rule, value=value, way_out=way_out
        )
        self.built.faults.append(Fault(place=place, problem=problem))


def _short(text: str) -> str:
    return text[:_SHOWN] + ("…" if len(text) > _SHOWN else "")


def _is_refused(letter: str) -> bool:
    """Whether a letter is a control character or half of a surrogate pair."""
    code = ord(letter)
    is_control = code < 32 and letter not in "\t\n\r"
    return is_control or (127 <= code < 160 and code != 0x85) or 0xD800 <= code < 0xE000

"""Look a name up in a table, or say which names are near and known."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from iac_core.errors import UnknownNameError

T = TypeVar("T")

_MOST_LETTERS = 200
_MOST_COMPARED = 2000
"""Names that are looked through for a near one: a comparison takes microseconds."""
_MOST_SHOWN = 100


def did_you_mean(name: str, known: Mapping[str, object] | list[str]) -> str:
    """Return ``"; did you mean 'x'? known: a, b, x"``, without the question if nothing is near.

    Examples:
        >>> did_you_mean("unett", ["resnet18_unet", "unet"])
        "; did you mean 'unet'? known: resnet18_unet, unet"
    """
    names = sorted(set(known))
    is_short = len(name) <= _MOST_LETTERS and len(names) <= _MOST_COMPARED
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6) if is_short else []
    question = f"did you mean {near[0]!r}? " if near else ""
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return f"; {question}known: {', '.join(names[:_MOST_SHOWN]) or 'none'}{more}"


def look_up(name: str, table: Mapping[str, T], *, what: str) -> T:
    """Return ``table[name]``.

    Args:
        name: The name as the user typed it.
        table: A registry such as ``BACKBONES``.
        what: What the table holds, in the singular, for the message ("backbone").

    Raises:
        UnknownNameError: If the name is unknown; lists near and known names.

    Examples:
        >>> look_up("unet", {"unet": 1}, what="backbone")
        1
    """
    try:
        return table[name]
    except KeyError:
        raise UnknownNameError(f"unknown {what} {name!r}{did_you_mean(name, table)}") from None


def entry_of(settings: object, table: Mapping[str, T], *, what: str) -> T:
    """Return the entry of a table whose ``Settings`` class these settings are an instance of.

    Args:
        settings: Settings of one entry.
        table: A registry of classes with a ``Settings`` attribute.
        what: What the table holds, in the singular, for the message.

    Raises:
        UnknownNameError: If no entry has such settings.
    """
    for entry in table.values():
        if getattr(entry, "Settings", None) is type(settings):
            return entry
    known = ", ".join(sorted(table))
    raise UnknownNameError(
        f"settings must be those of a {what} ({known})",
        value=type(settings).__name__,
        way_out="add it to the table",
    )

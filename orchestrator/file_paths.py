"""Paths that a sweep file names, with ``~`` and variables of the environment written out."""

import os
import re

from iac_core.errors import ConfigError

_MOST_BYTES = 4096
_MOST_BYTES_OF_A_PART = 255
_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def written_out(path: str) -> str:
    """Return a path or URL with ``~``, ``~user``, ``$NAME`` and ``${NAME}`` replaced.

    Args:
        path: As the file has it.

    Raises:
        ConfigError: If it is empty, longer than file systems allow, or names a variable that is
            not set or a home that is not known.

    Examples:
        >>> written_out("/data/ACDC")
        '/data/ACDC'
    """
    if not path.strip():
        raise ConfigError(
            "a path must not be empty",
            value=repr(path),
            way_out="name a folder or leave it out",
        )
    found = _VARIABLE.sub(_variable, path)
    if found.startswith("~"):
        found = os.path.expanduser(found)
        if found.startswith("~"):
            home = found.split("/", 1)[0]
            raise ConfigError(
                "a path must begin with a home that is known",
                value=home,
                way_out="write the whole path",
            )
    parts = [len(os.fsencode(part)) for part in found.split("/")]
    if max(parts) > _MOST_BYTES_OF_A_PART or sum(parts) + len(parts) > _MOST_BYTES:
        raise ConfigError(
            f"a path must have at most {_MOST_BYTES_OF_A_PART} bytes between two slashes and "
            f"{_MOST_BYTES} in all",
            value=f"{found[:60]}…",
            way_out="shorten it",
        )
    return found


def _variable(match: re.Match[str]) -> str:
    name = match[1] if match[1] is not None else match[2]
    value = os.environ.get(name, "")
    if not value:
        state = "an empty one" if name in os.environ else "none of that name"
        raise ConfigError(
            f"a path's variable {match[0]} must be set",
            value=state,
            way_out=f"`export {name}=…`, or write the path out",
        )
    return value

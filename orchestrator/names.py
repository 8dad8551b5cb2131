"""Names that a sweep file gives: parts of paths, tables and runs of MLflow, so slugs.

Names of sweeps, data sets, backbones and arms are chosen in the file and stand in file names, so
they are held to plain letters. The name of an MLflow experiment may be that of one which exists
already, on a server with rules of its own: it is free text, and `results.escaping.file_name`
encodes it where a folder is named after it.
"""

import re
from collections.abc import Iterable

MOST_LETTERS = 64
"""Of a name: file names that hold three of them stay below the 255 bytes of file systems."""
MOST_LETTERS_OF_AN_EXPERIMENT = 250
RESERVED: tuple[str, ...] = ("data", "mlartifacts", "mlruns", "store")
"""Folders of the runs folder that are no sweep's."""
NAME_RULE = (
    f"a name must be at most {MOST_LETTERS} letters a to z, A to Z, digits, _, - and ., the first "
    "one a letter or digit"
)
SWEEP_RULE = (
    "name must be lower-case letters, digits, _ and -, the first one a letter or digit, at most "
    f"{MOST_LETTERS}"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SWEEP = re.compile(r"[a-z0-9][a-z0-9_-]*")


def is_name(name: str) -> bool:
    """Return whether a data set, a backbone or an arm may be called so.

    Examples:
        >>> is_name("js_stability-2.5"), is_name("x/../../y"), is_name("..")
        (True, False, False)
    """
    return len(name) <= MOST_LETTERS and _NAME.fullmatch(name) is not None


def is_sweep_name(name: str) -> bool:
    """Return whether a sweep may be called so, reserved names aside."""
    return len(name) <= MOST_LETTERS and _SWEEP.fullmatch(name) is not None


def same_but_for_case(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return names that differ in the case of letters alone: one file on many disks.

    Examples:
        >>> same_but_for_case(["unet", "UNet", "wide"])
        [('unet', 'UNet')]
    """
    first: dict[str, str] = {}
    found = []
    for name in names:
        other = first.setdefault(name.lower(), name)
        if other != name:
            found.append((other, name))
    return found

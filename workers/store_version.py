"""The version of a store's form, in a file at its root: a later one is refused in words."""

from files.encoding import to_json
from files.reading import value_or_none
from iac_core.errors import ConfigError
from workers.places import Place

STAMP = "store.json"
VERSION = 1
"""Raised when an older version of the project could misread what this one writes."""


def check_version(place: Place, *, writes: bool) -> None:
    """Compare the version of a store with this project's; stamp a store that has none.

    A store of before there were stamps is adopted; so is one whose stamp is damaged.

    Args:
        place: The store's.
        writes: Whether the store may be written to.

    Raises:
        ConfigError: If a later version of the project wrote it.
    """
    raw = place.read(STAMP)
    name = f"{place.root}/{STAMP}"
    found = None if raw is None else value_or_none(raw, dict, name=name)
    version = None if found is None else found.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ConfigError(
            f"store must be of version {VERSION} or older",
            value=f"version {version} in {name}",
            way_out=(
                "a later version of this project wrote it: install that one, or set `store` to "
                "another folder"
            ),
        )
    if isinstance(version, int) or not writes:
        return
    stamp = to_json({"version": VERSION})
    if raw is None:
        place.create(STAMP, stamp)  # of several processes one does it; all write the same
    else:
        place.write(STAMP, stamp)

"""What libraries expect of a machine, where it lacks it: a home, short paths for sockets."""

import os
import secrets
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from iac_core.errors import ConfigError

LONGEST_SOCKET_PATH = 107
"""Bytes of the path of a Unix socket on Linux."""
_RAY_SOCKET = "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1"
_OF_HOME = {"MPLCONFIGDIR": "matplotlib", "NUMBA_CACHE_DIR": "numba"}


def is_home_writable() -> bool:
    """Return whether files can be made in the home folder; rights alone do not tell."""
    try:
        with tempfile.TemporaryDirectory(dir=Path.home(), prefix=".iac-"):
            return True
    except (OSError, RuntimeError):
        return False


def replace_home(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let libraries keep caches and Ray its token elsewhere if the home cannot be written.

    What the user has set stays.

    Args:
        environment: Variables, changed in place.
    """
    if is_home_writable():
        return
    folder = Path(tempfile.gettempdir()) / f"iac-home-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            folder = Path(tempfile.mkdtemp(prefix="iac-home-"))
    except OSError:
        return
    for variable, name in _OF_HOME.items():
        environment.setdefault(variable, str(folder / name))
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & environment.keys():
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def ray_folder() -> str | None:
    """Return a folder for Ray's sessions whose sockets have paths short enough; None is its own.

    Raises:
        ConfigError: If there is none that can be written.
    """
    wanted = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray"
    if _is_short(wanted):
        return None
    for parent in ("/tmp", "/var/tmp", "/dev/shm"):
        folder = Path(parent) / f"ray-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK) and folder.stat().st_uid == os.getuid():
            return str(folder)
    longest = LONGEST_SOCKET_PATH - len(_RAY_SOCKET) - len("/ray")
    raise ConfigError(
        f"the folder of temporary files must have a path of at most {longest} bytes for Ray's "
        "sockets",
        value=wanted.parent,
        way_out="set RAY_TMPDIR or TMPDIR to a shorter one, or run --inline",
    )


def _is_short(folder: Path) -> bool:
    return len(os.fsencode(folder)) + len(_RAY_SOCKET) <= LONGEST_SOCKET_PATH

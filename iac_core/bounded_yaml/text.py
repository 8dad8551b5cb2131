"""The text of a small file, or why it is none."""

import codecs
import re
from pathlib import Path

from iac_core.errors import ConfigError

MOST_MIB = 4
"""Size of a file that is read at all; the shipped sweeps have less than 0.02 MiB."""
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")
_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: Path, *, what: str) -> str:
    """Return the text of a file; a byte order mark of UTF-8 is left out.

    Args:
        path: The file.
        what: What it is, for the message ("sweep file").

    Raises:
        ConfigError: If it is missing, no regular file, too large, not UTF-8 or holds control
            characters. The message starts with the file, and the line where there is one.
    """
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "a device or pipe"
            raise ConfigError(
                f"{path}: the {what} must be a file",
                value=kind,
                way_out="name the file",
            )
        with path.open("rb") as file:
            raw = file.read(MOST_MIB * 2**20 + 1)
    except OSError as error:
        raise ConfigError(
            f"{path}: the {what} must exist and be readable",
            value=error.strerror,
            way_out="correct the path",
        ) from error
    if len(raw) > MOST_MIB * 2**20:
        raise ConfigError(
            f"{path}: the {what} must have at most {MOST_MIB} MiB",
            value="more",
            way_out="name another file",
        )
    return _decoded(raw, path, what)


def _decoded(raw: bytes, path: Path, what: str) -> str:
    for mark, name in _OTHER_ENCODINGS.items():
        if raw.startswith(mark):
            raise ConfigError(
                f"{path}:1: the {what} must be UTF-8",
                value=name,
                way_out="save it as UTF-8",
            )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: the {what} must be UTF-8",
            value=f"the byte 0x{raw[error.start]:02x}",
            way_out="save it as UTF-8",
        ) from error
    found = _CONTROL.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        many = " (is it UTF-16?)" if text.count("\x00") > len(text) // 4 else ""
        raise ConfigError(
            f"{path}:{line}: the {what} must hold no control characters",
            value=f"{found[0]!r}{many}",
            way_out="remove it",
        )
    return text

"""Where the commands write: what was asked for, and what is said beside it; never a secret."""

import sys
from typing import IO, Any, cast

from rich.console import Console

from addresses.redaction import redact


class _RedactedStream:
    """Standard output or error as it is when something is written, without secrets.

    Args:
        name: ``stdout`` or ``stderr``.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def write(self, text: str) -> int:
        """Write a text without its secrets."""
        return self._stream.write(redact(text))

    @property
    def _stream(self) -> IO[str]:
        stream = getattr(sys, self._name)
        # While a live view stands, rich has put itself in the place of the streams.
        return cast("IO[str]", getattr(stream, "rich_proxied_file", stream))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)


out = Console(
    file=cast("IO[str]", _RedactedStream("stdout")), width=None if sys.stdout.isatty() else 160
)
err = Console(file=cast("IO[str]", _RedactedStream("stderr")), stderr=True)

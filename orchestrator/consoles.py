"""Where the commands write: what was asked for, and what is said beside it."""

import sys

from rich.console import Console

out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True)

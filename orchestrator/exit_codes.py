"""How commands end. 0: all that was asked is done and reported."""

EXIT_FAILED = 1
"""Something failed, or no report was written."""
EXIT_BAD_INPUT = 2
"""Nothing was started."""
EXIT_STOPPED = 130
"""By Ctrl-C or SIGTERM."""

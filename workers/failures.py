"""What kinds of failure there are, and which of them another try can mend.

===============  =============================================  ============================
kind             what happened                                  what follows
===============  =============================================  ============================
``disk_full``    a write found no room                          tried again, after a pause
``host_memory``  the machine ran out of memory                  tried again, alone on it
``gpu_memory``   the GPU ran out of memory                      again, whole GPU, half a batch
``lost``         the process or its host died                   tried again
``store_away``   the store did not answer                       tried again, after a pause
``damaged``      a stage that it builds on has a damaged file   that one is made anew
``timeout``      it took longer than ``timeout_min``            the job fails; it goes on later
``not_finite``   a loss or a gradient was not finite            the job fails
``data``         the data folder breaks a rule                  the job fails
``setting``      a setting does not fit                         the job fails
``code``         anything else that was raised                  the job fails
``quarantined``  too many attempts in vain, over all runs       not tried, unless told to
===============  =============================================  ============================
"""

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from iac_core.errors import ConfigError, DataError, NotFiniteError, ShapeError
from workers.places import StoreAwayError, cache_folder
from workers.stage_record import DamagedStageError

FailureKind = Literal[
    "disk_full",
    "host_memory",
    "gpu_memory",
    "lost",
    "store_away",
    "timeout",
    "not_finite",
    "data",
    "setting",
    "code",
    "quarantined",
    "damaged",
]
TRIES: dict[FailureKind, int] = {
    "disk_full": 3,
    "host_memory": 1,
    "gpu_memory": 3,
    "lost": 3,
    "store_away": 3,
    "damaged": 3,
}
"""Kind → how often a failed stage is tried again in one run; kinds that are missing never are."""
OF_THE_JOB: frozenset[FailureKind] = frozenset(
    {"gpu_memory", "timeout", "not_finite", "setting", "code"}
)
"""Kinds that are a job's own: another machine or another day would not mend them."""
_KINDS: tuple[tuple[type[Exception], FailureKind], ...] = (
    (DataError, "data"),
    (NotFiniteError, "not_finite"),
    (ShapeError, "code"),
    (ConfigError, "setting"),
)
_NO_FAULT = ("disk_full", "damaged")
PAUSE_S: dict[FailureKind, float] = {"disk_full": 5.0, "store_away": 10.0}
"""Kind → seconds before the first further try; each further one waits twice as long."""


def kind_of(error: BaseException) -> FailureKind:
    """Return what kind of failure an exception is; what caused it counts too.

    Examples:
        >>> kind_of(OSError(errno.ENOSPC, "No space left on device"))
        'disk_full'
        >>> kind_of(ZeroDivisionError())
        'code'
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return "disk_full"
        if isinstance(seen, torch.cuda.OutOfMemoryError):
            return "gpu_memory"
        if isinstance(seen, MemoryError):
            return "host_memory"
        if isinstance(seen, DamagedStageError):
            return "damaged"
        if isinstance(seen, StoreAwayError) or _is_gone_from_cache(seen):
            return "store_away"
        seen = seen.__cause__ or seen.__context__
    return next((kind for of, kind in _KINDS if isinstance(error, of)), "code")


def vain_attempts(attempts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the attempts since a stage last got further: those that failed or died in vain.

    An attempt that reported an epoch beyond all attempts before it was not in vain, however it
    ended: what dies with its machines again and again but advances comes to its end. Attempts that
    were stopped or preempted do not count, nor do a full disk and a damaged stage before it, which
    are no fault of the stage.

    Args:
        attempts: As `workers.stage_store.StageStore.attempts` returns them, oldest first, without
            one that is running.

    Examples:
        >>> died = {"outcome": "lost", "epoch": 4}
        >>> stopped = {"outcome": "stopped", "epoch": 4}
        >>> len(vain_attempts([died, died, stopped, died]))
        2
        >>> vain_attempts([died, died, died | {"epoch": 5}])
        []
    """
    found: list[Mapping[str, Any]] = []
    furthest = 0
    for attempt in attempts:
        if attempt["epoch"] > furthest:
            furthest = attempt["epoch"]
            found = []
        elif attempt["outcome"] in ("failed", "lost") and attempt.get("kind") not in _NO_FAULT:
            found.append(attempt)
    return found


def _is_gone_from_cache(error: BaseException) -> bool:
    """Whether a file is missing that this host kept for a store in a bucket."""
    if not isinstance(error, FileNotFoundError) or not error.filename:
        return False
    return Path(str(error.filename)).is_relative_to(cache_folder())

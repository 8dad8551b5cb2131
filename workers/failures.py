"""What kinds of failure there are, and which of them another try can mend.

==============  =================================================  =====================
kind            what it is                                         tries after the first
==============  =================================================  =====================
``disk_full``   no space left where stages or temporary files lie  3, after a pause
``host_memory`` the machine, or Ray on its behalf, was out of it   1
``gpu_memory``  the GPU was out of it                              1
``lost``        worker or node died again and again                1
``store_away``  the bucket of the stages did not answer, or its    3, after a pause
                copies on the host were removed
``not_finite``  a loss or divergence is no number                  0: the seed fixes it
``data``        a file is wrong                                    0: the file must change
``setting``     a setting does not fit                             0
``code``        anything else                                      0
==============  =================================================  =====================
"""

import errno
from pathlib import Path
from typing import Literal

import torch

from iac_core.errors import ConfigError, DataError, SearchError, ShapeError
from workers.places import StoreAwayError, cache_folder

FailureKind = Literal[
    "disk_full",
    "host_memory",
    "gpu_memory",
    "lost",
    "store_away",
    "not_finite",
    "data",
    "setting",
    "code",
]
TRIES: dict[FailureKind, int] = {
    "disk_full": 3,
    "host_memory": 1,
    "gpu_memory": 1,
    "lost": 1,
    "store_away": 3,
}
"""Kind → how often a failed stage is tried again in one run; kinds that are missing never are."""
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
        if isinstance(seen, StoreAwayError) or _is_gone_from_cache(seen):
            return "store_away"
        seen = seen.__cause__ or seen.__context__
    if isinstance(error, SearchError) and "finite" in str(error):
        return "not_finite"
    if isinstance(error, DataError):
        return "data"
    if isinstance(error, ShapeError):
        return "code"
    if isinstance(error, ConfigError):
        return "setting"
    return "code"


def _is_gone_from_cache(error: BaseException) -> bool:
    """Whether a file is missing that this host kept for a store in a bucket."""
    if not isinstance(error, FileNotFoundError) or not error.filename:
        return False
    return Path(str(error.filename)).is_relative_to(cache_folder())

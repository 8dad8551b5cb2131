"""The journal file of a study: Optuna's, with checksums, and a torn end cut before it grows."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.storages.journal._file import get_lock_file

from files.encoding import DamagedError
from files.journal import checked, cut_torn_end, first_damage, line_of


class CheckedJournal(JournalFileBackend):  # type: ignore[misc]
    """Optuna's journal file.

    Args:
        path: The file.

    Raises:
        DamagedError: If a line before the last one is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._own_lock = path, JournalFileSymlinkLock(str(path))
        super().__init__(str(path), self._own_lock)
        found = first_damage(path)
        if found is not None:
            number, rule = found
            raise DamagedError(f"{path}: line {number}: it {rule}")

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add lines after the last whole one."""
        with get_lock_file(self._own_lock):
            cut_torn_end(self._path)
            with self._path.open("ab") as file:
                file.write(b"".join(map(line_of, logs)))
                file.flush()
                os.fsync(file.fileno())

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the entries of whole lines, as they were written.

        Raises:
            DamagedError: If one is not.
        """
        for number, entry in enumerate(super().read_logs(log_number_from), log_number_from + 1):
            try:
                yield checked(entry)
            except DamagedError as error:
                raise DamagedError(f"{self._path}: line {number}: it {error}") from error

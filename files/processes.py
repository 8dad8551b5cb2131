"""Which process wrote something, and whether it has ended: the only file that looks processes up.

A process is known by its machine (boot and process namespace), its number there, and its start in
ticks of the kernel since the boot. Ticks do not move when the wall clock is set; a number that is
used again has another start; two containers on one host have namespaces of their own, so that
neither takes the other's processes for its own. On systems without ``/proc`` the start is what
psutil says.
"""

import functools
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_PROC = Path("/proc")
_STATE, _START = 0, 19
"""Fields 3 and 22 of ``/proc/PID/stat``, counted from behind the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """What tells a process from all others.

    Attributes:
        machine: Boot and process namespace; two processes share it only if each sees the other.
        pid: Its number there.
        start: Its start: ticks since the boot; elsewhere than on Linux hundredths of a second.
    """

    machine: str
    pid: int
    start: int

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> "ProcessIdentity | None":
        """Return the identity in a note; None if the note has none, or one of another form."""
        found = raw.get("machine"), raw.get("pid"), raw.get("start")
        machine, pid, start = found
        if isinstance(machine, str) and type(pid) is int and type(start) is int and pid > 0:
            return cls(machine=machine, pid=pid, start=start)
        return None

    @property
    def is_gone(self) -> bool:
        """Whether it is known to have ended: it ran on this machine, and does no more."""
        if self.machine != machine() or not self.machine:
            return False
        if not psutil.pid_exists(self.pid):
            return True
        start = start_of(self.pid)
        # None: it ended this moment, or it is another user's that this one must not see.
        return start is not None and start != self.start


def own_identity() -> ProcessIdentity:
    """Return the identity of this process."""
    pid = os.getpid()
    return ProcessIdentity(machine=machine(), pid=pid, start=start_of(pid) or 0)


def start_of(pid: int) -> int | None:
    """Return when a process started; −1 if it is a zombie, None if it cannot be looked at.

    Args:
        pid: Its number in this namespace.
    """
    if not _is_linux():
        return _start_by_psutil(pid)
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The name stands in brackets and may hold blanks and brackets.
    fields = stat[stat.rindex(b")") + 1 :].split()
    return -1 if fields[_STATE] in (b"Z", b"X") else int(fields[_START])


def machine() -> str:
    """Return what two processes share only if each sees the other; empty if that is unknown."""
    if not _is_linux():
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"
    try:
        return f"{_boot()} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return ""


def _is_linux() -> bool:
    return (_PROC / "self/stat").exists()


@functools.cache
def _boot() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _start_by_psutil(pid: int) -> int | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return -1
        return round(100.0 * float(process.create_time()))
    except psutil.Error:
        return None

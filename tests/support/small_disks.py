"""Disks of a test's own: small, full, or closed."""

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(folder: Path, *words: str):
    """A file system for a while; a skip where this user may mount none."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    if mount is None or os.getuid() != 0:
        pytest.skip("a disk of its own takes root and mount")
    done = subprocess.run([mount, *words, str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no mount here: {done.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def small_disk(folder: Path, size: str):
    return mounted(folder, "-t", "tmpfs", "-o", f"size={size}", "tmpfs")


def fill(folder: Path) -> Path:
    """Leave no room on a disk; the file that takes it all."""
    file = folder / "filler"
    with file.open("wb") as filler:
        filler.write(bytes(shutil.disk_usage(folder).free))
    return file


@contextmanager
def read_only(folder: Path):
    """A folder of which even root can only read."""
    with mounted(folder, "--bind", str(folder)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield folder

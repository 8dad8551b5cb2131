"""Run a command of nnU-Net in a process of its own, and end it when the stage ends."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from files.writing import write_json
from iac_core.errors import ConfigError, NnunetError, StopRequested
from iac_core.types import Reporter

LOG = "nnunet.log"
PROGRESS = "nnunet_progress.jsonl"
_ORDER = "nnunet_order.json"
_SECONDS_BETWEEN_LOOKS = 0.3
_SECONDS_TO_END = 30
_LINES_OF_ERROR = 25
_OUT_OF_MEMORY = re.compile(r"OutOfMemoryError|CUDA out of memory")


def require_nnunet() -> None:
    """Stop where nnU-Net is not installed.

    Raises:
        ConfigError: If it is not.
    """
    if importlib.util.find_spec("nnunetv2") is None:
        raise ConfigError(
            "nnU-Net must be installed for the backbone nnunet",
            value="no nnunetv2",
            way_out="run `pip install .[nnunet]`",
        )


def run_apart(
    command: Literal["plan", "train"],
    order: Mapping[str, Any],
    folder: Path,
    *,
    places: Mapping[str, Path],
    n_processes: int,
    reporter: Reporter,
) -> None:
    """Run a command of `iac_core.nnunet.commands` to its end.

    The other process ends as soon as its input is closed, so it never outlives this one. Its
    output goes to ``nnunet.log`` in the folder.

    Args:
        command: Which.
        order: What it needs: plain values.
        folder: Of the stage.
        places: ``raw``, ``preprocessed`` and ``results``: nnU-Net's folders.
        n_processes: How many processes nnU-Net may start for planning; training augments with as
            many, or in its own process if 1 (environment ``nnUNet_n_proc_DA`` overrules that).
        reporter: Told of every epoch; asked whether to stop.

    Raises:
        ConfigError: If nnU-Net is not installed, or what it planned does not fit into the GPU.
        NnunetError: If the command fails otherwise; with the last lines of its output.
        StopRequested: If the user asked to stop.
    """
    require_nnunet()
    path = folder / _ORDER
    write_json(path, {"command": command, **order}, is_durable=False)
    progress = _Progress(folder / PROGRESS, reporter)
    n_to_augment = os.environ.get("nnUNet_n_proc_DA", str(n_processes if n_processes > 1 else 0))
    environment = {
        "nnUNet_compile": "f",
        **os.environ,
        **{f"nnUNet_{name}": str(place) for name, place in places.items()},
        "nnUNet_def_n_proc": str(n_processes),
        # Planning takes it for a number of threads, and zero is none to it.
        "nnUNet_n_proc_DA": n_to_augment if command == "train" else "1",
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "MPLBACKEND": "agg",
    }
    arguments = [sys.executable, "-m", "iac_core.nnunet.commands", str(path)]
    with (folder / LOG).open("ab") as log, _process(arguments, environment, log) as process:
        while True:
            try:
                process.wait(timeout=_SECONDS_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                progress.report()
                if reporter.should_stop():
                    raise StopRequested(f"nnU-Net's {command} stopped") from None
            else:
                break
    progress.report()
    if process.returncode:
        lines = (folder / LOG).read_text(errors="replace").splitlines()[-_LINES_OF_ERROR:]
        if any(_OUT_OF_MEMORY.search(line) for line in lines):
            raise ConfigError(
                f"nnU-Net's {command} must fit into the GPU's memory",
                value="out of memory",
                way_out=(
                    "plan for less with gpu_memory_gb of the backbone nnunet (its batches are its "
                    "own and are not cut); its last lines:\n" + "\n".join(lines)
                ),
            )
        raise NnunetError(
            f"nnU-Net's {command} must end without an error, got exit status "
            f"{process.returncode}; its last lines:\n" + "\n".join(lines)
        )
    path.unlink()


@contextmanager
def _process(
    arguments: list[str],
    environment: Mapping[str, str],
    log: Any,  # noqa: ANN401 - a file
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has ended when the context does."""
    process = subprocess.Popen(
        arguments, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Progress:
    """Hands the lines that the command adds to its file to the reporter."""

    def __init__(self, path: Path, reporter: Reporter) -> None:
        self.path, self.reporter, self.n_bytes = path, reporter, 0
        path.unlink(missing_ok=True)

    def report(self) -> None:
        """Report what is new."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.n_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.n_bytes += len(line)
                self.reporter.progress(**json.loads(line))

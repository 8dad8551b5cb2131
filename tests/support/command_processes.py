"""The command line in processes that start fast: a server imports it once and is forked."""

import contextlib
import multiprocessing
import os
import signal
import sys
import traceback
from pathlib import Path

_context = multiprocessing.get_context("forkserver")


def run_command(words, log: Path, *, ends_at=None) -> tuple[int, str]:
    """Run the command line in a new process; its exit status and all that it wrote.

    Args:
        words: As a user types them, without the name of the program.
        log: Where it writes.
        ends_at: ``(how, kind of stage, epoch)``: the process is killed, or asked to stop, when
            that kind of stage has reported that epoch.
    """
    _context.set_forkserver_preload(["commands_preload"])
    process = _context.Process(target=_run, args=(list(map(str, words)), str(log), ends_at))
    process.start()
    process.join(300)
    assert process.exitcode is not None, "the command hangs"
    return process.exitcode, log.read_text(errors="replace")


def _run(words, log, ends_at):
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2):
        os.dup2(descriptor, number)
    sys.argv = ["orchestrator", *words]
    if ends_at is not None:
        _end_at(*ends_at)
    from orchestrator import cli

    status = 0
    try:
        cli.main()
    except SystemExit as end:
        status = end.code or 0
    except BaseException:  # noqa: BLE001 - what a user would see
        traceback.print_exc()
        status = 99
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(ValueError):
            stream.flush()
    os._exit(status)


def _end_at(how, kind, epoch):
    from workers.reporting import FileReporter

    whole, asks = FileReporter.progress, FileReporter.should_stop

    def progress(self, **values):
        whole(self, **values)
        if how == "killed" and (self._attempt.kind, values["epoch"]) == (kind, epoch):
            os.kill(os.getpid(), signal.SIGKILL)

    def should_stop(self):
        if how == "stopped" and (self._attempt.kind, self.last_epoch) == (kind, epoch):
            self._stop_file.parent.mkdir(parents=True, exist_ok=True)
            self._stop_file.touch()
        return asks(self)

    FileReporter.progress, FileReporter.should_stop = progress, should_stop

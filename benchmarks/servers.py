"""Real servers on loopback that can be killed and started again: MLflow's, PostgreSQL's."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_PATIENCE_S = 120.0


class Server(ABC):
    """A process that listens on a free port of loopback; a context manager.

    Its end is a SIGKILL: nothing is flushed, nobody is told.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: If it never does.
        """

    def kill(self) -> None:
        """End it and all that it started, at once."""
        if self._process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            family = [parent, *parent.children(recursive=True)]
            parent.suspend()  # so that it starts no more children
            for process in reversed(family):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            psutil.wait_procs(family, timeout=10)
        self._process.wait()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def _wait(self, name: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            assert self._process is not None
            if self._process.poll() is not None:
                raise RuntimeError(f"{name} ended at once, exit code {self._process.returncode}")
            time.sleep(0.2)
        raise RuntimeError(f"{name} does not answer")


class MlflowServer(Server):
    """MLflow's tracking server, artifacts included.

    Args:
        folder: For its artifacts, and for its SQLite file if it has no other database.
        database: URI of its database; None is the SQLite file.
    """

    def __init__(self, folder: Path, database: str | None = None) -> None:
        super().__init__()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._database = database or f"sqlite:///{folder / 'mlflow.db'}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
                "--port", str(self.port), "--workers", "1",
                "--backend-store-uri", self._database,
                "--artifacts-destination", str(self._folder / "mlartifacts"),
            ],
            # Its seven processes for jobs of its own, which nobody here submits, stay away.
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._wait("MLflow's server")


class PostgresServer(Server):
    """PostgreSQL with an empty database in a folder of its own, which ends with it.

    Raises:
        FileNotFoundError: If PostgreSQL is not installed (Debian's package ``postgresql``).
    """

    def __init__(self) -> None:
        super().__init__()
        self._programs = _postgres_programs()
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        # It refuses to run as root.
        self._user = "postgres" if os.getuid() == 0 else None
        if self._user:
            shutil.chown(self.folder, self._user)
        self._run(
            "initdb", "-D", str(self.folder / "data"), "-U", "iac", "-A", "trust", "-E", "UTF8"
        )

    def uri(self, name: str) -> str:
        """Return the SQLAlchemy URI of a database."""
        return f"postgresql+psycopg://iac@127.0.0.1:{self.port}/{name}"

    def create(self, name: str) -> str:
        """Make a database and return its URI."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "iac", name)
        return self.uri(name)

    def start(self) -> None:
        """Start it and wait until it takes connections; after a kill it recovers first."""
        words = ["-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder)]
        self._process = subprocess.Popen(
            [str(self._programs / "postgres"), *words, "-c", "listen_addresses=127.0.0.1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            user=self._user, cwd=self.folder,
        )  # fmt: skip
        self._wait("PostgreSQL")
        ready = [str(self._programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + _PATIENCE_S
        while subprocess.run([*ready, "-q"], check=False).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL does not recover")
            time.sleep(0.2)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [str(self._programs / program), *words],
            user=self._user, cwd=self.folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip


def _postgres_programs() -> Path:
    """Folder of PostgreSQL's programs; Debian keeps the server's off the path."""
    found = shutil.which("postgres")
    if found:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not folders:
        raise FileNotFoundError("PostgreSQL is not installed")
    return folders[-1].parent


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

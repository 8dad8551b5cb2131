"""A server of buckets on a free port of the loopback: moto's, in a process of its own.

Its requests are handled one at a time: moto looks whether an object exists before it creates it,
which is not the one step that a conditional write must be.
"""

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

SECRET = "a-secret-that-nobody-may-print"


class S3Server:
    """The running server.

    Args:
        is_careless: Whether it ignores the condition of a conditional write, as old servers do.
    """

    def __init__(self, *, is_careless: bool = False) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = ["careless"] if is_careless else []
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(self.port), *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                break
            except OSError:
                assert self.process.poll() is None, "the server of buckets ended"
                assert time.monotonic() < deadline, "the server of buckets did not come up"
                time.sleep(0.1)

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stop(self) -> None:
        """End it; what it held is lost."""
        self.process.kill()
        self.process.wait()


class Door:
    """A port in front of a server that can be shut: connections are then closed at once.

    Args:
        port: Of the server.
    """

    def __init__(self, port: int) -> None:
        self.is_open = True
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._live: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        """Let nobody in, and throw out who is inside."""
        self.is_open = False
        for side in list(self._live):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        """Let everybody in again."""
        self.is_open = True

    def close(self) -> None:
        """Give the port back."""
        self.shut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.is_open:
                client.close()
                continue
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._live |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                target.sendall(data)
        for side in (source, target):
            self._live.discard(side)
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        source.close()


def objects():
    """A client of the server that the environment names."""
    import s3fs

    return s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], use_listings_cache=False)


def new_bucket() -> str:
    """Create a bucket; return its name."""
    name = f"stages-{uuid.uuid4().hex[:12]}"
    objects().call_s3("create_bucket", Bucket=name)
    return name


def serve(port: int, *, is_careless: bool) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    application = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def locked(environ, start_response):
        if is_careless:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with one_at_a_time:
            return list(application(environ, start_response))

    run_simple("127.0.0.1", port, locked, threaded=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]), is_careless="careless" in sys.argv)

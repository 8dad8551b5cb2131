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
from pathlib import Path

SECRET = "a-secret-that-nobody-may-print"


class S3Server:
    """The running server.

    Args:
        port: Where it listens; a free one unless given.
    """

    def __init__(self, port: int = 0) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), str(self.port)],
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


def objects():
    """A client of the server that the environment names."""
    import s3fs

    return s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], use_listings_cache=False)


def new_bucket() -> str:
    """Create a bucket; return its name."""
    name = f"stages-{uuid.uuid4().hex[:12]}"
    objects().call_s3("create_bucket", Bucket=name)
    return name


def serve(port: int) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    application = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def locked(environ, start_response):
        with one_at_a_time:
            return list(application(environ, start_response))

    run_simple("127.0.0.1", port, locked, threaded=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))

"""Hosts of a small cluster on one machine: network namespaces with addresses of their own.

Each also has processes and a Ray folder of its own, so that nothing but the network and the shared
disk connects them.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil

RAY = Path(sys.executable).parent / "ray"
PORT = 6379
NETWORK = "10.77.0"
BRIDGE = "iac-test"


def why_not():
    """Why this machine cannot make hosts; empty if it can."""
    if os.getuid() != 0:
        return "network namespaces take root"
    missing = [name for name in ("ip", "unshare", "nsenter") if not shutil.which(name)]
    if missing:
        return f"missing commands: {' '.join(missing)}"
    done = subprocess.run(
        ["ip", "netns", "add", f"{BRIDGE}-try"], capture_output=True, check=False
    )
    if done.returncode:
        return "this machine makes no network namespaces"
    subprocess.run(["ip", "netns", "del", f"{BRIDGE}-try"], check=True)
    return ""


class Host:
    """One host: its address, and Ray started on it."""

    def __init__(self, number, *, environment):
        self.address = f"{NETWORK}.{number + 1}"
        self.name, self._link = f"{BRIDGE}{number}", f"iacv{number}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0",
            "netns", self.name)  # fmt: skip
        run("ip", "link", "set", self._link, "master", BRIDGE, "up")
        for words in (
            ("link", "set", "lo", "up"), ("link", "set", "eth0", "up"),
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
        ):  # fmt: skip
            run("ip", "-n", self.name, *words)
        self.environment = environment
        self._outer = subprocess.Popen(
            [
                "ip", "netns", "exec", self.name, "unshare", "--pid", "--fork", "--mount",
                "--mount-proc", "sh", "-c",
                "mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray && exec sleep 1000000",
            ],
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while not (inner := psutil.Process(self._outer.pid).children()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        self._inner = inner[0]
        while self._inner.name() != "sleep":
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def words(self, *command):
        """Words that run a command on this host."""
        inside = ("nsenter", "-t", str(self._inner.pid), "-p", "-m", "-n", "--")
        return [*inside, *map(str, command)]

    def start_ray(self, head):
        """Start Ray's processes, as the head or as one of its workers."""
        where = ("--head", f"--port={PORT}", "--include-dashboard=false")
        if head is not self:
            where = (f"--address={head.address}:{PORT}",)
        run(
            *self.words(
                RAY, "start", *where, "--num-cpus=1", f"--node-ip-address={self.address}",
                "--disable-usage-stats",
            ),
            env=self.environment,
        )  # fmt: skip

    def cut_off(self):
        """Take the host off the network; its processes go on."""
        run("ip", "link", "set", self._link, "down")

    def kill(self):
        """End every process of the host at once."""
        self._inner.kill()
        self._outer.wait()

    def remove(self):
        """Leave nothing behind."""
        if self._outer.poll() is None:
            self.kill()
        subprocess.run(["ip", "link", "del", self._link], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


class Network:
    """A bridge with some hosts; a context manager."""

    def __init__(self, n_hosts, *, environment):
        self._n_hosts, self._environment, self.hosts = n_hosts, environment, []

    def __enter__(self):
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "link", "set", BRIDGE, "up")
        for number in range(self._n_hosts):
            self.hosts.append(Host(number, environment=self._environment))
        return self.hosts

    def __exit__(self, *error):
        for host in self.hosts:
            host.remove()
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True, check=False)


def run(*words, env=None):
    done = subprocess.run(
        list(map(str, words)), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}"

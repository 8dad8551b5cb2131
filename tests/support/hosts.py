"""Hosts of a small cluster on one machine: network namespaces with addresses of their own.

Each also has processes and a Ray folder of its own, so that nothing but the network and the shared
disk connects them. Where a machine makes no namespaces, Ray's nodes of one machine stand in.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

RAY = Path(sys.executable).parent / "ray"
PORT = 6379
NETWORK = "10.77.0"
OWN = f"iac{os.getpid()}"
"""What names of links and namespaces begin with: a link has at most 15 letters."""
BRIDGE = f"{OWN}b"
_OURS = re.compile(r"\biac(\d+)(?:b|[hvt]\d*)\b")


def why_not():
    """Why this machine cannot make hosts; empty if it can."""
    if os.getuid() != 0:
        return "network namespaces take root"
    missing = [name for name in ("ip", "unshare", "nsenter") if not shutil.which(name)]
    if missing:
        return f"missing commands: {' '.join(missing)}"
    done = subprocess.run(["ip", "netns", "add", f"{OWN}t"], capture_output=True, check=False)
    if done.returncode:
        return "this machine makes no network namespaces"
    subprocess.run(["ip", "netns", "del", f"{OWN}t"], check=True)
    return ""


def remove_leftovers():
    """Remove the hosts of test processes that were killed."""
    for kind, take_away in (("netns", _remove_namespace), ("link", _remove_link)):
        listed = subprocess.run(
            ["ip", kind, "list"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout
        names = {match[0]: int(match[1]) for match in _OURS.finditer(listed)}
        for name, pid in names.items():
            if not psutil.pid_exists(pid):
                take_away(name)


def _remove_namespace(name):
    inside = subprocess.run(
        ["ip", "netns", "pids", name], stdout=subprocess.PIPE, text=True, check=False
    )
    for pid in map(int, inside.stdout.split()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _remove_link(name):
    subprocess.run(["ip", "link", "del", name], capture_output=True, check=False)


class Host:
    """One host: its address, and Ray started on it."""

    def __init__(self, number, *, environment):
        self.ip = f"{NETWORK}.{number + 1}"
        self.address = f"{self.ip}:{PORT}"
        self.name, self._link = f"{OWN}h{number}", f"{OWN}v{number}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0",
            "netns", self.name)  # fmt: skip
        run("ip", "link", "set", self._link, "master", BRIDGE, "up")
        for words in (
            ("link", "set", "lo", "up"), ("link", "set", "eth0", "up"),
            ("addr", "add", f"{self.ip}/24", "dev", "eth0"),
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
            where = (f"--address={head.address}",)
        run(
            *self.words(
                RAY, "start", *where, "--num-cpus=1", f"--node-ip-address={self.ip}",
                "--disable-usage-stats",
            ),
            env=self.environment,
        )  # fmt: skip

    def mask(self, folder):
        """Hide a folder of the shared disk from this host: an empty one is in its place."""
        run(*self.words("mount", "-t", "tmpfs", "tmpfs", folder))

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
        _remove_link(self._link)
        _remove_namespace(self.name)


class Network:
    """A bridge with some hosts; a context manager."""

    def __init__(self, n_hosts, *, environment):
        self._n_hosts, self._environment, self.hosts = n_hosts, environment, []

    def __enter__(self):
        remove_leftovers()
        try:
            run("ip", "link", "add", BRIDGE, "type", "bridge")
            run("ip", "link", "set", BRIDGE, "up")
            for number in range(self._n_hosts):
                self.hosts.append(Host(number, environment=self._environment))
        except BaseException:
            self.__exit__()
            raise
        return self.hosts

    def __exit__(self, *error):
        for host in self.hosts:
            host.remove()
        _remove_link(BRIDGE)


class NodeOfThisMachine:
    """A Ray node that stands in for a host: it can fall silent and die."""

    def __init__(self, node, address):
        self.address, self._node = address, node

    def words(self, *command):
        """Words that run a command beside the node."""
        return list(map(str, command))

    def start_ray(self, head):
        """Nothing to do: it runs since it was made."""

    def cut_off(self):
        """Stop all of its processes; they are heard no more."""
        for process in self._processes():
            process.suspend()

    def kill(self):
        """End all of its processes at once."""
        for process in self._processes():
            process.kill()

    def _processes(self):
        raylet = psutil.Process(self._node.all_processes["raylet"][0].process.pid)
        return [raylet, *raylet.children(recursive=True)]


class NodesOfThisMachine:
    """Ray nodes with one CPU each instead of hosts; a context manager."""

    def __init__(self, n_hosts, *, environment):
        self._n_hosts, self._environment = n_hosts, environment

    def __enter__(self):
        from ray.cluster_utils import Cluster

        kept = dict(os.environ)
        os.environ.update(self._environment)
        try:
            self._cluster = Cluster()
            nodes = [self._cluster.add_node(num_cpus=1) for _ in range(self._n_hosts)]
        finally:
            os.environ.clear()
            os.environ.update(kept)
        return [NodeOfThisMachine(node, self._cluster.address) for node in nodes]

    def __exit__(self, *error):
        for process in psutil.Process().children(recursive=True):
            if process.status() == psutil.STATUS_STOPPED:
                process.kill()
        self._cluster.shutdown()


def run(*words, env=None):
    done = subprocess.run(
        list(map(str, words)), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(map(str, words))}\n{done.stdout}"

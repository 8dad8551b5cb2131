"""A sweep on a running cluster through Ray's Jobs API: submitted, followed, looked at, cancelled.

What is uploaded is the sweep file and this project's packages, about a megabyte, so that the
cluster's machines need its dependencies alone. Data, stages and results stay on the cluster: paths
are those that its machines see.
"""

import shlex
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iac_core.errors import ConfigError
from orchestrator.file_paths import written_out
from orchestrator.spec import SweepSpec

_PACKAGES = ("addresses", "files", "iac_core", "workers", "results", "orchestrator")
_SWEEP = "sweep.yaml"
_MOST_UPLOAD_MIB = 90
"""Ray's dashboard takes 100 MiB in a request."""
_SECONDS_TO_STOP = 120
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_UNTIL_A_HEAD_IS_READY = 60
EXIT_CODES = {"SUCCEEDED": 0, "STOPPED": 130, "FAILED": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A submitted sweep.

    Attributes:
        identity: What Ray calls it.
        sweep: Name of the sweep.
        status: ``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``STOPPED`` or ``FAILED``.
        exit_code: Of ``orchestrator run`` on the cluster; None while it runs.
        started: Seconds since 1970, 0 if unknown.
        message: What Ray says of it.
    """

    identity: str
    sweep: str
    status: str
    exit_code: int | None
    started: float
    message: str

    @property
    def is_over(self) -> bool:
        """Whether it ended."""
        return self.status in EXIT_CODES


class Cluster:
    """A running Ray cluster.

    Args:
        address: Of its dashboard, such as ``http://HEAD:8265``.

    Raises:
        ConfigError: If no dashboard answers there.
    """

    def __init__(self, address: str) -> None:
        from ray.job_submission import JobSubmissionClient

        try:
            self._client: Any = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ConfigError(
                "a Ray dashboard must answer at the address",
                value=f"{address} ({reason})",
                way_out=(
                    "start the head with `ray start --head --include-dashboard=true`, or forward "
                    "port 8265"
                ),
            ) from error

    def submit(
        self, spec: SweepSpec, *, runs: str, data: Mapping[str, str], python: str = "python"
    ) -> str:
        """Upload a sweep and start it; returns its identity.

        Args:
            spec: The sweep.
            runs: Folder of all sweeps, as the cluster's machines see it.
            data: Dataset → folder, likewise.
            python: The interpreter on the cluster.

        Raises:
            ConfigError: If the sweep names a file that cannot travel, or too much would.
        """
        words = [python, "-m", "orchestrator", "run", _SWEEP, "--runs", runs]
        for name, path in data.items():
            words += ["--data", f"{name}={path}"]
        identity = f"{spec.name}-{uuid.uuid4().hex[:8]}"
        with tempfile.TemporaryDirectory() as folder:
            bundle(spec, Path(folder))
            order = {
                "entrypoint": shlex.join(words).replace("'~/", "~/'"),
                "submission_id": identity,
                "runtime_env": {
                    "working_dir": folder,
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_SECONDS_TO_STOP)},
                },
                "metadata": {"sweep": spec.name},
            }
            self._submit(order)
        return identity

    def _submit(self, order: dict[str, Any]) -> None:
        """Submit; a head that has just started takes a while until it can."""
        deadline = time.monotonic() + _SECONDS_UNTIL_A_HEAD_IS_READY
        while True:
            try:
                self._client.submit_job(**order)
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    reason = (str(error).splitlines() or [""])[0]
                    raise ConfigError(
                        "the cluster must take the sweep",
                        value=reason,
                        way_out="look at its dashboard",
                    ) from error
                time.sleep(_SECONDS_BETWEEN_LOOKS)
            else:
                return

    def submission(self, identity: str) -> Submission:
        """Return how a submission stands.

        Raises:
            ConfigError: If there is none of this name.
        """
        try:
            return _submission(self._client.get_job_info(identity))
        except RuntimeError as error:
            known = ", ".join(one.identity for one in self.submissions()) or "none"
            raise ConfigError(
                "a submission must be known to the cluster",
                value=repr(identity),
                way_out=f"there are: {known}",
            ) from error

    def submissions(self) -> list[Submission]:
        """Return every submission, the newest first."""
        found = [_submission(details) for details in self._client.list_jobs()]
        return sorted(
            (one for one in found if one.identity), key=lambda one: one.started, reverse=True
        )

    def log(self, identity: str) -> str:
        """Return what a submission has printed so far."""
        return str(self._client.get_job_logs(identity))

    def cancel(self, identity: str) -> None:
        """Ask a submission to stop: running stages checkpoint, the same command goes on later."""
        self.submission(identity)
        self._client.stop_job(identity)

    def follow(self, identity: str, show: Callable[[str], None]) -> Submission:
        """Show what a submission prints until it ends.

        Args:
            identity: Of the submission.
            show: Takes the text that is new.
        """
        seen = 0
        while True:
            now = self.submission(identity)
            text = self.log(identity)
            show(text[seen:])
            seen = len(text)
            if now.is_over:
                return now
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def bundle(spec: SweepSpec, folder: Path) -> None:
    """Copy the sweep file, its split file and this project's packages into a folder.

    Raises:
        ConfigError: If a file that the sweep names is not below the sweep file's folder, or the
            whole is too large.
    """
    project = Path(__file__).resolve().parents[1]
    for package in _PACKAGES:
        for path in (project / package).rglob("*"):
            if path.is_dir() or "__pycache__" in path.parts:
                continue
            target = folder / path.relative_to(project)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.copyfile(spec.path, folder / _SWEEP)
    for name in spec.split_contents:
        source = written_out(name)
        target = (folder / source).resolve()
        if not target.is_relative_to(folder.resolve()):
            raise ConfigError(
                f"{spec.path}: a split file must lie below the sweep file to be uploaded",
                value=name,
                way_out="move it there",
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(spec.path.parent / source, target)
    mib = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    if mib > _MOST_UPLOAD_MIB:
        raise ConfigError(
            f"an upload must be at most {_MOST_UPLOAD_MIB} MiB",
            value=f"{mib:.0f}",
            way_out="keep large files on the cluster and name them by absolute paths",
        )


def _submission(details: Any) -> Submission:  # noqa: ANN401 - Ray's details
    status = str(getattr(details.status, "value", details.status))
    code = details.driver_exit_code
    if code is None and status in EXIT_CODES:
        code = EXIT_CODES[status]
    return Submission(
        identity=details.submission_id or "",
        sweep=(details.metadata or {}).get("sweep", ""),
        status=status,
        exit_code=code,
        started=(details.start_time or 0) / 1000,
        message=details.message or "",
    )

"""Places in an S3 bucket, or on a server that speaks its language: the only file with s3fs.

Credentials, region, endpoint and patience come from the environment that botocore reads:
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_PROFILE``, ``AWS_ENDPOINT_URL``,
``AWS_MAX_ATTEMPTS`` … Copies of outcomes and the workbenches of attempts lie in a folder of this
host (`workers.places.cache_folder`)::

    <cache>/<bucket and prefix>-<hash>/<kind>/<key>/<attempt id>/           files of an outcome
    <cache>/<bucket and prefix>-<hash>/attempts/<kind>-<key>/<attempt id>/  a workbench
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from files.reading import warn_damaged
from files.writing import write_bytes
from iac_core.data.prepare import PARTS
from iac_core.errors import ConfigError, DataError, Problem
from workers.places import (
    CHECKPOINT,
    MANIFEST,
    OF_ATTEMPTS,
    StoreAwayError,
    attempts_of,
    cache_folder,
    is_finished_part,
    is_outcome,
    warn_of_checkpoint,
)
from workers.stage_record import StageRecord

try:
    import aiohttp
    import s3fs
    from botocore.exceptions import BotoCoreError, ClientError
    from filelock import FileLock
except ImportError as error:
    raise ConfigError(
        "a store in a bucket must have s3fs",
        value=error,
        way_out="pip install 'iac-orchestrator[s3]'",
    ) from error

_TRIES_OF_A_CREATE = 5
# At most 4 files × 4 pieces × 16 MiB of memory.
_TRANSFER = {"batch_size": 4, "max_concurrency": 4, "chunksize": 16 * 2**20}
_READS_AT_A_TIME = 64
_MOST_DELETED_AT_A_TIME = 1000
_MISSING = ("NoSuchKey", "404")


class ObjectPlace:
    """A prefix of a bucket.

    Args:
        root: ``s3://BUCKET/PREFIX``.
    """

    is_remote = True
    seconds_between_looks = 5.0

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self._path = self.root.removeprefix("s3://")
        self._bucket, _, self._prefix = self._path.partition("/")
        self._cache = cache_folder() / _folder_name(self._path)
        self._objects = s3fs.S3FileSystem(
            endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL"),
            use_listings_cache=False,
            config_kwargs={"retries": {"mode": "standard"}},
        )
        self._outcomes: dict[str, str] = {}
        self._sent: dict[Path, tuple[int, int]] = {}

    def at(self, name: str) -> "ObjectPlace":
        """Return a longer prefix."""
        return ObjectPlace(f"{self.root}/{name}")

    def check(self, *, writes: bool) -> None:
        """Look whether the bucket answers; with writes, whether it creates an object only once."""
        is_created_twice = False
        try:
            self.names()
            if writes:
                probe = f"checks/probe-{uuid.uuid4().hex}"
                self.create(f"{probe}/object", b"first")
                is_created_twice = self.create(f"{probe}/object", b"second")
                self.remove(probe)
        except StoreAwayError as error:
            raise ConfigError(
                "store must be a bucket that answers",
                value=f"{self.root} ({error})",
                way_out=(
                    "check its name, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                ),
            ) from error
        if is_created_twice:
            raise ConfigError(
                "store must honour conditional writes (If-None-Match)",
                value=f"{self.root} on a server that creates an object twice",
                way_out="take another one, or a folder",
            )

    def read(self, name: str) -> bytes | None:
        """Get an object."""
        try:
            with self._asking(name):
                # With one reader s3fs does not ask for the size first.
                content: bytes = self._objects.cat_file(self._at(name), max_concurrency=1)
        except FileNotFoundError:
            return None
        return content

    def read_all(self, names: Iterable[str]) -> Mapping[str, bytes]:
        """Get many objects at a time."""
        paths = {self._at(name): name for name in names}
        if not paths:
            return {}
        found = self._objects.cat(
            list(paths), on_error="return", batch_size=_READS_AT_A_TIME, max_concurrency=1
        )
        contents = {}
        for path, content in found.items():
            with suppress(FileNotFoundError), self._asking(paths[path]):
                if isinstance(content, Exception):
                    raise content
                contents[paths[path]] = content
        return contents

    def write(self, name: str, content: bytes, *, durable: bool = True) -> None:
        """Put an object."""
        with self._asking(name):
            self._objects.pipe_file(self._at(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Put an object on the condition that there is none.

        A try may succeed and its answer be lost; the next one is then refused. What lies there
        tells.
        """
        for _ in range(_TRIES_OF_A_CREATE):
            try:
                with self._asking(name):
                    self._objects.pipe_file(self._at(name), content, mode="create")
            except FileExistsError:
                return self.read(name) == content
            except BlockingIOError:
                continue
            return True
        raise StoreAwayError(f"{self.root}/{name}: others create it all the time")

    def names(self, name: str = "") -> frozenset[str]:
        """List what begins with the prefix of a folder, up to the next ``/``."""
        found: set[str] = set()
        for page in self._pages(name, Delimiter="/"):
            found.update(entry["Prefix"] for entry in page.get("CommonPrefixes", ()))
            found.update(entry["Key"] for entry in page.get("Contents", ()))
        start = len(self._key(name))
        return frozenset(entry[start:].rstrip("/") for entry in found)

    def remove(self, name: str) -> None:
        """Delete everything in a folder."""
        with suppress(StoreAwayError):
            self._delete(f"{name}/{path}" for path in self._tree(name))

    def workbench(self, attempt: str) -> Path:
        """Return a folder on this host; those of earlier attempts go."""
        folder = self._cache / attempt
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def take_over(
        self, earlier: Sequence[str], attempt: str, is_whole: Callable[[Path], bool]
    ) -> None:
        """Download the newest whole checkpoint and the finished parts."""
        bench = self._cache / attempt
        checkpoints: list[tuple[Any, str]] = []
        wanted: dict[Path, str] = {}
        for name in earlier:
            for path, info in self._tree(name).items():
                if path == CHECKPOINT:
                    checkpoints.append((info["LastModified"], f"{name}/{path}"))
                elif path.startswith(f"{PARTS}/"):
                    wanted[bench / path] = f"{name}/{path}"
        self._download(wanted)
        for _, name in sorted(checkpoints, reverse=True):
            self._download({bench / CHECKPOINT: name})
            if is_whole(bench / CHECKPOINT):
                wanted[bench / CHECKPOINT] = name
                break
            (bench / CHECKPOINT).unlink()
            warn_of_checkpoint(f"{self.root}/{name}")
        self._sent |= {path: _state(path) for path in wanted}

    def keep(self, attempt: str) -> None:
        """Upload a checkpoint and parts that have changed since the last time."""
        bench = self._cache / attempt
        paths = [bench / CHECKPOINT] if (bench / CHECKPOINT).exists() else []
        if (bench / PARTS).is_dir():
            parts = [path for path in (bench / PARTS).iterdir() if path.is_file()]
            paths += [path for path in parts if is_finished_part(path.name)]
        states = {path: _state(path) for path in paths}
        changed = {path: state for path, state in states.items() if self._sent.get(path) != state}
        self._upload(changed, bench, attempt)
        self._sent |= changed

    def send(self, attempt: str) -> None:
        """Upload the files of the outcome."""
        bench = self._cache / attempt
        files = _outcome_files(bench)
        self._upload(files, bench, attempt)
        if _outcome_files(bench) != files:
            raise FileNotFoundError(errno.ENOENT, "files of a stage are gone", str(bench))

    def publish(self, attempt: str, stage: str) -> None:
        """Create the manifest of the stage, the same as the attempt's."""
        manifest = self.read(f"{attempt}/{MANIFEST}")
        if manifest is None:
            return  # removed by whoever published another attempt
        if self.create(f"{stage}/{MANIFEST}", manifest):
            with suppress(OSError):  # it is published; who needs a copy can download it
                self._adopt(attempt, stage, manifest)
        elif self.outcome(stage) != attempt:
            self.remove(attempt)

    def tidy(self, stage: str) -> None:
        """Delete what the attempts of a published stage left, here and in the bucket."""
        attempts, winner = attempts_of(stage), self.outcome(stage)
        if winner is None:
            return
        shutil.rmtree(self._cache / attempts, ignore_errors=True)
        start = winner.removeprefix(f"{attempts}/") + "/"
        with suppress(StoreAwayError):
            self._delete(
                f"{attempts}/{path}"
                for path in self._tree(attempts)
                if not (path.startswith(start) and _stays(path.removeprefix(start)))
            )

    def outcome(self, stage: str) -> str | None:
        """Return the folder of the attempt that the manifest of the stage names."""
        if stage not in self._outcomes:
            manifest = self.read(f"{stage}/{MANIFEST}")
            if manifest is None:
                return None
            kind, _, key = stage.rpartition("/")
            name = f"{self.root}/{stage}/{MANIFEST}"
            record = StageRecord.from_bytes(manifest, kind=kind, key=key, name=name)
            if record is None:
                return None
            self._outcomes[stage] = f"{attempts_of(stage)}/{record.attempt_id}"
        return self._outcomes[stage]

    def set_aside(self, stage: str) -> str | None:
        """Delete the manifest of a stage, then the files of its outcome."""
        if MANIFEST not in self.names(stage):
            return None
        winner = self.outcome(stage)
        self._delete([f"{stage}/{MANIFEST}"])
        self._outcomes.pop(stage, None)
        if winner is not None:
            self.remove(winner)
        warn_damaged(
            f"{self.root}/{stage}",
            "holds a damaged stage",
            way_out="removed; it is computed again",
        )
        return None

    def drop_copy(self, stage: str) -> None:
        """Remove the copy of an outcome from this host."""
        winner = self.outcome(stage)
        if winner is not None:
            shutil.rmtree(self._copy(stage, winner), ignore_errors=True)

    def clean(self) -> frozenset[str]:
        """Do nothing: what others write there this host cannot look up."""
        return frozenset()

    def fetch(self, stage: str) -> Path:
        """Download the files of an outcome unless this host has them; one process at a time."""
        winner = self.outcome(stage)
        if winner is None:
            raise DataError([_missing(f"{self.root}/{stage}")])
        folder = self._copy(stage, winner)
        if folder.is_dir():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                for left in folder.parent.glob(f"{folder.name}.partial-*"):
                    shutil.rmtree(left, ignore_errors=True)  # who holds the lock is alone
                partial = folder.with_suffix(f".partial-{uuid.uuid4().hex}")
                tree = {path: info for path, info in self._tree(winner).items() if _stays(path)}
                if MANIFEST not in tree:
                    raise DataError([_missing(f"{self.root}/{winner}")])
                self._download({partial / path: f"{winner}/{path}" for path in tree})
                for path, info in tree.items():
                    if (partial / path).stat().st_size != info["size"]:
                        raise StoreAwayError(f"{self.root}/{winner}/{path} came in part")
                _put_into_place(partial, folder)
        return folder

    def _adopt(self, attempt: str, stage: str, manifest: bytes) -> None:
        """Make the workbench of a published attempt the copy that this host reads."""
        bench, folder = self._cache / attempt, self._copy(stage, attempt)
        if not bench.is_dir():
            return
        for name in OF_ATTEMPTS:
            (bench / name).unlink(missing_ok=True)
        shutil.rmtree(bench / PARTS, ignore_errors=True)
        write_bytes(bench / MANIFEST, manifest)
        folder.parent.mkdir(parents=True, exist_ok=True)
        _put_into_place(bench, folder)

    def _copy(self, stage: str, attempt: str) -> Path:
        return self._cache / stage / attempt.rpartition("/")[2]

    def _download(self, wanted: Mapping[Path, str]) -> None:
        if wanted:
            with self._asking(f"{len(wanted)} files"):
                self._objects.get(
                    [self._at(name) for name in wanted.values()],
                    [str(path) for path in wanted],
                    **_TRANSFER,
                )

    def _upload(self, paths: Iterable[Path], bench: Path, attempt: str) -> None:
        places = {path: f"{attempt}/{path.relative_to(bench).as_posix()}" for path in paths}
        if places:
            with self._asking(f"{len(places)} files"):
                self._objects.put(
                    [str(path) for path in places],
                    [self._at(name) for name in places.values()],
                    **_TRANSFER,
                )

    def _tree(self, name: str) -> dict[str, dict[str, Any]]:
        """Every object below a folder: its path from there → ``size``, ``LastModified``."""
        start = len(self._key(name))
        return {
            entry["Key"][start:]: {"size": entry["Size"], "LastModified": entry["LastModified"]}
            for page in self._pages(name)
            for entry in page.get("Contents", ())
        }

    def _pages(self, name: str, **options: str) -> Iterator[dict[str, Any]]:
        options |= {"Bucket": self._bucket, "Prefix": self._key(name)}
        while True:
            with self._asking(name):
                page = self._objects.call_s3("list_objects_v2", **options)
            yield page
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def _delete(self, names: Iterable[str]) -> None:
        keys = [self._key(name).rstrip("/") for name in names]
        for start in range(0, len(keys), _MOST_DELETED_AT_A_TIME):
            objects = [{"Key": key} for key in keys[start : start + _MOST_DELETED_AT_A_TIME]]
            with self._asking(f"{len(objects)} objects"):
                self._objects.call_s3(
                    "delete_objects",
                    Bucket=self._bucket,
                    Delete={"Objects": objects, "Quiet": True},
                )

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _key(self, name: str) -> str:
        """Prefix of all that lies in a folder."""
        return "".join(f"{part}/" for part in (self._prefix, name) if part)

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Turn what the store answers, or does not, into few kinds of error.

        Raises:
            FileNotFoundError: If there is no such object.
            FileExistsError: If it must not be created because there is one.
            BlockingIOError: If another one creates it at the same time.
            StoreAwayError: If the store is not to be reached, or refuses for another reason.
            OSError: If the disk of this host is the trouble.
        """
        try:
            yield
        except (BotoCoreError, ClientError, aiohttp.ClientError, TimeoutError) as error:
            raise StoreAwayError(f"{self.root}/{name}: {error}") from error
        except OSError as error:
            code = _code(error)
            if code == "PreconditionFailed":
                raise FileExistsError(name) from error
            if code == "ConditionalRequestConflict":
                raise BlockingIOError(name) from error
            if code == "" or code in _MISSING or isinstance(error, FileExistsError):
                raise
            raise StoreAwayError(f"{self.root}/{name}: {code}: {error}") from error


def _code(error: OSError) -> str:
    """The server's code for an error; empty if it is none of the server's."""
    cause = error.__cause__
    return str(cause.response["Error"].get("Code", "?")) if isinstance(cause, ClientError) else ""


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _stays(name: str) -> bool:
    """Whether a file of an attempt is part of what the stage leaves behind."""
    return is_outcome(name) or name == MANIFEST


def _outcome_files(bench: Path) -> dict[Path, tuple[int, int]]:
    """Files of an outcome on a workbench with their states."""
    if not bench.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the folder of a stage is gone", str(bench))
    return {
        path: _state(path)
        for path in bench.rglob("*")
        if path.is_file() and _stays(path.relative_to(bench).as_posix())
    }


def _put_into_place(folder: Path, target: Path) -> None:
    """Rename a whole folder, its files read-only from now on, unless another was faster."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    try:
        folder.rename(target)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        if not target.is_dir():
            raise


def _folder_name(path: str) -> str:
    """A readable folder for a bucket and prefix that no other has.

    Examples:
        >>> _folder_name("my-bucket/heart")
        'my-bucket-heart-ae795738'
    """
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", path)[:60]
    return f"{readable}-{sha256(path.encode()).hexdigest()[:8]}"


def _missing(stage: str) -> Problem:
    return Problem(
        file=stage,
        rule="a stage that others build on must be whole",
        value="no manifest",
        way_out="run the sweep again: it is computed anew",
    )

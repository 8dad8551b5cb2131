"""The manifest of a finished stage: what it says, how it is written, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from files.encoding import to_json
from files.reading import value_or_none, warn_damaged
from iac_core.errors import DataError, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """What the manifest of a finished stage says.

    Attributes:
        kind: Kind of stage.
        key: Its key.
        settings: Everything the key is made of.
        outcome: Small facts for the tables: numbers, strings, lists of them.
        provenance: Host, device, versions, commit.
        attempts: Every execution, oldest first: ``attempt_id``, ``start``, ``end``, ``host``,
            ``pid``, ``device``, ``n_micro_batches``, ``epoch`` (last reported), ``outcome``
            (``lost``, ``stopped``, ``preempted``, ``failed`` or ``done``).
        files: Name of every file of the stage → its size in bytes and its CRC-32
            (`files.checksums`); None if an older version wrote the manifest: they are taken as
            they are.
    """

    kind: str
    key: str
    settings: Mapping[str, Any]
    outcome: Mapping[str, Any]
    provenance: Mapping[str, Any]
    attempts: tuple[Mapping[str, Any], ...] = field(default=())
    files: Mapping[str, tuple[int, str]] | None = None

    @property
    def attempt_id(self) -> str:
        """The attempt that computed it."""
        return str(self.attempts[-1]["attempt_id"])

    def to_bytes(self) -> bytes:
        """Return the manifest."""
        return to_json(asdict(self), takes_nan=True, is_indented=True)

    @classmethod
    def from_bytes(cls, raw: bytes, *, kind: str, key: str, name: str) -> "StageRecord | None":
        """Return what a manifest says; None, with a warning, if it is damaged.

        Args:
            raw: Its content.
            kind: The kind of stage that it must be of.
            key: The key.
            name: Of the file, for the warning.
        """
        content = value_or_none(raw, dict, name=name)
        if content is None:
            return None
        try:
            content["attempts"] = tuple(content["attempts"])
            record = cls(**content)
            record._check(kind, key)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            warn_damaged(name, f"must be the manifest of {kind} {key}, got {error!r}")
            return None
        return record

    def _check(self, kind: str, key: str) -> None:
        if (self.kind, self.key) != (kind, key):
            raise ValueError(f"that of {self.kind} {self.key}")
        maps = (self.settings, self.outcome, self.provenance, *self.attempts)
        if not all(isinstance(value, dict) for value in maps):
            raise TypeError("a value that is no object")
        if not self.attempt_id:
            raise ValueError("an attempt without a name")


class DamagedStageError(DataError):
    """A file of a finished stage is not as it was written.

    Args:
        kind: Kind of stage.
        key: Its key.
        folder: Where it lies, as the user would type it.
        reason: Which file, and what is wrong with it.
        attempt_id: The attempt whose outcome is damaged; empty if that is unknown.
    """

    def __init__(
        self, kind: str, key: str, folder: str, reason: str, attempt_id: str = ""
    ) -> None:
        self.kind, self.key, self.folder = kind, key, folder
        self.reason, self.attempt_id = reason, attempt_id
        super().__init__(
            [
                Problem(
                    file=folder,
                    rule="the files of a finished stage must be as they were written",
                    value=reason,
                    way_out="`orchestrator doctor --store --repair` sets the stage aside, and "
                    "the next run computes it again; deleting the folder does the same",
                )
            ]
        )

    def __reduce__(self) -> tuple[type["DamagedStageError"], tuple[str, ...]]:  # type: ignore[override]
        words = self.kind, self.key, self.folder, self.reason, self.attempt_id
        return DamagedStageError, words

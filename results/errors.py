"""Errors of tables, tracking servers and reports."""

from addresses.redaction import redact


class ResultsError(Exception):
    """Base class: a table, a tracking server or a report is not as it must be."""


class SchemaError(ResultsError, ValueError):
    """A table does not have the columns it must have."""


class CollectError(ResultsError):
    """The tracking server cannot be read; the message says which and what to do."""


class TrackingError(CollectError):
    """MLflow cannot be read or written: address, rule, value, way out.

    Args:
        uri: MLflow's tracking URI; secrets are hidden in the message.
        rule: What must hold.
        value: What was found instead.
        way_out: What the user can do.
    """

    def __init__(self, uri: str, rule: str, value: object, way_out: str) -> None:
        self.facts = (uri, rule, str(value), way_out)
        self.value = redact(value)
        super().__init__(redact(f"{uri or 'tracking.uri'}: {rule}, got {value}; {way_out}"))

    def __reduce__(self) -> tuple[type["TrackingError"], tuple[str, str, str, str]]:
        return type(self), self.facts


class TrackingSettingError(TrackingError):
    """The address or the name of the experiment is wrong: no server was asked."""


class TrackingRefusedError(TrackingError):
    """What answers cannot be used, and waiting does not help."""


class TrackingAwayError(TrackingError):
    """Nothing answers now; later something may."""

"""Errors of tables and reports."""


class ResultsError(Exception):
    """Base class: a table, a tracking server or a report is not as it must be."""


class SchemaError(ResultsError, ValueError):
    """A table does not have the columns it must have."""


class CollectError(ResultsError):
    """The tracking server cannot be read; the message says which and what to do."""

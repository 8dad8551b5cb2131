"""Text without secrets: passwords, tokens and keys that an address carries.

Whatever is printed, logged or written into a report goes through `redact`. A value of a query
string is taken for a secret unless its name is known to be harmless.
"""

import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Any

HIDDEN = "***"
_HARMLESS = frozenset(
    {
        "application_name", "cache", "charset", "connect_timeout", "experiment_name", "filter",
        "isolation_level", "max_results", "mode", "order_by", "page", "path", "run_id", "run_uuid",
        "sslmode", "timeout", "uri", "view_type", "nolock", "immutable", "vfs", "tzdata",
        "search_path", "dbname", "host", "port", "user", "driver",
    }
)  # fmt: skip
"""Names in query strings whose values are shown."""
_USER_INFO = re.compile(
    # A password may hold any sign but blanks and quotes: it ends at the last @.
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<user>[^\s'\"<>@:/?#]*)(?P<rest>[^\s'\"<>]*)@"
)
_QUERY = re.compile(r"(?<=[?#])[\w.\-%\[\]]+=(?:[^\s'\"<>]*[^\s'\"<>:,.)])?")
_PAIR = re.compile(r"(?P<name>[\w.\-%\[\]]+)=(?P<value>[^&;]*)")
_NAMED = re.compile(
    r"(?P<name>[\w.\-]*(?:passw(?:or)?d|passwd|pwd|passphrase|token|secret|api[_\-]?key"
    r"|access[_\-]?key|private[_\-]?key|signature|credential|authorization)[\w.\-]*"
    r"['\"]?\s*(?:=|:|%3D)\s*)"
    r"(?:(?P<quote>['\"])(?P<quoted>.*?)(?P=quote)"
    r"|(?P<value>['\"]?(?:(?:Bearer|Basic)\s+)?"
    r"[^\s&;,'\"<>)\]}]*[^\s&;,'\"<>)\]}:.]))",
    re.IGNORECASE,
)
_SCHEMES_WITH_BARE_TOKENS = ("http://", "https://", "git+https://")
_logger_factory = logging.getLogRecordFactory()


def redact(text: object) -> str:
    """Return a text in which the secrets of every address are hidden.

    Hidden are the password in ``user:password@``, a lone user of an HTTP address (a token), the
    values of query strings unless their names are known to be harmless, and what follows names
    such as ``password=`` or ``token:`` anywhere.

    Args:
        text: An address, a message with addresses in it, or an exception.

    Examples:
        >>> redact("postgresql://iac:pa/ss@db:5432/mlflow?sslmode=require")
        'postgresql://iac:***@db:5432/mlflow?sslmode=require'
        >>> redact("https://host/mlflow?token=abc does not answer")
        'https://host/mlflow?token=*** does not answer'
        >>> redact("https://ghp_abc@host: no; password='abc'")
        "https://***@host: no; password='***'"
        >>> redact("runs/a?b/mlflow.db, seed=3, js[threshold=0.5]")
        'runs/a?b/mlflow.db, seed=3, js[threshold=0.5]'
    """
    found = _USER_INFO.sub(_without_password, str(text))
    found = _QUERY.sub(lambda query: _PAIR.sub(_without_value, query.group()), found)
    return _NAMED.sub(_without_named, found)


def _without_password(found: re.Match[str]) -> str:
    scheme, user, rest = found["scheme"], found["user"], found["rest"]
    if rest.startswith(":"):
        return f"{scheme}{user}:{HIDDEN}@"
    if rest:  # an @ in a path or a query: no part of the host
        return found.group()
    is_token = scheme.lower() in _SCHEMES_WITH_BARE_TOKENS
    return f"{scheme}{HIDDEN if is_token else user}@"


def _without_named(pair: re.Match[str]) -> str:
    quote = pair["quote"] or ""
    return f"{pair['name']}{quote}{HIDDEN}{quote}"


def _without_value(pair: re.Match[str]) -> str:
    name = pair["name"]
    return pair.group() if name.lower() in _HARMLESS else f"{name}={HIDDEN}"


def redact_logs_and_tracebacks() -> None:
    """Let every log record and every uncaught exception of this process be redacted."""
    logging.setLogRecordFactory(_redacted_record)
    sys.excepthook = _print_redacted


def _redacted_record(*arguments: Any, **options: Any) -> logging.LogRecord:  # noqa: ANN401
    """A log record of any library without secrets."""
    record = _logger_factory(*arguments, **options)
    try:
        record.msg, record.args = redact(record.getMessage()), None
    except (TypeError, ValueError):  # the arguments do not fit; logging says so itself
        return record
    if record.exc_info and record.exc_info[0] is not None:
        record.exc_text = redact("".join(traceback.format_exception(*record.exc_info))).rstrip()
    return record


def _print_redacted(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))

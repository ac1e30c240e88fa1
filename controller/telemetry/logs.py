"""JSON log lines: constant event names, UTC times, and no secret in any of them (promise I17).

Secrets are removed three ways, because each alone has been seen to fail: by the name of the key they stand
under, by their value once it was registered with `hide`, and by their shape.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor

REMOVED = "[removed]"

_SECRET_KEY = re.compile(
    r"(token|secret|password|passwd|passphrase|authorization|cookie|credential|webhook_?url|dsn"
    r"|(api|sdk|access|private|signing)_?key)s?$",
    re.IGNORECASE,
)
_SECRET_SHAPES = (
    re.compile(r"\brampart_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"),
    re.compile(r"\bsdk-[A-Za-z0-9_-]{20,}"),
    re.compile(r"(?<=\bBearer )\S+|(?<=\bBasic )\S+", re.IGNORECASE),
    re.compile(r"(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"),
)
# Libraries speak less than we do: what they report at INFO is their own routine.
_QUIET_LIBRARIES = ("apscheduler", "ldclient", "aiohttp", "asyncio", "uvicorn.access")

_hidden: set[str] = set()


def hide(secret: str) -> None:
    """From now on this value appears in no log line, wherever it comes from. Call it where a secret is read."""
    if secret:
        _hidden.add(secret)


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Send all logs, ours and every library's, to `stream` (standard error) as JSON lines.

    `level` is debug, info, warning or error. A server must not configure logging again by itself
    (uvicorn: `log_config=None`). Raises ValueError for another level.
    """
    threshold = logging.getLevelNamesMapping().get(level.upper())
    if threshold is None:
        raise ValueError(f'"{level}" is no log level; use debug, info, warning or error')
    out = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        remove_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(serializer=_json)],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        # A cached logger would keep writing to an earlier stream.
        cache_logger_on_first_use=False,
    )
    _adopt_library_logs(threshold, out, shared)


def _adopt_library_logs(threshold: int, out: TextIO, shared: list[Processor]) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_name_library_event, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(serializer=_json),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)
    logging.captureWarnings(capture=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))


def _name_library_event(_: Any, __: str, event: EventDict) -> EventDict:
    """Libraries write sentences; the event name stays constant and the sentence becomes a value."""
    record: logging.LogRecord = event["_record"]
    return {**event, "event": "library_log", "library": record.name, "message": event["event"]}


def remove_secrets(_: Any, __: str, event: EventDict) -> EventDict:
    """The last processor before rendering: whatever it passes on consists of JSON's own types."""
    # What is meant for a later processor of the standard library's handler is not ours to rewrite.
    return {key: value if key.startswith("_") else _cleaned(key, value) for key, value in event.items()}


def _cleaned(key: str, value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    if _SECRET_KEY.search(key.replace("-", "_")):
        return REMOVED
    match value:
        case str():
            return without_secrets(value)
        case Mapping():
            return {without_secrets(str(k)): _cleaned(str(k), v) for k, v in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_cleaned("", item) for item in value]
        case _:
            return without_secrets(str(value))


def without_secrets(text: str) -> str:
    for secret in _hidden:
        if secret in text:
            text = text.replace(secret, REMOVED)
    for shape in _SECRET_SHAPES:
        text = shape.sub(REMOVED, text)
    return text


def _json(event: EventDict, **_: Any) -> str:
    return msgspec.json.encode(event).decode()

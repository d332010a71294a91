"""The form of the agent's log on standard error: text on a terminal, one JSON object a line elsewhere.

A message is a short constant; what varies comes as fields (`extra=`). Nothing is filtered or changed here but for the level.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

PACKAGE = "otel_ebpf_receiver"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def install(level: str, form: str) -> None:
    """Send the package's log to standard error. `level` and `form` (auto, text, json) are the configuration's."""
    handler = logging.StreamHandler(sys.stderr)
    is_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler.setFormatter(TextFormatter() if is_text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Foreign libraries only warn: an exporter's debug log would hold headers.
    root.setLevel(logging.WARNING)
    logging.getLogger(PACKAGE).setLevel(level.upper())


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record carries beside its message."""
    found = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    if record.exc_info:
        found["exception"] = logging.Formatter().formatException(record.exc_info)
    return found


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _part(record: logging.LogRecord) -> str:
    return record.name.removeprefix(f"{PACKAGE}.")


class TextFormatter(logging.Formatter):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        """`time LEVEL part: message name=value …`."""
        more = "".join(f" {name}={value if isinstance(value, int | float) else repr(str(value))}" for name, value in fields(record).items())
        return f"{_time(record)} {record.levelname:<7} {_part(record)}: {record.getMessage()}{more}"


class JsonFormatter(logging.Formatter):
    """For log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """One object: what every record has comes first, and no field hides it."""
        start = {"time": _time(record), "level": record.levelname.lower(), "logger": _part(record), "message": record.getMessage()}
        return json.dumps({**start, **fields(record), **start}, default=str, ensure_ascii=False)

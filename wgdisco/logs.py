"""One line an event on standard error: for people (text) or machines (json).

Daemons log with `LOG.info("direct", extra={"fields": {...}})`; `at` in the fields is boot-time seconds.
"""

import json
import logging
import time
from typing import Any, Literal

Style = Literal["text", "json"]


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        told = {name: value for name, value in fields.items() if name != "at" and value not in (None, "", [])}
        details = " ".join(f"{name}={_short(value)}" for name, value in told.items())
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        line = f"{time.strftime('%H:%M:%S')} {level}{record.getMessage()} {details}".rstrip()
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        line: dict[str, Any] = {
            "schema": 1,
            "at": time.clock_gettime(time.CLOCK_BOOTTIME),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **fields,
        }
        if record.exc_info is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(style: Style, verbose: bool = False) -> None:
    """Send the program's own log to standard error in `style`; other libraries' only from warnings up."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("wgdisco").setLevel(logging.DEBUG if verbose else logging.INFO)

"""One line an event on standard error: for people (text) or machines (json).

Daemons log with `LOG.info("direct", extra={"fields": {...}})`; `at` in the fields is boot-time seconds. What is said by
others than us comes out the same way: other libraries, warnings of Python, what ends the program.

Where the journal listens (systemd.exec(5), JOURNAL_STREAM) lines of text begin with their priority (sd-daemon(3))
instead of a time, which it has. Only the text of an exception takes more than its line, and none as JSON.
"""

import json
import logging
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, TextIO

Style = Literal["text", "json"]

LOG = logging.getLogger(__name__)

# RFC 5424: critical, error, warning, informational, debug
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (0, 7))
# A join link, which is a secret, wherever it may have come from
_LINK = re.compile(r"wgdisco://[^\s/\"\\]+/[A-Za-z0-9_/-]*")


class _TextFormatter(logging.Formatter):
    def __init__(self, *, to_journal: bool) -> None:
        super().__init__()
        self._to_journal = to_journal

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        told = {name: value for name, value in fields.items() if name != "at" and value not in (None, "", [])}
        details = " ".join(f"{name}={_short(value)}" for name, value in told.items())
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        lines = [f"{level}{_one_line(record.getMessage())} {_one_line(details)}".rstrip()]
        if record.exc_info is not None:
            lines += map(_one_line, self.formatException(record.exc_info).splitlines())
        if self._to_journal:
            return "\n".join(f"<{_priority(record.levelno)}>{line}" for line in lines)
        return f"{time.strftime('%H:%M:%S')} " + "\n".join(lines)


def _priority(level: int) -> int:
    return next(number for least, number in _PRIORITIES if level >= least)


def _short(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _one_line(text: str) -> str:
    """Nothing in it ends the line, or speaks to the terminal: some of it was said by others; and no secret."""
    text = _LINK.sub("(a join link)", text)
    if text.isprintable():
        return text
    return "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Zl", "Zp", "Cs") else ascii(c)[1:-1] for c in text)


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
        return _LINK.sub("(a join link)", json.dumps(line, default=str))


class _Handler(logging.StreamHandler[TextIO]):
    """Says in a line of the same kind what could not be said."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  as logging has it
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # else nobody listens
            said = f"cannot be logged: {record.msg!r} of {record.name} ({type(error).__name__})"
            self.stream.write(self.format(logging.makeLogRecord({"msg": said, "levelname": "ERROR", "levelno": 40})))
            self.stream.write(self.terminator)


def configure(style: Style, verbose: bool = False) -> None:
    """Send the program's own log to standard error in `style`; other libraries' only from warnings up."""
    handler = _Handler()
    handler.addFilter(_is_worth_a_line)
    to_journal = goes_to_journal(os.environ, 2)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter(to_journal=to_journal))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("wgdisco").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _died
    sys.unraisablehook = lambda told: _died(told.exc_type, told.exc_value, told.exc_traceback)
    threading.excepthook = lambda told: _died(told.exc_type, told.exc_value, told.exc_traceback)


def is_for_machines() -> bool:
    """Whether all that is said is JSON."""
    return any(isinstance(handler.formatter, _JsonFormatter) for handler in logging.getLogger().handlers)


def say(text: str, level: int = logging.INFO) -> None:
    """Tell whoever typed the command: a line of the log where that is for machines or the journal."""
    if is_for_machines():
        LOG.log(level, "%s", text)
    else:
        prefix = f"<{_priority(level)}>" if goes_to_journal(os.environ, 2) else ""
        print(f"{prefix}wgdisco: {text}", file=sys.stderr)


def goes_to_journal(environment: Mapping[str, str], fd: int) -> bool:
    """Whether what is written to `fd` goes to the journal, and is not sent elsewhere by somebody in between."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        opened = os.fstat(fd)
    except OSError:
        return False
    return (device, inode) == (str(opened.st_dev), str(opened.st_ino))


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Not that somebody sent what is no HTTP: aiohttp calls that an error, with a traceback."""
    error = None if record.exc_info is None else record.exc_info[1]
    return record.name != "aiohttp.server" or type(error).__module__ != "aiohttp.http_exceptions"


def _died(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    """An error of ours that nobody caught."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error or kind(), traceback)
    else:
        LOG.critical("this is a bug", exc_info=(kind, error or kind(), traceback))

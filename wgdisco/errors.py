"""The errors this program raises, and the exit code each ends a command with.

::

    WgdiscoError                 1
    ├── LocalError               1   the caller's or the machine's fault: no TUN, no privilege, port in use
    │   ├── ConfigError          2   a file, flag or variable that cannot be used; names file and line
    │   └── NotRunningError      3   no daemon answers on the control socket
    └── RemoteError              1   the wire's fault; carries a reason
        └── TimedOutError        5   nothing came in time

Garbage from the network is not an error: it is dropped and counted by reason.
"""


class WgdiscoError(Exception):
    """Base of all; `str()` is one line that says what to do."""

    exit_code = 1


class LocalError(WgdiscoError):
    """The caller or this machine is at fault."""


class ConfigError(LocalError):
    """Configuration that cannot be used.

    `path` and `line` (1-based) say where, when it came from a file.
    """

    exit_code = 2

    def __init__(self, message: str, path: str | None = None, line: int | None = None) -> None:
        where = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(where + message)
        self.path = path
        self.line = line


class NotRunningError(LocalError):
    """No daemon answers where one is expected."""

    exit_code = 3


class RemoteError(WgdiscoError):
    """The other side, or the network between, did not do its part."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TimedOutError(RemoteError):
    """Nothing came from the other side in time."""

    exit_code = 5

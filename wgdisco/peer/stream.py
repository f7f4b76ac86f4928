"""Server-sent events (WHATWG HTML, section 9.2), as far as a registry uses them: bytes in, events out."""

from dataclasses import dataclass

# A snapshot of 4,096 members takes about 2 MiB.
MAX_EVENT_SIZE = 4 << 20
_MAX_ID = 64


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name, its data, and the last `id:` seen up to it ("" when there was none)."""

    name: str
    data: str
    id: str


class EventParser:
    """Feed it what arrives. Comments, the heartbeats, yield nothing. `last_id` is of what has come whole."""

    def __init__(self, last_id: str = "") -> None:
        self.last_id = self._id = last_id
        self._rest = b""
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that are complete now; ValueError for one that is too large or not UTF-8."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_EVENT_SIZE:
            raise ValueError("an event is too large")
        events = []
        for line in lines:
            event = self._line(line.removesuffix(b"\r"))
            if event is not None:
                events.append(event)
        return events

    def _line(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        self._size += len(line)
        if self._size > MAX_EVENT_SIZE:
            raise ValueError("an event is too large")
        try:
            field, _, value = line.decode().partition(":")
        except UnicodeDecodeError as error:
            raise ValueError("an event is not UTF-8") from error
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id" if len(value) <= _MAX_ID and value.isascii() and value.isprintable():
                self._id = value
            case "":
                self._size -= len(line)  # a comment belongs to no event
            case _:
                pass
        return None

    def _dispatch(self) -> ServerEvent | None:
        name, data, self._name, self._data, self._size = self._name, self._data, "", [], 0
        self.last_id = self._id
        return ServerEvent(name or "message", "\n".join(data), self.last_id) if data else None

"""Sealing and opening bursts: the interface, and which of its two implementations runs.

Nothing on the data path takes a single packet; a lone packet is a burst of one. Frames of the TUN interface become
bursts of datagrams in one call, and back. The **reference** is plain Python, packet by packet; the **compiled** one is
`_burst.c`. They do the same, byte for byte. That there are two is known here, and in `io/syscalls.py`, whose calls take
many packets where the compiled one runs.
"""

from types import ModuleType
from typing import Literal, Protocol

from wgdisco.tunnel import reference
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.frames import Burst, Frames, Opened, OwnAddress, Room, Sealed
from wgdisco.tunnel.reference import padded_size
from wgdisco.tunnel.replay import Counters as ReferenceCounters

compiled: ModuleType | None
try:
    from wgdisco.tunnel import compiled
except ImportError:
    compiled = None

__all__ = [
    "Burst",
    "Counters",
    "Frames",
    "Opened",
    "Opener",
    "OwnAddress",
    "Room",
    "Sealed",
    "Sealer",
    "create_counters",
    "create_opener",
    "create_sealer",
    "engine_name",
    "implementation",
    "leading_run",
    "open_new",
    "padded_size",
    "use",
]

Implementation = Literal["compiled", "reference"]


class Sealer(Protocol):
    """One key of a session, for sending. Not for two threads at once."""

    def seal(self, frames: Frames, receiver: int, counter: int, mtu: int, room: Room) -> Sealed:
        """Cut frames into packets, finish their checksums, pad to `mtu`, and seal each with the next counter.

        What is returned may lie in `room`, and is good until that is cleared. A frame with an impossible virtio header
        is left out; so is what is left when the counters end (rule L3).
        """
        ...

    def close(self) -> None:
        """Forget the key, overwriting it where that is in our hands. Using it then raises ValueError."""
        ...


class Opener(Protocol):
    """One key of a session, for receiving. Not for two threads at once."""

    def open(
        self, datagrams: Burst, room: Room, refused: bytes | None = None, *, tcp: bool = True, udp: bool = True
    ) -> Opened:
        """Open all rows, and merge the packets of one flow into as few frames as can be: of TCP, of UDP.

        Rows with a non-zero byte in `refused` are left out. What is returned may lie in `room`, and is good until that
        is cleared. Anything may be in the rows.
        """
        ...

    def close(self) -> None:
        """Forget the key, overwriting it where that is in our hands. Using it then raises ValueError."""
        ...


class Window(Protocol):
    """Which counters were received; `replay.ReplayWindow`."""

    def accept(self, counter: int) -> bool:
        """Whether `counter` is new and in the window; it then counts as seen."""
        ...

    def accept_run(self, first: int, count: int) -> bool:
        """Accept so many from `first` upward, if all are beyond every one before; else False, and nothing changes."""
        ...


class Counters(Window, Protocol):
    """`replay.Counters`."""

    next_sent: int
    lane: int


_chosen: Implementation = "reference" if compiled is None else "compiled"


def implementation() -> Implementation:
    """Which of the two makes new keys."""
    return _chosen


def engine_name(kind: EngineKind = EngineKind.USERSPACE) -> str:
    """The engine, for a person."""
    return f"userspace ({_chosen})" if kind is EngineKind.USERSPACE else kind.value


def use(wanted: Implementation) -> None:
    """From now on make keys of this one; ValueError when it was not built."""
    global _chosen  # noqa: PLW0603 - decided once, at start
    if wanted == "compiled" and compiled is None:
        raise ValueError("the compiled burst was not built")
    _chosen = wanted


def create_sealer(key: bytes) -> Sealer:
    """For a session's sending key, 32 bytes."""
    if compiled is not None and _chosen == "compiled":
        made: Sealer = compiled.CompiledSealer(key)
        return made
    return reference.ReferenceSealer(key)


def create_opener(key: bytes) -> Opener:
    """For a session's receiving key, 32 bytes."""
    if compiled is not None and _chosen == "compiled":
        made: Opener = compiled.CompiledOpener(key)
        return made
    return reference.ReferenceOpener(key)


def leading_run(datagrams: Burst) -> int:
    """How many rows at its head are transport data for one receiver."""
    if compiled is not None and _chosen == "compiled":
        return int(compiled.leading_run(datagrams))
    return reference.leading_run(datagrams)


def create_counters() -> Counters:
    """For a new session."""
    if compiled is not None and _chosen == "compiled":
        made: Counters = compiled.CompiledCounters()
        return made
    return ReferenceCounters()


def open_new(
    opener: Opener, window: Window, datagrams: Burst, room: Room, *, tcp: bool = True, udp: bool = True
) -> tuple[Opened, int]:
    """Open rows and leave out replays (rule R2: asked only of what authenticated); and how many those were.

    All rows are opened and merged as if none were a replay; only if one is, all is done again without it.
    """
    opened = opener.open(datagrams, room, tcp=tcp, udp=udp)
    counters = opened.counters
    if isinstance(counters, range) and window.accept_run(counters.start, len(counters)):
        return opened, 0
    refused = bytes(counter is not None and not window.accept(counter) for counter in counters)
    replayed = sum(refused)
    if replayed:
        opened = opener.open(datagrams, room, refused, tcp=tcp, udp=udp)
    return opened, replayed

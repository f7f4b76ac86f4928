"""Packets that wait for a session: at most 128, the oldest given up first (rule D9)."""

from collections import deque
from collections.abc import Iterator

from wgdisco.tunnel.burst import Frames
from wgdisco.tunnel.messages import REKEY_ATTEMPT_TIME, STAGED_PACKETS
from wgdisco.tunnel.segment import split


class StagedPackets:
    """One peer's. True while any waits."""

    __slots__ = ("_packets",)

    def __init__(self) -> None:
        self._packets: deque[tuple[bytes, float]] = deque()

    def __bool__(self) -> bool:
        return bool(self._packets)

    def add(self, frames: Frames, now: float) -> int:
        """Let every packet wait that frames stand for; how many older ones had to go for them."""
        given_up = 0
        for frame in frames:
            for packet in split(bytes(frame)) or ():
                if len(self._packets) == STAGED_PACKETS:
                    self._packets.popleft()
                    given_up += 1
                self._packets.append((packet, now))
        return given_up

    def take(self, now: float) -> Iterator[Frames]:
        """All that wait and are not too old to matter, in order; none waits afterwards."""
        while self._packets:
            packet, at = self._packets.popleft()
            if now - at <= REKEY_ATTEMPT_TIME:
                yield Frames.of(packet)

    def clear(self) -> None:
        """Give all up."""
        self._packets.clear()

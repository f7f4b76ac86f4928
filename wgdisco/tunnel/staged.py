"""Packets that wait for a session: at most 128, the oldest given up first (rule D9)."""

from collections import deque
from collections.abc import Iterator

from wgdisco.tunnel.burst import Burst
from wgdisco.tunnel.messages import REKEY_ATTEMPT_TIME, STAGED_PACKETS


class StagedPackets:
    """One peer's. True while any waits."""

    __slots__ = ("_packets",)

    def __init__(self) -> None:
        self._packets: deque[tuple[bytes, float]] = deque()

    def __bool__(self) -> bool:
        return bool(self._packets)

    def add(self, packets: Burst, now: float) -> int:
        """Let every row wait; how many older packets had to go for them."""
        given_up = 0
        for packet in packets.rows():
            if len(self._packets) == STAGED_PACKETS:
                self._packets.popleft()
                given_up += 1
            self._packets.append((bytes(packet), now))
        return given_up

    def take(self, now: float) -> Iterator[Burst]:
        """All that wait and are not too old to matter, in order; none waits afterwards."""
        while self._packets:
            packet, at = self._packets.popleft()
            if now - at <= REKEY_ATTEMPT_TIME:
                yield Burst.of(packet)

    def clear(self) -> None:
        """Give all up."""
        self._packets.clear()

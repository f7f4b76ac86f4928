"""What goes out to one peer: sealed, counted, with where it goes."""

from typing import Any

from wgdisco.endpoint import Endpoint
from wgdisco.tunnel.burst import Burst, Frames, OwnAddress
from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.local import Local
from wgdisco.tunnel.messages import HANDSHAKE_TOS
from wgdisco.tunnel.nesting import outer_hops
from wgdisco.tunnel.session import Session


class Outbox:
    """`datagrams` are for whoever takes them out; `tx_bytes` counts all there were.

    `local` in its methods is the address of ours to send from.
    """

    __slots__ = ("_ours", "datagrams", "tx_bytes")

    def __init__(self, ours: Local[Any]) -> None:
        self.datagrams: list[tuple[Burst, Endpoint]] = []
        self.tx_bytes = 0
        self._ours = ours

    def seal(self, session: Session, frames: Frames, endpoint: Endpoint | None, local: OwnAddress | None) -> bool:
        """Seal frames in a session; whether they may go out."""
        ours = self._ours
        first = frames.head
        hops = outer_hops(first)
        if hops is None:
            ours.drops[Drop.NESTED_TOO_DEEP] += len(frames)
            return False
        sealed = session.seal(frames, ours.routes.limit(first, ours.mtu), ours.room)
        if sealed.bad:
            ours.drops[Drop.BAD_FRAME] += sealed.bad
        for datagrams in sealed.bursts:
            self._put(datagrams, endpoint, local, datagrams.tos, hops)
        return True

    def put_handshake(self, message: bytes, endpoint: Endpoint, local: OwnAddress | None) -> None:
        """A handshake message, as it is."""
        self._put(Burst.of(message), endpoint, local, HANDSHAKE_TOS, 0)

    def _put(self, datagrams: Burst, endpoint: Endpoint | None, local: OwnAddress | None, tos: int, hops: int) -> None:
        if endpoint is None:
            self._ours.drops[Drop.NO_ENDPOINT] += datagrams.count
            return
        self.tx_bytes += len(datagrams.data)
        self.datagrams.append((Burst(datagrams.data, datagrams.row, tos, local, hops), endpoint))

"""What all peers of a device share: our side of every handshake, and of the data path."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.tunnel.burst import Room
from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.messages import DEFAULT_MTU
from wgdisco.tunnel.noise import InitiatorState
from wgdisco.tunnel.route_mtus import RouteMtus
from wgdisco.tunnel.session import Received, Session

P = TypeVar("P")


@dataclass(slots=True)
class Local(Generic[P]):
    """`indices`: receiver index to the peer (`P`) that holds it, and for what.

    `handshake_time` is what timestamps are made of, in seconds. `relays` are endpoints that forward what is another's.
    `room` is where bursts are sealed and opened; `merges_…` is what the interface takes in large frames.
    """

    random_bytes: Callable[[int], bytes]
    unix_time: Callable[[], float]
    handshake_time: Callable[[], float]
    private_key: PrivateKey | None = None
    public_key: PublicKey | None = None
    mtu: int = DEFAULT_MTU
    routes: RouteMtus = field(default_factory=RouteMtus)
    is_up: bool = True
    indices: dict[int, tuple[P, Session | InitiatorState]] = field(default_factory=dict)
    drops: Counter[Drop] = field(default_factory=Counter)
    relays: set[Endpoint] = field(default_factory=set)
    traces: bool = False
    room: Room = field(default_factory=Room)
    merges_tcp: bool = True
    merges_udp: bool = True

    def free_index(self) -> int:
        """A random receiver index that nobody holds (rule H7)."""
        while True:
            index = int.from_bytes(self.random_bytes(4), "little")
            if index not in self.indices:
                return index

    def note_drops(self, received: Received) -> None:
        """Count what was refused of a burst."""
        if not (received.forged or received.replayed or received.bad):
            return
        counts = (
            (Drop.FORGED, received.forged),
            (Drop.REPLAYED, received.replayed),
            (Drop.BAD_INNER_PACKET, received.bad),
        )
        for why, count in counts:
            if count:
                self.drops[why] += count

    def jitter(self) -> float:
        """A random fraction in [0, 1)."""
        return int.from_bytes(self.random_bytes(2), "little") / 65536

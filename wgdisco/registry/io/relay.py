"""The relay on the registry's own device: what comes there and is another's goes on from the same port.

Our engine hands it over. Beside another engine it is seen, and sent, by raw sockets.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Self

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.registry.facts import Member, Network
from wgdisco.registry.io.beside import Beside
from wgdisco.registry.membership import Membership
from wgdisco.registry.relay import Forward, Relay
from wgdisco.tunnel.cookie import mac1_key
from wgdisco.tunnel.events import Foreign
from wgdisco.tunnel.io.backend import Backend
from wgdisco.tunnel.messages import TRANSPORT, message_type

LOG = logging.getLogger(__name__)

NO_RELAY = (
    "no relay: beside an engine that is not ours it takes the capability CAP_NET_RAW; members without a direct path do"
    " not reach each other"
)
# Datagrams of so many bytes each, the last of what is left, from the device's port
Send = Callable[[bytes, int, Endpoint], None]


class Relaying:
    """A relay, and what sends for it; without that (None) nobody is admitted."""

    def __init__(self, send: Send | None) -> None:
        self.relay = Relay()
        self._send = send
        self._beside: Beside | None = None

    @classmethod
    def beside(cls, device: Backend, network: Network) -> Self:
        """One beside a device that hands nothing over; it admits nobody where raw sockets are not permitted."""

        def send(data: bytes, row: int, endpoint: Endpoint) -> None:
            for at in range(0, len(data), row):
                device.send_raw(data[at : at + row], endpoint)

        relaying = cls(send)
        own_key = mac1_key(network.private_key.public_key())
        beside = Beside(relaying.relay, _ports(network), own_key, relaying.pass_on)
        if device.capabilities.raw_send and beside.start():
            relaying._beside = beside
        else:
            relaying._send = None
            LOG.warning("%s", NO_RELAY)
        return relaying

    @property
    def is_there(self) -> bool:
        """Whether anything can be passed on."""
        return self._send is not None

    def close(self) -> None:
        """Pass nothing on any more."""
        if self._beside is not None:
            self._beside.close()

    def pass_on(self, foreign: Foreign) -> None:
        """Send on what may be, and drop the rest."""
        self._forward(self.relay.receive(foreign, boot_time()))

    def admit(self, a: PublicKey, b: PublicKey) -> bool:
        """Let two members reach each other here (`Relay.admit`): who asks has seen to it that they may."""
        now = boot_time()
        is_admitted = self._send is not None and self.relay.admit(a, b, now)
        for forward in self.relay.held(a, b, now) if is_admitted else ():
            self._forward(forward)
        return is_admitted

    def leave(self, key: PublicKey, other: PublicKey) -> None:
        """A member reaches another directly (`Relay.leave`)."""
        self.relay.leave(key, other, boot_time())

    def _forward(self, forward: Forward | None) -> None:
        if forward is None or self._send is None:
            return
        if self._beside is not None and message_type(forward.data) != TRANSPORT:
            self._beside.learn()
        self._send(forward.data, forward.row, forward.endpoint)

    def follow(self, before: Mapping[PublicKey, Member], membership: Membership) -> None:
        """Membership has changed: nobody passes who is revoked, or shares no group any more."""
        members = membership.members
        now = {member.number: key for key, member in members.items()}
        for key, member in before.items():
            if key not in members and now.get(member.number) is not None:
                self.relay.rename(key, now[member.number])
            elif key not in members:
                self.relay.revoke(key)

        def may(a: PublicKey, b: PublicKey) -> bool:
            return a in members and b in members and membership.sees(members[a], members[b])

        self.relay.keep(may)
        if self._beside is not None:
            self._beside.set_ports(_ports(membership.network))

    def counted(self) -> dict[str, Any]:
        """What was passed on for the members that are there now, as the API tells it."""
        traffic = self.relay.traffic().values()
        packets, size = (sum(getattr(one, name) for one in traffic) for name in ("tx_packets", "tx_bytes"))
        return {"is_there": self.is_there, "packets": packets, "bytes": size, "drops": self.drops()}

    def drops(self) -> dict[str, int]:
        """What was not passed on, by reason."""
        return {reason.value: count for reason, count in self.relay.drops.items()}


def _ports(network: Network) -> list[int]:
    """Those that lead to the device; packets are seen before any redirection."""
    return [network.listen_port, *network.also_ports]

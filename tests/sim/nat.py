"""Simulated gateways in the words of RFC 4787: how they map, filter, choose ports, forget, and burn.

A gateway knows its inside hosts by address. A firewall is a gateway whose inside address is its outside address.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from tests.sim.network import Datagram, Network
from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.nat import FilteringBehavior, MappingBehavior, NatProfile

MAPPING_TIMEOUT = 60.0
# An entry that only ever saw packets from outside, as Linux keeps it
BURN_TIMEOUT = 30.0

Ports = Callable[["Gateway", Endpoint], Iterator[int]]


def preserved(_gateway: "Gateway", inside: Endpoint) -> Iterator[int]:
    """The inside port, or where that is taken the next."""
    while True:
        yield from range(inside.port, 65536)
        inside = Endpoint(inside.address, 1024)


def hashed(_gateway: "Gateway", inside: Endpoint) -> Iterator[int]:
    """Another port than inside, always the same for the same inside endpoint."""
    start = (int(inside.address) * 31 + inside.port * 7919) % 20000
    while True:
        for step in range(20000):
            yield 20000 + (start + step) % 20000


def sequential(gateway: "Gateway", _inside: Endpoint) -> Iterator[int]:
    """The next port each time, from 30000."""
    while True:
        gateway.next_port = 30000 + (gateway.next_port - 30000 + 1) % 3000
        yield gateway.next_port


def in_block(gateway: "Gateway", _inside: Endpoint) -> Iterator[int]:
    """Any port of the subscriber's block of 1008."""
    while True:
        yield gateway.network.random.randrange(20000, 21008)


def at_random(gateway: "Gateway", _inside: Endpoint) -> Iterator[int]:
    """Any port."""
    while True:
        yield gateway.network.random.randrange(1024, 65536)


@dataclass(frozen=True, slots=True)
class NatType:
    """A kind of gateway. One that does not translate is a firewall: inside addresses are public."""

    profile: NatProfile
    ports: Ports = preserved
    translates: bool = True


@dataclass(slots=True)
class Mapping:
    """An outside port for an inside endpoint; `remotes` are those it has sent to, with the time they are forgotten."""

    inside: Endpoint
    port: int
    expires_at: float
    remotes: dict[Endpoint, float] = field(default_factory=dict)


class Gateway:
    """See the module's docstring."""

    def __init__(
        self,
        network: Network,
        address: IPAddress,
        nat: NatType,
        timeout: float = MAPPING_TIMEOUT,
    ) -> None:
        self.network = network
        self.address = address
        self.profile = nat.profile
        self.timeout = timeout
        self.next_port = 30000
        self._ports = nat.ports
        self._inside: dict[IPAddress, Callable[[Datagram], None]] = {}
        self._mappings: dict[tuple[Endpoint, object], Mapping] = {}
        self._taken: set[int] = set()
        self._burned: dict[tuple[int, Endpoint], float] = {}
        network.attach(address, self)

    def connect(self, address: IPAddress, receive: Callable[[Datagram], None]) -> None:
        """A host moves in."""
        self._inside[address] = receive

    def rebind(self, address: IPAddress | None = None) -> None:
        """Forget everything, and give the ports in use to somebody else; perhaps come back at another address."""
        self._taken.update(mapping.port for mapping in self._mappings.values())
        self._mappings.clear()
        self._burned.clear()
        if address is not None:
            self.network.detach(self.address)
            self.address = address
            self.network.attach(address, self)

    def from_inside(self, datagram: Datagram) -> None:
        """Translate and send on."""
        now = self.network.now
        mapping = self._mapping(datagram.source, datagram.destination)
        mapping.expires_at = now + self.timeout
        mapping.remotes[datagram.destination] = now + self.timeout
        outside = Endpoint(self.address, mapping.port)
        self.network.carry(Datagram(outside, datagram.destination, datagram.data, datagram.ttl - 1))

    def from_core(self, datagram: Datagram) -> None:
        """Let in what the filtering behaviour says."""
        self._forget()
        port, remote = datagram.destination.port, datagram.source
        for mapping in self._mappings.values():
            if mapping.port == port and self._lets_in(mapping, remote):
                if remote in mapping.remotes:
                    mapping.remotes[remote] = mapping.expires_at = self.network.now + self.timeout
                if datagram.ttl > 1:  # a router sees it before it counts it down
                    inside = Datagram(remote, mapping.inside, datagram.data, datagram.ttl - 1)
                    receive = partial(self._inside[mapping.inside.address], inside)
                    self.network.clock.at(self.network.now + self.network.delay, receive)
                return
        if self.profile.burns:
            self._burned[port, remote] = self.network.now + BURN_TIMEOUT

    def _mapping(self, inside: Endpoint, remote: Endpoint) -> Mapping:
        """The mapping for a flow; a flow that clashes with an entry of the gateway's own gets one to itself."""
        self._forget()
        own = self._mappings.get((inside, remote))
        if own is not None:
            return own
        key = (inside, self._destination(remote))
        mapping = self._mappings.get(key)
        if mapping is not None and remote in mapping.remotes:
            return mapping
        port = next(self._ports(self, inside)) if mapping is None else mapping.port
        if (port, remote) in self._burned:
            return self._create((inside, remote), inside, at_random(self, inside))
        return mapping or self._create(key, inside, self._ports(self, inside), port)

    def _destination(self, remote: Endpoint) -> object:
        match self.profile.mapping:
            case MappingBehavior.ENDPOINT_INDEPENDENT:
                return None
            case MappingBehavior.ADDRESS_DEPENDENT:
                return remote.address
            case MappingBehavior.ADDRESS_AND_PORT_DEPENDENT:
                return remote

    def _create(
        self, key: tuple[Endpoint, object], inside: Endpoint, ports: Iterator[int], first: int | None = None
    ) -> Mapping:
        used = self._taken | {mapping.port for mapping in self._mappings.values()}
        port = first if first is not None and first not in used else next(port for port in ports if port not in used)
        mapping = self._mappings[key] = Mapping(inside, port, self.network.now + self.timeout)
        return mapping

    def _lets_in(self, mapping: Mapping, remote: Endpoint) -> bool:
        match self.profile.filtering:
            case FilteringBehavior.ENDPOINT_INDEPENDENT:
                return True
            case FilteringBehavior.ADDRESS_DEPENDENT:
                return any(known.address == remote.address for known in mapping.remotes)
            case FilteringBehavior.ADDRESS_AND_PORT_DEPENDENT:
                return remote in mapping.remotes

    def _forget(self) -> None:
        now = self.network.now
        self._mappings = {key: mapping for key, mapping in self._mappings.items() if mapping.expires_at > now}
        for mapping in self._mappings.values():
            mapping.remotes = {remote: until for remote, until in mapping.remotes.items() if until > now}
        self._burned = {entry: until for entry, until in self._burned.items() if until > now}


EIM, ADM, APDM = MappingBehavior
EIF, ADF, APDF = FilteringBehavior

# A host with its own public address and nothing in front behaves so; the lab's ten types begin with it.
PUBLIC = NatType(NatProfile(EIM, EIF), translates=False)
TYPES: dict[str, NatType] = {
    "public": PUBLIC,
    "firewall": NatType(NatProfile(EIM, APDF), translates=False),
    "full-cone": NatType(NatProfile(EIM, EIF)),
    "address-restricted": NatType(NatProfile(EIM, ADF)),
    "port-restricted": NatType(NatProfile(EIM, APDF)),
    "eim-other-port": NatType(NatProfile(EIM, APDF), hashed),
    "open-input": NatType(NatProfile(EIM, APDF, burns=True)),
    "symmetric-sequential": NatType(NatProfile(APDM, APDF), sequential),
    "symmetric-block": NatType(NatProfile(APDM, APDF), in_block),
    "symmetric-random": NatType(NatProfile(APDM, APDF), at_random),
}

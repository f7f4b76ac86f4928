"""A WireGuard device without input or output: bytes, values and `now` go in; datagrams, packets and events come out.

How to drive it: after any call, drain `datagrams_to_send()`, `packets_to_deliver()`, `errors_to_deliver()` and
`events()`, and call `handle_timer(now)` when `get_timer()` says so. The memory of what is drained is good until the
next call. Initiations wait in a queue (its length is "under load") until `handle_handshakes(now, budget)` has time for
them. Nothing here raises on any bytes from the network.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.errors import LocalError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel import icmp, messages
from wgdisco.tunnel.allowed_ips import AllowedIPs
from wgdisco.tunnel.burst import Burst, Frames, OwnAddress, leading_run
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import DeviceStatus, Drop, Event, Foreign, PeerStatus, RawReceived
from wgdisco.tunnel.intake import Intake
from wgdisco.tunnel.lanes import Carried
from wgdisco.tunnel.local import Local
from wgdisco.tunnel.messages import message_type
from wgdisco.tunnel.peer import Peer
from wgdisco.tunnel.peers import Peers
from wgdisco.tunnel.session import Session

STUN_COOKIE = b"\x21\x12\xa4\x42"
CHECK_MAGIC = b"wgd\x01"


class Device:
    """See the module's docstring. `random_bytes(n)` and `unix_time()` are the only other things it asks the world.

    `handshake_time()` stands for the latter in the timestamps of initiations: one that never goes back. One
    that `relays` hands over what is WireGuard's but another's (`Foreign`), and leaves counting it to who relays; one
    that `traces` tells of the steps of handshakes.
    """

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        unix_time: Callable[[], float],
        handshake_time: Callable[[], float] | None = None,
        *,
        relays: bool = False,
        traces: bool = False,
    ) -> None:
        self._relays = relays
        self._local: Local[Peer] = Local(random_bytes, unix_time, handshake_time or unix_time, traces=traces)
        self.listen_port = self.fwmark = 0
        self._peers = Peers(self._local)
        self._intake = Intake(self._local, self._peers)
        self._unreachables = icmp.Unreachables()
        self._delivered: list[Frames] = []
        self._talked: dict[bytes, Peer] | None = None
        self._errors: list[bytes] = []

    # Configuration

    @property
    def private_key(self) -> PrivateKey | None:
        """Our private key."""
        return self._local.private_key

    @property
    def public_key(self) -> PublicKey | None:
        """The public key that belongs to it."""
        return self._local.public_key

    @property
    def peers(self) -> Mapping[PublicKey, Peer]:
        """The peers, in the order they were added."""
        return self._peers.by_key

    @property
    def allowed_ips(self) -> AllowedIPs[Peer]:
        """Which peer has which prefix."""
        return self._peers.allowed_ips

    def apply(self, config: DeviceConfig, now: float) -> None:
        """Become what `config` says; sessions of peers that stay are kept."""
        key_arrives = self._change_private_key(config.private_key)
        own = self._local.public_key
        self._peers.apply((peer for peer in config.peers if peer.public_key != own), now)
        self.set_fwmark(config.fwmark)
        if key_arrives:
            self._resume(now)
        self.set_listen_port(config.listen_port)

    def set_listen_port(self, port: int) -> None:
        """The sockets listen on another port: then what is sent may leave from another address of ours (rule E5)."""
        if port != self.listen_port:
            self.listen_port = port
            self._forget_sources()

    def set_fwmark(self, mark: int) -> None:
        """What is sent has this mark: then it may leave from another address of ours (rule E4)."""
        if mark != self.fwmark:
            self.fwmark = mark
            self._forget_sources()

    def set_private_key(self, private_key: PrivateKey | None, now: float) -> None:
        """Change our key; a peer of that key goes (rule H16)."""
        key_arrives = self._change_private_key(private_key)
        own = self._local.public_key
        if own in self._peers.by_key:
            self._peers.remove(own)
        if key_arrives:
            self._resume(now)

    def add_peer(self, key: PublicKey) -> Peer:
        """Have a new peer, at rest until it is configured: it has no endpoint, and no handshake of its is taken."""
        peer = self._peers.add(key)
        peer.is_running = False
        return peer

    def configure_peer(
        self,
        peer: Peer,
        preshared_key: PresharedKey | None,
        endpoint: Endpoint | None,
        keepalive: int | None,
        now: float,
    ) -> None:
        """Change what is not None, a preshared key of zeros to none; then the peer runs, and sends what waits."""
        if preshared_key is not None:
            peer.preshared_key = preshared_key if any(preshared_key.raw) else None
        if endpoint is not None:
            peer.roaming.local = None  # also where it stays: whoever says it may have changed our addresses
        peer.is_running = True
        peer.set_endpoint(
            endpoint or peer.endpoint, peer.timers.persistent_keepalive if keepalive is None else keepalive, now
        )
        peer.send_staged(now)
        self._peers.touch(peer)

    def clear_allowed_ips(self, peer: Peer) -> Iterator[None]:
        """Take all prefixes of a peer, in slices: done at the iterator's end."""
        return self._peers.clear_allowed_ips(peer)

    def remove_peers(self, peers: Iterable[Peer]) -> Iterator[None]:
        """Remove peers with all they have, in slices: done at the iterator's end."""
        return self._peers.remove_all(peers)

    def config(self) -> DeviceConfig:
        """What the device is told to be, with the endpoints peers have roamed to."""
        return DeviceConfig(self.private_key, self.listen_port, self.fwmark, self._peers.configs())

    def set_up(self, up: bool, now: float) -> None:
        """The interface comes up, or goes down: then nothing is sent or received, and all sessions end (rule T12)."""
        if up == self._local.is_up:
            return
        self._local.is_up = up
        self._intake.clear()
        self._local.routes.clear()
        for peer in self._peers:
            if up:
                peer.resume(now)
            else:
                peer.stop()
            self._peers.touch(peer)

    def set_merging(self, *, tcp: bool, udp: bool) -> None:
        """Of what protocols the interface takes many packets in one frame."""
        self._local.merges_tcp, self._local.merges_udp = tcp, udp

    @property
    def mtu(self) -> int:
        """The interface's MTU, in bytes."""
        return self._local.mtu

    def set_mtu(self, mtu: int) -> None:
        """The interface's MTU, in bytes: padding never passes it (rule D4)."""
        self._local.mtu = mtu

    def set_route_mtu(self, network: IPNetwork, mtu: int | None) -> None:
        """The route to `network` has an MTU of its own, or None any more; it goes when the interface goes down."""
        self._local.routes.set(network, mtu)

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int, now: float) -> None:
        """Set a peer's endpoint and persistent keepalive (seconds) in one step."""
        peer = self._peers.named(key)
        peer.set_endpoint(endpoint, keepalive, now)
        self._peers.touch(peer)

    def set_relays(self, endpoints: frozenset[Endpoint]) -> None:
        """Who forwards for managed peers: what comes from there moves no peer that is reached otherwise."""
        self._local.relays.clear()
        self._local.relays.update(endpoints)

    def initiate(self, key: PublicKey, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """Send an initiation to up to 8 endpoints at once (managed peers)."""
        peer = self._peers.named(key)
        if not peer.managed:
            raise LocalError(f"peer {key} is not managed: its handshakes follow the protocol's own timers")
        peer.initiate(endpoints, now)
        self._peers.touch(peer)

    def probe(self, key: PublicKey, endpoint: Endpoint, now: float) -> None:
        """Send an authenticated keepalive to `endpoint`, which the peer does not move to."""
        peer = self._peers.named(key)
        peer.probe(endpoint, now)
        self._peers.touch(peer)

    def status(self) -> DeviceStatus:
        """The device now."""
        peers = tuple(self._peers.status(peer) for peer in self._peers)
        return DeviceStatus(self.public_key, self.listen_port, self.fwmark, peers, dict(self._local.drops))

    def peer_status(self, peer: Peer) -> PeerStatus:
        """One peer now."""
        return self._peers.status(peer)

    def forget_sessions(self) -> None:
        """The machine was suspended: keys from before are wiped, and the next packet begins a handshake (rule T11)."""
        for peer in self._peers:
            peer.forget_sessions()
            self._peers.touch(peer)

    # Input

    def receive(self, datagrams: Burst, source: Endpoint, now: float) -> None:
        """Take what one receive brought from `source`: messages of any kind, rubbish included."""
        if not self._local.is_up:
            return

        self._reuse_room()
        view, row = memoryview(datagrams.data), datagrams.row
        start = 0
        while start < len(view) or start == 0:
            rest = datagrams if start == 0 else Burst(view[start:], row, datagrams.tos, datagrams.local)
            rows = leading_run(rest)
            if rows:
                part = rest
                if rows < rest.count:
                    part = Burst(view[start : start + rows * row], row, datagrams.tos, datagrams.local)
                receiver = int.from_bytes(view[start + 4 : start + 8], "little")
                self._receive_transport(receiver, part, source, now)
            else:
                message = bytes(view[start : start + row])
                self._receive_message(message_type(message), message, source, datagrams.local, now)
            start += max(rows, 1) * max(row, 1)

    def send(self, frames: Frames, now: float) -> None:
        """Send packets from the interface; all go where the first one goes.

        Where they cannot go the sender is told by ICMP (rule D10).
        """
        self._reuse_room()
        address = frames.destination
        peer = None if address is None else self._peers.allowed_ips.lookup(address)
        if address is None or peer is None or (peer.endpoint is None and not peer.managed):
            self._local.drops[Drop.NO_ROUTE if peer is None else Drop.NO_ENDPOINT] += len(frames)
            error = self._unreachables.about(frames.head, now)
            if error is not None:
                self._errors.append(error)
            return
        peer.send(frames, now)
        self._peers.touch(peer)
        self._note_talk(address, peer)

    def deliver(self, peer: Peer, frames: Frames) -> None:
        """Packets of a peer that were opened elsewhere, all from where the first is from."""
        address = frames.source
        if address is not None and self._peers.allowed_ips.lookup(address) is peer:
            self._delivered.append(frames)
            self._note_talk(address, peer)
        else:
            self._local.drops[Drop.SOURCE_NOT_ALLOWED] += len(frames)

    def carried(self, peer: Peer, session: Session, what: Carried) -> None:
        """That went by a peer's lane since it was last told (`lanes`)."""
        for why, count in what.drops:
            self._local.drops[why] += count
        peer.carried(session, what)
        self._peers.note(peer)

    @property
    def has_handshakes(self) -> bool:
        """Whether `handle_handshakes` has something to do."""
        return self._intake.has_waiting

    def handle_handshakes(self, now: float, budget: int = 64) -> bool:
        """Consume up to `budget` queued initiations; whether more are waiting."""
        self._intake.handle(now, budget)
        return self._intake.has_waiting

    def handle_timer(self, now: float) -> None:
        """Fire what is due; early or repeated calls are harmless."""
        self._peers.handle_timer(now)

    # Output

    def get_timer(self) -> float | None:
        """When `handle_timer` next has something to do, on the clock of `now`."""
        return self._peers.get_timer()

    def datagrams_to_send(self) -> list[tuple[Burst, Endpoint]]:
        """Bursts for the UDP socket, each with where it goes; each is returned once."""
        outgoing, self._intake.replies = self._intake.replies, []
        dirty = self._peers.dirty
        for peer in dirty:
            outgoing.extend(peer.outbox.datagrams)
            peer.outbox.datagrams.clear()
        dirty.clear()
        return outgoing

    def packets_to_deliver(self) -> list[Frames]:
        """IP packets for the interface, in frames; each is returned once."""
        delivered, self._delivered = self._delivered, []
        return delivered

    def errors_to_deliver(self) -> list[bytes]:
        """ICMP errors about packets of this host or beyond it, as packets for the interface; each is returned once."""
        errors, self._errors = self._errors, []
        return errors

    def talked(self) -> dict[bytes, Peer]:
        """The inner addresses of peers to or from which packets went since the last call, for lanes of theirs.

        They are kept from the first call on.
        """
        talked, self._talked = self._talked, {}
        return {} if talked is None or self._local.routes else talked

    def events(self) -> list[Event]:
        """What happened since the last call; each is returned once."""
        events, self._peers.events = self._peers.events, []
        return events

    # Inside

    def _reuse_room(self) -> None:
        """What was drained has been used by now: its memory is free."""
        if not self._peers.dirty and not self._delivered:
            self._local.room.clear()

    def _note_talk(self, address: bytes, peer: Peer) -> None:
        if self._talked is not None:
            self._talked[address] = peer

    def _forget_sources(self) -> None:
        for peer in self._peers:
            peer.roaming.local = None

    def _change_private_key(self, private: PrivateKey | None) -> bool:
        """Have that key; whether there was none before, and is now."""
        former = self._local.private_key
        if private == former:
            return False
        self._local.private_key = private
        self._local.public_key = None if private is None else private.public_key()
        self._intake.use_key(self._local.public_key)
        for peer in self._peers:
            peer.expire_sending()
            peer.refresh_static()
        return former is None and private is not None

    def _resume(self, now: float) -> None:
        """Our first private key arrived: what waited for it begins (rule T9)."""
        for peer in self._peers:
            peer.resume(now)
            self._peers.touch(peer)

    def _receive_message(
        self, kind: int | None, message: bytes, source: Endpoint, local: OwnAddress | None, now: float
    ) -> None:
        match kind:
            case messages.INITIATION | messages.RESPONSE:
                why = self._intake.receive(kind, message, source, local, now)
            case messages.COOKIE_REPLY:
                why = self._intake.receive_cookie_reply(message, now)
            case _:
                if message[4:8] == STUN_COOKIE or message[:4] == CHECK_MAGIC:
                    self._peers.events.append(RawReceived(message, source))
                else:
                    self._local.drops[Drop.NOT_WIREGUARD] += 1
                return
        if why is not None:
            self._refuse(Burst.of(message), source, why)

    def _receive_transport(self, receiver: int, datagrams: Burst, source: Endpoint, now: float) -> None:
        peer, session = self._local.indices.get(receiver, (None, None))
        if peer is None or not isinstance(session, Session):
            self._refuse(datagrams, source, Drop.UNKNOWN_INDEX)
            return
        delivered = peer.receive(session, datagrams, source, now)
        if self._peers.successors:
            self._peers.note_successor(peer)
        for frames in delivered:
            self.deliver(peer, frames)
        self._peers.touch(peer)

    def _refuse(self, datagrams: Burst, source: Endpoint, why: Drop) -> None:
        """These are not for us: somebody else's where we relay, else nothing."""
        if self._relays:
            self._peers.events.append(Foreign(bytes(datagrams.data), datagrams.row, source))
        else:
            self._local.drops[why] += datagrams.count

"""The one interface through which registry and agent drive a WireGuard device, whatever its engine."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import DeviceStatus, Event


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do; callers ask here and never for its type.

    `managed`: handshakes that both sides begin at the same time complete, and what comes over a relay moves no peer
    that is reached otherwise. `event_latency` is how late an event may be, in seconds: 0 for our own engine.
    """

    initiate_many: bool
    managed: bool
    probe_via: bool
    raw_send: bool
    raw_receive: bool
    ttl: bool
    event_latency: float


class Backend(Protocol):
    """A WireGuard device. Methods do not block; keys that are not configured raise LocalError."""

    capabilities: Capabilities
    interface: str

    def apply(self, config: DeviceConfig) -> None:
        """Make the device as `config` says. Sessions of peers that stay are kept."""

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Set a peer's endpoint and persistent keepalive (seconds, 0 is off) in one step."""

    def set_relays(self, endpoints: frozenset[Endpoint]) -> None:
        """Who forwards for managed peers: what comes from there moves no peer that is reached otherwise."""

    def initiate(self, key: PublicKey, endpoints: tuple[Endpoint, ...]) -> None:
        """Send an initiation to each of up to 8 endpoints; while it is unanswered, repeating sends the same bytes."""

    def probe(self, key: PublicKey, endpoint: Endpoint) -> None:
        """Send an authenticated keepalive to `endpoint` without moving the peer there; nothing without a session."""

    def send_raw(self, data: bytes, endpoint: Endpoint, ttl: int | None = None) -> None:
        """Send a datagram that is not WireGuard's from the device's own port."""

    def status(self) -> DeviceStatus:
        """The device now."""

    def events(self) -> AsyncIterator[Event]:
        """Events in order, to one consumer; ends after DeviceGone or close()."""

    async def close(self) -> None:
        """Take the device down; every socket, address and route it made goes with it."""

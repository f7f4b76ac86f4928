"""What a device is told: the values that `conf.py`, the UAPI and the agent agree on.

Times are seconds. `None` leaves a thing unset, as in wg(8).
"""

from dataclasses import dataclass, field

from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One peer. `managed` peers may do what formats.md allows beyond the letter of the protocol.

    `replaces` is the key this peer had before: with the first session under the new one, the old peer's allowed IPs
    are its own, in the same moment.
    """

    public_key: PublicKey
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    allowed_ips: tuple[IPNetwork, ...] = ()
    persistent_keepalive: int = 0
    managed: bool = False
    replaces: PublicKey | None = None


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """A whole device: applying it replaces what was there; sessions of peers that stay are kept."""

    private_key: PrivateKey | None = None
    listen_port: int = 0
    fwmark: int = 0
    peers: tuple[PeerConfig, ...] = field(default=())

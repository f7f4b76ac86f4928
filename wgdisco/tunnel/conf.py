"""The `.conf` files of wg(8) and wg-quick(8): text to values and back.

The WireGuard part is read as `wg` reads it (engine rules F1 to F5), oddities included: `#` starts a comment and NUL
ends a line, all white space inside a line goes, section and key names are case-insensitive, and a port past 65535
loses its upper bits. Every line is taken or refused as wg 1.0.20210914 does, but for these, which are meant:

* Of wg-quick's own keys `Address`, `DNS`, `MTU` and `Table` are understood. The others, which run a shell or write
  the file, are an error that says so, as for `wg`, never a line silently passed over.
* `AllowedIPs` may be empty, and its prefixes may carry the `+` or `-` of 2025 (rule F3).
* Port 0 and `*` in an `Endpoint` are taken, as `wg` does, but nothing can be sent there: the peer has no endpoint.
* An `Endpoint` whose host no name server could know (other characters than letters, digits, `-`, `_` and `.`) is
  refused without asking, where `wg` would take it from /etc/hosts.

Nothing here looks a name up: services come as a function, and peers whose Endpoint takes a resolver are listed in
`TunnelConf.endpoint_names`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.errors import ConfigError
from wgdisco.keys import KEY_SIZE, PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.host_dns import NameServers
from wgdisco.tunnel.notation import (
    IPInterface,
    ServicePorts,
    parse_endpoint,
    parse_interface_address,
    parse_mark,
    parse_number,
    parse_port,
    parse_prefix,
)
from wgdisco.tunnel.path_mtu import MAX_MTU
from wgdisco.tunnel.policy import AUTO, Table, parse_table

MIN_MTU = 68  # RFC 791: what every IPv4 link must carry

NOT_SUPPORTED = frozenset({"preup", "postup", "predown", "postdown", "saveconfig"})

_ZERO_KEY = "A" * 43 + "="
_SPACE = str.maketrans("", "", " \t\n\r\v\f")
_KEY_NAME = re.compile(r"[A-Za-z]{1,24}")


@dataclass(frozen=True, slots=True)
class TunnelConf:
    """What a `.conf` file says: the device, the interface's own addresses, its MTU in bytes (None: not given), and
    where its routes go.

    `endpoint_names` holds host and port of the peers whose Endpoint has yet to be looked up; their
    `PeerConfig.endpoint` is None.
    """

    device: DeviceConfig = field(default_factory=DeviceConfig)
    addresses: tuple[IPInterface, ...] = ()
    mtu: int | None = None
    endpoint_names: Mapping[PublicKey, tuple[str, int]] = field(default_factory=dict)
    table: Table = AUTO
    dns: NameServers = field(default_factory=NameServers)

    def tunnel_prefixes(self) -> tuple[IPNetwork, ...]:
        """What is inside the tunnel: the interface's own subnets and all peers' allowed IPs. No endpoint lies there.

        A default route leads to the Internet, where endpoints are: it does not count.
        """
        own = (address.network for address in self.addresses)
        theirs = (network for peer in self.device.peers for network in peer.allowed_ips if network.prefixlen)
        return tuple(dict.fromkeys((*own, *theirs)))

    def with_endpoints(self, found: Mapping[PublicKey, Endpoint | None]) -> "TunnelConf":
        """The same with the endpoints `found` for named hosts, None for none; names not found stay as they are."""
        peers = tuple(
            replace(peer, endpoint=found[peer.public_key])
            if peer.public_key in self.endpoint_names and peer.public_key in found
            else peer
            for peer in self.device.peers
        )
        names = {key: name for key, name in self.endpoint_names.items() if key not in found}
        return replace(self, device=replace(self.device, peers=peers), endpoint_names=names)

    def to_text(self, names: Mapping[PublicKey, str] | None = None) -> str:
        """The file `parse_conf` reads back to this value, keys included: never for logs. As `wg showconf` (rule F7).

        A peer's name in `names`, which has to be one line, is a comment under its [Peer].
        """
        device, names = self.device, names or {}
        lines = ["[Interface]"]
        lines += [f"Address = {address}" for address in self.addresses]
        if self.dns.items():
            lines.append(f"DNS = {', '.join(self.dns.items())}")
        if self.mtu is not None:
            lines.append(f"MTU = {self.mtu}")
        if self.table != AUTO:
            lines.append(f"Table = {self.table}")
        if device.listen_port:
            lines.append(f"ListenPort = {device.listen_port}")
        if device.fwmark:
            lines.append(f"FwMark = {device.fwmark:#x}")
        if device.private_key is not None:
            lines.append(f"PrivateKey = {device.private_key.to_text()}")
        said = {key: [f"# {name}"] for key, name in names.items()}
        peers = [
            "\n".join(("[Peer]", *said.get(peer.public_key, ()), *self._peer_lines(peer), "")) for peer in device.peers
        ]
        return "\n".join((*lines, "", "")) + "\n".join(peers)

    def _peer_lines(self, peer: PeerConfig) -> list[str]:
        lines = [f"PublicKey = {peer.public_key.to_text()}"]
        if peer.preshared_key is not None:
            lines.append(f"PresharedKey = {peer.preshared_key.to_text()}")
        if peer.allowed_ips:
            lines.append(f"AllowedIPs = {', '.join(map(str, peer.allowed_ips))}")
        if peer.endpoint is not None:
            lines.append(f"Endpoint = {peer.endpoint}")
        elif peer.public_key in self.endpoint_names:
            host, port = self.endpoint_names[peer.public_key]
            lines.append(f"Endpoint = [{host}]:{port}" if ":" in host else f"Endpoint = {host}:{port}")
        if peer.persistent_keepalive:
            lines.append(f"PersistentKeepalive = {peer.persistent_keepalive}")
        return lines


def no_services(_name: str) -> None:
    """A machine without /etc/services: only numbers are ports."""


def parse_conf(text: str, path: str, services: ServicePorts = no_services) -> TunnelConf:
    """Read a `.conf` file's text; `path` is for messages only, `services` for ports given by name.

    Raises ConfigError with path and line for anything `wg` would refuse and for what is not supported. No message holds
    a private or preshared key.
    """
    parser = _Parser(services)
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            parser.line(line, number)
        except ValueError as error:
            raise ConfigError(str(error), path, number) from None
    for peer in parser.peers:
        if peer.public_key is None:
            raise ConfigError("this [Peer] has no PublicKey", path, peer.line)
    return parser.result()


@dataclass(slots=True)
class _PeerSection:
    """One [Peer] section while it is read.

    `replaces` is false once a prefix had a sign, until the next AllowedIPs (rule F3).
    """

    line: int
    services: ServicePorts
    public_key: PublicKey | None = None
    preshared_key: PresharedKey | None = None
    clears_preshared_key: bool = False
    endpoint: Endpoint | tuple[str, int] | None = None
    has_endpoint: bool = False
    prefixes: list[tuple[IPNetwork, bool]] = field(default_factory=list)
    replaces: bool = True
    keepalive: int | None = None


class _Parser:
    """Takes lines; its methods raise ValueError for a line that cannot be used."""

    def __init__(self, services: ServicePorts) -> None:
        self.services = services
        self.private_key: PrivateKey | None = None
        self.listen_port = 0
        self.fwmark = 0
        self.addresses: list[IPInterface] = []
        self.dns: list[str] = []
        self.mtu: int | None = None
        self.table: Table = AUTO
        self.peers: list[_PeerSection] = []
        self.section = ""

    def line(self, line: str, number: int) -> None:
        spaced = line.partition("\0")[0].partition("#")[0]
        squeezed = spaced.translate(_SPACE)
        if not squeezed:
            return
        if squeezed.lower() in ("[interface]", "[peer]"):
            self.section = squeezed.lower()
            if self.section == "[peer]":
                self.peers.append(_PeerSection(number, self.services))
            return
        name, equals, value = squeezed.partition("=")
        if squeezed.startswith("[") or not equals or not _KEY_NAME.fullmatch(name):
            # Not shown: it may be a key pasted on a line of its own.
            raise ValueError("this is neither [Interface], [Peer] nor a line NAME = VALUE")
        if not self.section:
            raise ValueError(f"{name} stands before any [Interface] or [Peer]")
        self._set(name, value, spaced.partition("=")[2])

    def _set(self, name: str, value: str, spaced_value: str) -> None:
        key = name.lower()
        if self.section == "[interface]":
            if key in NOT_SUPPORTED:
                raise ValueError(f"{name} is not supported yet: remove the line, or use wg-quick for this interface")
            if key == "address":
                self.addresses += [parse_interface_address(item) for item in _items(spaced_value)]
                return
            if key == "dns":
                items = _items(spaced_value)
                NameServers.from_items(items)
                self.dns += items
                return
            interface_setter = _INTERFACE_KEYS.get(key)
            if interface_setter is not None:
                interface_setter(self, value)
                return
        else:
            peer_setter = _PEER_KEYS.get(key)
            if peer_setter is not None:
                peer_setter(self.peers[-1], value)
                return
        raise ValueError(f"{name} is not a key of {self.section.title()}" + _elsewhere(key, self.section))

    def result(self) -> TunnelConf:
        """The whole; of sections about one peer a later one adds to an earlier, as on a live device."""
        merged: dict[PublicKey, PeerConfig] = {}
        names: dict[PublicKey, tuple[str, int]] = {}
        for section in self.peers:
            assert section.public_key is not None
            peer = merged.get(section.public_key, PeerConfig(section.public_key))
            merged[section.public_key] = _merge(peer, section)
            if section.has_endpoint:
                names.pop(section.public_key, None)
            if isinstance(section.endpoint, tuple):
                names[section.public_key] = section.endpoint
        device = DeviceConfig(self.private_key, self.listen_port, self.fwmark, tuple(merged.values()))
        dns = NameServers.from_items(self.dns)
        return TunnelConf(device, tuple(self.addresses), self.mtu, names, self.table, dns)


def _items(value: str) -> list[str]:
    """wg-quick takes lists apart at commas and at white space."""
    return [item for item in re.split(r"[,\s]+", value) if item]


def _merge(peer: PeerConfig, section: _PeerSection) -> PeerConfig:
    allowed = dict.fromkeys(() if section.replaces else peer.allowed_ips)
    for network, wanted in section.prefixes:
        if wanted:
            allowed[network] = None
        else:
            allowed.pop(network, None)
    endpoint = peer.endpoint
    if section.has_endpoint:
        endpoint = section.endpoint if isinstance(section.endpoint, Endpoint) else None
    return PeerConfig(
        peer.public_key,
        None if section.clears_preshared_key else section.preshared_key or peer.preshared_key,
        endpoint,
        tuple(allowed),
        peer.persistent_keepalive if section.keepalive is None else section.keepalive,
    )


def _elsewhere(key: str, section: str) -> str:
    if section == "[interface]" and key in _PEER_KEYS:
        return ": it belongs under [Peer]"
    if section == "[peer]" and (key in _INTERFACE_KEYS or key in NOT_SUPPORTED or key in ("address", "dns")):
        return ": it belongs under [Interface]"
    return ""


# Values. Each takes the value with its white space gone and raises ValueError.


def _set_private_key(parser: _Parser, value: str) -> None:
    try:
        key = PrivateKey.from_text(value)
    except ValueError as error:
        raise ValueError(f"PrivateKey: {error}") from None
    # Zeros clear the key (rule U6); PrivateKey clamps, so they must be seen in the text.
    parser.private_key = None if value == _ZERO_KEY else key


def _set_listen_port(parser: _Parser, value: str) -> None:
    parser.listen_port = parse_port("ListenPort", value, parser.services)


def _set_mtu(parser: _Parser, value: str) -> None:
    parser.mtu = parse_number("MTU", value, MIN_MTU, MAX_MTU)


def _set_table(parser: _Parser, value: str) -> None:
    parser.table = parse_table(value)


def _set_fwmark(parser: _Parser, value: str) -> None:
    parser.fwmark = parse_mark(value)


def _set_public_key(peer: _PeerSection, value: str) -> None:
    try:
        peer.public_key = PublicKey.from_text(value)
    except ValueError as error:
        raise ValueError(f"PublicKey: {error}") from None


def _set_preshared_key(peer: _PeerSection, value: str) -> None:
    try:
        key = PresharedKey.from_text(value)
    except ValueError as error:
        raise ValueError(f"PresharedKey: {error}") from None
    peer.clears_preshared_key = key.raw == bytes(KEY_SIZE)
    peer.preshared_key = None if peer.clears_preshared_key else key


def _set_allowed_ips(peer: _PeerSection, value: str) -> None:
    peer.replaces = True
    for item in value.split(",") if value else ():
        unsigned = item[1:] if item[:1] in ("+", "-") else item
        if unsigned != item:
            peer.replaces = False
        peer.prefixes.append((parse_prefix(unsigned), not item.startswith("-")))


def _set_endpoint(peer: _PeerSection, value: str) -> None:
    peer.endpoint = parse_endpoint(value, peer.services)
    peer.has_endpoint = True


def _set_keepalive(peer: _PeerSection, value: str) -> None:
    peer.keepalive = 0 if value.lower() == "off" else parse_number("PersistentKeepalive", value, 0, 65535, ", or off")


_INTERFACE_KEYS: dict[str, Callable[[_Parser, str], None]] = {
    "privatekey": _set_private_key,
    "listenport": _set_listen_port,
    "fwmark": _set_fwmark,
    "mtu": _set_mtu,
    "table": _set_table,
}
_PEER_KEYS: dict[str, Callable[[_PeerSection, str], None]] = {
    "publickey": _set_public_key,
    "presharedkey": _set_preshared_key,
    "allowedips": _set_allowed_ips,
    "endpoint": _set_endpoint,
    "persistentkeepalive": _set_keepalive,
}

"""A server of wg-quick, or of an installer, as the facts of a registry: its `.conf`, with the names in its comments.

Nothing changes for its peers: the server's key, port and address, their keys, preshared keys and addresses stay.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from wgdisco.endpoint import LOOPBACK, Endpoint, in_any
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.names import check_member_name, label_of
from wgdisco.registry.directory import LIVE_FOR
from wgdisco.registry.facts import DEFAULT_GROUP, REGISTRY_HOST_NUMBER, Kind, Member, Network
from wgdisco.tunnel.conf import NOT_SUPPORTED, TunnelConf, no_services, parse_conf
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.notation import ServicePorts

DEFAULT_PORT = 51820
_NAME_SIZE = 63
# By installer: angristan `### Client alice`, PiVPN `### begin alice ###`, nyr `# BEGIN_PEER alice`; and by hand.
_MARKED = re.compile(
    r"(?:begin_peer\s+|begin\s+|client\s*:?\s+|(?:friendly_)?name\s*[=:]\s*)(?P<name>\S.*)", re.IGNORECASE
)
_END = re.compile(r"end(_peer)?\s", re.IGNORECASE)
_LINE_SWITCHED_OFF = re.compile(r"\w+\s*=|\[")  # a key's line, not a name
_KEY = re.compile(r"[A-Za-z0-9+/]{42,44}")
_SET_BY_NYR = re.compile(r"#\s*ENDPOINT\s+(\S+)\s*")
_SET_BY_PIVPN = re.compile(r"### begin .+ ###")
_TRANSLATES = re.compile(r"\b(masquerade|snat)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Server:
    """What a `.conf` says of a server and its peers.

    `names` are labels, all different. `endpoint_host` is where peers reach it, if the file says so; `ignored` are its
    keys that are not taken over. With `translates` its peers reach the Internet through it. In a file that `is_saved`
    by wg-quick (SaveConfig) endpoints are those last seen, elsewhere they are fixed.
    """

    conf: TunnelConf
    names: Mapping[PublicKey, str]
    endpoint_host: str | None
    ignored: tuple[str, ...]
    translates: bool
    is_saved: bool


@dataclass(frozen=True, slots=True)
class Adopted:
    """The network and its devices, and where and when (unix time) these were last; nothing when there are `refusals`.

    Each refusal is a line that says what, and why.
    """

    network: Network | None
    devices: tuple[Member, ...]
    endpoints: Mapping[PublicKey, tuple[Endpoint, float]]
    refusals: tuple[str, ...]


def read_server(text: str, path: str, services: ServicePorts = no_services) -> Server:
    """Read the file; ConfigError, with path and line, for what `wg` would not take. Hooks are passed over."""
    lines = text.split("\n")
    ignored: list[str] = []
    for number, line in enumerate(lines):
        key = line.partition("#")[0].partition("=")[0].strip()
        if key.lower() in NOT_SUPPORTED:
            ignored.append(key)
            lines[number] = ""
    conf = parse_conf("\n".join(lines), path, services)
    comments = _comments(text.split("\n"))
    at = next((match[1] for line in lines if (match := _SET_BY_NYR.fullmatch(line.strip()))), None)
    hooks = (line for line in text.split("\n") if line.strip().lower().startswith("postup"))
    # nyr's and PiVPN's do so by rules of their own
    by_rules = at is not None or any(_SET_BY_PIVPN.fullmatch(line.strip()) for line in lines)
    translates = by_rules or any(_TRANSLATES.search(line) for line in hooks)
    names = _names((peer.public_key for peer in conf.device.peers), comments)
    is_saved = "saveconfig" in (key.lower() for key in ignored)
    return Server(conf, names, at, tuple(dict.fromkeys(ignored)), translates, is_saved)


def adopt(
    server: Server,
    running: DeviceStatus | None,
    *,
    interface: str,
    mtu: int,
    name: str,
    zone: str,
    endpoint: str,
    full_tunnel: bool,
    spare_prefix6: IPv6Network,
    now: float,
) -> Adopted:
    """Facts of the network `name`. `running` is the server's `interface`, if it is up.

    Members reach it at `endpoint` (HOST:PORT); with `full_tunnel` devices reach the Internet through it, as they do
    where it translates; `spare_prefix6` is taken where the server has no IPv6; `now` is unix
    time.
    """
    device, refusals = server.conf.device, _refuse_server(server, running)
    four, six = _interfaces(server.conf)
    if refusals or four is None or device.private_key is None:
        return Adopted(None, (), {}, tuple(refusals))
    prefix6 = spare_prefix6 if six is None else six.network
    own_host = int(four.ip) - int(four.network.network_address)
    devices: dict[int, Member] = {}
    for peer in device.peers:
        number = _number(peer, server, four.network, prefix6, {own_host, *devices})
        if isinstance(number, int):
            member = _device(peer, server, number, now)
            devices[number] = replace(member, full_tunnel=full_tunnel or server.translates)
        else:
            refusals.append(f"{server.names[peer.public_key]} ({peer.public_key}): {number}")
    if refusals:
        return Adopted(None, (), {}, tuple(refusals))
    highest = max([own_host, *devices])
    network = Network(
        name,
        zone,
        device.private_key,
        listen_port(server, running),
        (endpoint,),
        four.network,
        prefix6,
        next_host=highest + 1 if highest < four.network.num_addresses - 2 else REGISTRY_HOST_NUMBER + 1,
        own_host=own_host,
        mtu=mtu,
        predecessor=None if running is None else interface,
    )
    return Adopted(network, tuple(devices.values()), _last_endpoints(server, running, now), ())


def connected(members: Iterable[Member], last: Mapping[PublicKey, float]) -> set[str]:
    """Names of the devices that had a session when the server was read, however long ago that is, or have met us since.

    `last` is when each was met last, in unix time.
    """
    return {
        member.name
        for member in members
        if member.kind is Kind.DEVICE and member.created_at - last.get(member.public_key, -math.inf) < LIVE_FOR
    }


# The server


def listen_port(server: Server, running: DeviceStatus | None) -> int:
    """The UDP port that its peers know."""
    return server.conf.device.listen_port or (0 if running is None else running.listen_port) or DEFAULT_PORT


def _interfaces(conf: TunnelConf) -> tuple[IPv4Interface | None, IPv6Interface | None]:
    fours = [address for address in conf.addresses if isinstance(address, IPv4Interface)]
    sixes = [address for address in conf.addresses if isinstance(address, IPv6Interface)]
    return fours[0] if fours else None, sixes[0] if sixes else None


def _refuse_server(server: Server, running: DeviceStatus | None) -> list[str]:
    conf, refusals = server.conf, []
    private_key = conf.device.private_key
    if private_key is None:
        refusals.append("the server: it has no PrivateKey")
    elif running is not None and running.public_key != private_key.public_key():
        refusals.append("the server: the interface that is up has another private key than the file")
    four, six = _interfaces(conf)
    for version in (4, 6):
        if sum(address.version == version for address in conf.addresses) > 1:
            refusals.append(f"the server: it has several IPv{version} addresses, a registry has one of each kind")
    if four is None:
        refusals.append("the server: it has no IPv4 address, which a registry needs")
    elif four.network.num_addresses < 4 or four.ip in (four.network[0], four.network[-1]):
        refusals.append(f"the server: Address = {four} is no host in a subnet that has its peers too")
    elif six is not None and int(six.ip) - int(six.network[0]) != int(four.ip) - int(four.network[0]):
        refusals.append(f"the server: {four.ip} and {six.ip} are not the same host number in their subnets")
    if six is not None and four is not None and six.network.num_addresses < four.network.num_addresses:
        refusals.append(f"the server: {six.network} has room for fewer hosts than {four.network}")
    if conf.device.fwmark:
        refusals.append("the server: it has a FwMark, which a registry does not set")
    listed = {peer.public_key for peer in conf.device.peers}
    if private_key is not None and private_key.public_key() in listed:
        refusals.append("the server: it is its own peer")
    refusals += [
        f"{peer.key}: it is a peer of the interface that is up, and not in the file: write it there, or take it off"
        for peer in (() if running is None else running.peers)
        if peer.key not in listed
    ]
    return refusals


def _last_endpoints(
    server: Server, running: DeviceStatus | None, now: float
) -> dict[PublicKey, tuple[Endpoint, float]]:
    """Where peers were last, and when: told by the interface or, of a file that `wg-quick` saved, by that."""
    saved = server.conf.device.peers if server.is_saved else ()
    last: dict[PublicKey, tuple[Endpoint | None, float]] = {
        peer.public_key: (peer.endpoint, now - LIVE_FOR) for peer in saved
    }
    for peer in () if running is None else running.peers:
        last[peer.key] = peer.endpoint, peer.handshake_unix or now - LIVE_FOR
    return {key: (at, when) for key, (at, when) in last.items() if at is not None and not in_any(at.address, LOOPBACK)}


# Peers


def _device(peer: PeerConfig, server: Server, number: int, now: float) -> Member:
    return Member(
        server.names[peer.public_key],
        peer.public_key,
        number,
        (DEFAULT_GROUP,),
        now,
        Kind.DEVICE,
        preshared_key=peer.preshared_key,
        proven=True,
        endpoint=None if server.is_saved else peer.endpoint,
    )


def _number(peer: PeerConfig, server: Server, prefix4: IPv4Network, prefix6: IPv6Network, taken: set[int]) -> int | str:
    """The host number of a peer, or why it can have none."""
    fours = [one for one in peer.allowed_ips if isinstance(one, IPv4Network)]
    sixes = [one for one in peer.allowed_ips if isinstance(one, IPv6Network)]
    if len(fours) != 1 or len(sixes) > 1 or any(one.prefixlen != one.max_prefixlen for one in peer.allowed_ips):
        shown = ", ".join(map(str, peer.allowed_ips)) or "none"
        return f"a device has one IPv4 address (/32) and at most one of IPv6 (/128), this has AllowedIPs {shown}"
    address = fours[0].network_address
    if address not in prefix4 or address in (prefix4[0], prefix4[-1]):
        return f"its address {address} is no host of {prefix4}"
    number = int(address) - int(prefix4[0])
    if number in taken:
        return f"its address {address} is the server's or another's too"
    if sixes and sixes[0].network_address != prefix6[number]:
        return f"its IPv6 address has to be {prefix6[number]}, as its IPv4 address is, not {sixes[0].network_address}"
    if peer.public_key in server.conf.endpoint_names:
        return "its Endpoint is a name: write its address, for it is a fixed one from now on"
    return number


# Names


def _comments(lines: list[str]) -> dict[str, list[str]]:
    """The comments of each [Peer] by the text of its PublicKey: those right above it, then those in it.

    An empty line parts what is above from it, but for what an installer marked.
    """
    found: dict[str, list[str]] = {}
    above: list[str] = []
    inside: list[str] = []
    for line in lines:
        code, has_comment, comment = line.partition("#")
        code, comment = re.sub(r"\s", "", code), comment.strip(" \t\r#")
        if not code:
            above = [*above, comment] if has_comment else [one for one in above if _MARKED.fullmatch(one)]
            continue
        if code.startswith("["):
            inside = []
        inside += [*above, comment]
        above = []
        key, equals, value = code.partition("=")
        if equals and key.lower() == "publickey":
            inside[:0] = found.get(value, [])
            found[value] = inside
    return found


def _names(keys: Iterable[PublicKey], comments: Mapping[str, list[str]]) -> dict[PublicKey, str]:
    names: dict[PublicKey, str] = {}
    for key in keys:
        wished = _name(comments.get(key.to_text(), []))
        names[key] = _free(wished or _by_key(key), set(names.values()))
    return names


def _name(comments: list[str]) -> str | None:
    """A name that may be a member's: a marked one, else the first comment that can be one."""
    said = [one for one in comments if one and not _END.match(one)]
    marked = [match["name"].partition("(")[0] for one in said if (match := _MARKED.fullmatch(one))]
    free = [one for one in said if not _LINE_SWITCHED_OFF.match(one) and not _MARKED.fullmatch(one)]
    for one in (*marked, *free):
        label = label_of(one.replace(".", "-"))  # no domain is cut off
        if label and not _KEY.search(one) and _is_valid(label):
            return label
    return None


def _is_valid(label: str) -> bool:
    try:
        check_member_name(label)
    except LocalError:
        return False
    return True


def _by_key(key: PublicKey) -> str:
    return "peer-" + re.sub(r"[^a-z0-9]", "", key.to_text().lower())[:4]


def _free(label: str, taken: set[str]) -> str:
    """The label or, where it is taken, the same with a number."""
    number, free = 1, label
    while free in taken:
        number += 1
        tail = f"-{number}"
        free = label[: _NAME_SIZE - len(tail)].rstrip("-") + tail
    return free

"""The text of a `set` under a fuzzer guided by coverage.

Beside "nothing raises": the device is what a model of the protocol on text makes of the lines up to the first at fault
(rules U6 to U9, U11, A3, A4); what `get` says makes the same device again; who is not spoken of keeps his session.
"""

import errno
import re
from dataclasses import dataclass, field
from ipaddress import ip_network

import pytest

from tests.fuzz.coverage import LONG, SHORT, Reader, fuzz, needs_atheris, replay
from tests.tunnel.wire import INITIATION, Node, Wire, joined
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.uapi import RefusedError, SetOperation, format_get

OWN = PrivateKey(bytes([5]) * 32)
PEERS = [bytes([number]) * 32 for number in range(1, 5)]
CONFIG = DeviceConfig(
    PrivateKey(bytes([6]) * 32),
    51820,
    peers=(PeerConfig(PublicKey(PEERS[0]), None, Endpoint.from_text("192.0.2.2:5"), (ip_network("10.0.0.0/8"),), 25),),
)
NAMES = [
    *("private_key", "listen_port", "fwmark", "replace_peers", "public_key", "remove", "update_only", "preshared_key"),
    *(
        "endpoint",
        "persistent_keepalive_interval",
        "replace_allowed_ips",
        "allowed_ip",
        "protocol_version",
        "get",
        "set",
    ),
]
VALUES = [
    *(key.hex() for key in (*PEERS, OWN.raw, OWN.public_key().raw, bytes(32))),
    *("true", "false", "0", "1", "25", "65535", "65536", "4294967295", "4294967296", ""),
    *("192.0.2.1:51820", "[2001:db8::1]:5", "[fe80::1%lo]:5", "192.0.2.1:0", "a.example:5"),
    *("10.0.0.0/8", "10.0.0.1/8", "-10.0.0.0/8", "::/0", "fd00::1/64", "-::/0", "10.0.0.0", "+10.0.0.0/8", "--::/0"),
]
ZEROS = "0" * 64
KEEPALIVE = "persistent_keepalive_interval"
READ_ONLY = ("last_handshake_time_sec", "last_handshake_time_nsec", "tx_bytes", "rx_bytes")
SHAPE = re.compile(r"[a-z_]+=[0-9a-zA-Z.:%/\[\]_-]+")


@dataclass
class Told:
    """What a device says of itself: settings of the interface, of each peer, and each peer's prefixes, as text."""

    device: dict[str, str] = field(default_factory=dict)
    peers: dict[str, dict[str, str]] = field(default_factory=dict)
    prefixes: dict[str, list[str]] = field(default_factory=dict)


class Sockets:
    """The machine, which lets us do anything."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def set_listen_port(self, port: int) -> None:
        self.device.listen_port = port

    def set_fwmark(self, mark: int) -> None:
        self.device.set_fwmark(mark)


def drive(node: Node, lines: list[str]) -> tuple[int, int]:
    """Carry out a `set`; its errno, 0 for none, and how many lines were good."""
    operation = SetOperation(node.device, Sockets(node.device), lambda: node.wire.now)
    number, good = 0, 0
    try:
        for line in lines:
            for _ in operation.take(line):
                pass
            good += 1
    except RefusedError as refused:
        number = refused.errno
    operation.finish()
    node.wire.settle()
    return number, good


def told(node: Node) -> list[str]:
    """What `get` says."""
    return "".join(format_get(node.device)).splitlines()


def settings(node: Node) -> list[str]:
    """The same without what cannot be set."""
    return [line for line in told(node) if line.partition("=")[0] not in READ_ONLY]


def _lines(reader: Reader) -> list[str]:
    lines = []
    while reader and len(lines) < 60:
        name, value = reader.number(len(NAMES) + 2), reader.number(len(VALUES) + 2)
        if name >= len(NAMES):
            lines.append(reader.some(80).decode("latin-1").replace("\n", ""))
            continue
        text = VALUES[value] if value < len(VALUES) else reader.some(80).decode("utf-8", "replace").replace("\n", "")
        lines.append(f"{NAMES[name]}={text}")
    return lines


def _speaks_of(lines: list[str], key: str) -> bool:
    return any(
        line.partition("=")[0] in {"private_key", "replace_peers", "allowed_ip"} or key in line.lower()
        for line in lines
    )


def _check_rules(node: Node) -> None:
    status = node.device.status()
    prefixes = [prefix for peer in status.peers for prefix in peer.allowed_ips]
    assert len(prefixes) == len(set(prefixes)), "a prefix has two owners"
    keys = [peer.key for peer in status.peers]
    assert len(keys) == len(set(keys))
    assert status.public_key is None or status.public_key not in keys
    assert all(SHAPE.fullmatch(line) for line in told(node))


def one_input(data: bytes) -> None:
    reader = Reader(data)
    has_session = reader.number(8) == 7
    lines = _lines(reader)
    node = _node()
    number, good = drive(node, lines)
    assert number in {0, errno.EINVAL, errno.EPROTO}
    _check_rules(node)
    said = settings(node)
    assert _parsed(said) == _model(lines[:good]), "not what the lines say, up to the first at fault (rule U8)"
    assert drive(node, ["replace_peers=true", f"private_key={'0' * 64}", "fwmark=0"]) == (0, 3)
    assert drive(node, said) == (0, len(said))
    assert settings(node) == said, "what is told does not make the same device"
    if has_session:
        _check_sessions(lines)


def _node() -> Node:
    """A device that has a key and a peer."""
    node = Wire().node("192.0.2.1:51820", "10.9.0.1")
    node.device.apply(CONFIG, 0.0)
    return node


def _parsed(said: list[str]) -> Told:
    """What `get` said, in the model's terms."""
    whole = Told()
    for line in said:
        key, _, value = line.partition("=")
        if key == "public_key":
            whole.peers[value] = {}
            whole.prefixes[value] = []
        elif key == "allowed_ip":
            next(reversed(whole.prefixes.values())).append(value)
        elif key != "protocol_version":
            (next(reversed(whole.peers.values())) if whole.peers else whole.device)[key] = value
    return whole


class Model:
    """The protocol as it is written, line by line, on text: no line here is at fault."""

    def __init__(self) -> None:
        peer, config = PEERS[0].hex(), CONFIG.peers[0]
        assert CONFIG.private_key is not None
        self.told = Told(
            {"private_key": CONFIG.private_key.raw.hex(), "listen_port": str(CONFIG.listen_port)},
            {
                peer: {
                    "preshared_key": ZEROS,
                    "endpoint": str(config.endpoint),
                    KEEPALIVE: str(config.persistent_keepalive),
                }
            },
            {peer: [str(network) for network in config.allowed_ips]},
        )
        self.block: str | None = ""  # whom lines are about: the interface, a peer, or nobody
        self.is_new = False
        self.waiting: dict[str, str] = {}  # until the block's end (rule U11)

    def own(self) -> str:
        private = self.told.device.get("private_key")
        return "" if private is None else PrivateKey(bytes.fromhex(private)).public_key().raw.hex()

    def end_block(self) -> None:
        if self.block:
            self.told.peers[self.block].update(self.waiting)
        self.waiting = {}

    def remove(self, key: str) -> None:
        self.told.peers.pop(key, None)
        self.told.prefixes.pop(key, None)

    def take(self, key: str, value: str) -> None:
        if key == "public_key":
            self.end_block()
            self.block, self.is_new = value.lower(), value.lower() not in self.told.peers
            if self.block == self.own():
                self.block = None
            elif self.is_new:
                self.told.peers[self.block] = {"preshared_key": ZEROS, KEEPALIVE: "0"}
                self.told.prefixes[self.block] = []
        elif self.block == "":
            self.take_of_interface(key, value)
        elif self.block is not None:
            self.take_of_peer(self.block, key, value)

    def take_of_interface(self, key: str, value: str) -> None:
        if key == "replace_peers":
            self.told.peers.clear()
            self.told.prefixes.clear()
        elif key == "private_key":
            self.told.device.pop(key, None)
            if value != ZEROS:
                self.told.device[key] = PrivateKey(bytes.fromhex(value)).raw.hex()
                self.remove(self.own())
        elif key == "fwmark" and int(value) == 0:
            self.told.device.pop(key, None)
        else:
            self.told.device[key] = str(int(value))

    def take_of_peer(self, peer: str, key: str, value: str) -> None:
        match key:
            case "remove" | "update_only":
                if key == "remove" or self.is_new:
                    self.remove(peer)
                    self.block = None
            case "replace_allowed_ips":
                self.told.prefixes[peer].clear()
            case "allowed_ip":
                self.take_prefix(self.told.prefixes[peer], value)
            case "preshared_key":
                self.waiting[key] = value.lower()
            case "endpoint":
                if not value.endswith(":0"):  # says nothing of where it is
                    self.waiting[key] = str(Endpoint.from_text(value))
            case _ if key == KEEPALIVE:
                self.waiting[key] = str(int(value))

    def take_prefix(self, mine: list[str], value: str) -> None:
        network = str(ip_network(value.removeprefix("-"), strict=False))
        if value.startswith("-"):
            if network in mine:
                mine.remove(network)
        elif network not in mine:
            for other in self.told.prefixes.values():
                if network in other:
                    other.remove(network)
            mine.append(network)


def _model(lines: list[str]) -> Told:
    model = Model()
    for line in lines:
        key, _, value = line.partition("=")
        model.take(key, value)
    model.end_block()
    return model.told


def _check_sessions(lines: list[str]) -> None:
    _, alice, bob = joined()
    alice.ping(bob)
    drive(alice, lines)
    if not _speaks_of(lines, bob.key.raw.hex()):
        mark = len(alice.wire.log)
        packet = alice.ping(bob)
        assert bob.delivered[-1] == packet
        assert [sent for sent in alice.wire.log[mark:] if sent.kind == INITIATION] == []


def test_the_corpus():
    replay(__name__, one_input)


@needs_atheris
def test_fuzzing(tmp_path):
    fuzz(__name__, SHORT, tmp_path)


@needs_atheris
@pytest.mark.soak
def test_fuzzing_for_long(tmp_path):
    fuzz(__name__, LONG, tmp_path)

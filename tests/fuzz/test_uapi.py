"""The text of a `set` under a fuzzer guided by coverage.

Beside "nothing raises": lines before a faulty one count and it alone does not (rule U8); a prefix has one owner (A3)
and our own key is no peer (U9); what `get` says makes the same device again; who is not spoken of keeps his session.
"""

import errno
import re
from ipaddress import ip_network

import pytest

from tests.fuzz.coverage import LONG, SHORT, Reader, fuzz, needs_atheris, replay
from tests.tunnel.wire import INITIATION, Node, Wire, joined
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.uapi import apply_set, format_get, parse_set

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
READ_ONLY = ("last_handshake_time_sec", "last_handshake_time_nsec", "tx_bytes", "rx_bytes")
SHAPE = re.compile(r"[a-z_]+=[0-9a-zA-Z.:%/\[\]_-]+")


def drive(node: Node, lines: list[str]) -> int:
    """Carry out a `set`; its errno."""
    operation = parse_set(lines)
    node.device.apply(apply_set(operation, node.device.config()), node.wire.now)
    node.wire.settle()
    return operation.errno


def told(node: Node) -> list[str]:
    """What `get` says."""
    return format_get(node.device.config(), node.device.status()).splitlines()


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
    number = drive(node, lines)
    assert number in {0, errno.EINVAL, errno.EPROTO, errno.EADDRINUSE, errno.EIO}
    _check_rules(node)
    assert len(node.device.status().peers) <= 1 + sum(line.startswith("public_key=") for line in lines)

    said = settings(node)
    fault = _first_fault(lines)
    assert (fault is None) == (number == 0), "one by one the lines have another fault"
    if fault is not None:
        before = _node()
        assert drive(before, lines[:fault]) == 0
        assert settings(before) == said, "lines before the faulty one count, and it does not"
    drive(node, ["replace_peers=true", f"private_key={'0' * 64}", "fwmark=0"])
    assert drive(node, said) == 0
    assert settings(node) == said, "what is told does not make the same device"
    if has_session:
        _check_sessions(lines)


def _node() -> Node:
    """A device that has a key and a peer."""
    node = Wire().node("192.0.2.1:51820", "10.9.0.1")
    node.device.apply(CONFIG, 0.0)
    return node


def _check_sessions(lines: list[str]) -> None:
    _, alice, bob = joined()
    alice.ping(bob)
    drive(alice, lines)
    if not _speaks_of(lines, bob.key.raw.hex()):
        mark = len(alice.wire.log)
        packet = alice.ping(bob)
        assert bob.delivered[-1] == packet
        assert [sent for sent in alice.wire.log[mark:] if sent.kind == INITIATION] == []


def _first_fault(lines: list[str]) -> int | None:
    """The first line that is refused when each prefix of the lines is tried in turn."""
    return next((at for at in range(len(lines)) if parse_set(lines[: at + 1]).errno), None)


def test_the_corpus():
    replay(__name__, one_input)


@needs_atheris
def test_fuzzing(tmp_path):
    fuzz(__name__, SHORT, tmp_path)


@needs_atheris
@pytest.mark.soak
def test_fuzzing_for_long(tmp_path):
    fuzz(__name__, LONG, tmp_path)

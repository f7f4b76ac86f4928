"""The zone behind the captured wgsd replies, and the replies themselves."""

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_network
from pathlib import Path

from wgdisco.api import CandidateRecord
from wgdisco.dnssd.instance import OwnInstance, ServiceInstance
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.keys import PublicKey

VECTORS = Path(__file__).parents[1] / "vectors" / "wgsd_golden.txt"
LOCAL: IPAddress = IPv4Address("127.0.0.1")
ALICE = PublicKey.from_text("xScVkH3fUGUv4RrJFfmcqm8rs3SEHr41km6+yffAHw4=")
BOB = PublicKey.from_text("syKB97XhGnvC+kynh2KqQJPXoOoOpx/HmpMRTc+r4js=")
REGISTRY = PublicKey.from_text("JeZlz14G8tg1Bqh6apteFCwVhNhpexJ19FDPfuxQtUY=")


def key(number: int) -> PublicKey:
    return PublicKey(bytes([number, *bytes(30), number]))


def peer(public_key: PublicKey, endpoint: str, *allowed: str) -> ServiceInstance:
    return ServiceInstance(public_key, Endpoint.from_text(endpoint), tuple(ip_network(prefix) for prefix in allowed))


def golden_zone() -> Zone:
    return Zone.create(
        "example.com.",
        serial=7,
        instances=(
            peer(ALICE, "203.0.113.1:7777", "10.0.0.1/32"),
            peer(BOB, "[2001:db8::8]:8888", "10.0.0.2/32", "fd00::2/128"),
            peer(key(4), "198.51.100.4:4444"),
            peer(key(5), "198.51.100.5:5555", *(f"10.{100 + number}.0.0/16" for number in range(30))),
            peer(key(6), "198.51.100.6:6666", *(f"10.{100 + number}.0.0/16" for number in range(14))),
        ),
        own=OwnInstance(REGISTRY, listen_port=51820, allowed_ips=(ip_network("10.0.0.254/32"),)),
    )


@dataclass(frozen=True)
class Golden:
    question: str
    rdtype: str
    reply: bytes

    def query(self) -> bytes:
        """What was asked: the header and the captured reply's own question, which echoes it."""
        end = 12 + len(self.question.encode()) + 1 + 4
        return bytes.fromhex("1234 0100 0001 0000 0000 0000") + self.reply[12:end]


def load() -> list[Golden]:
    lines = VECTORS.read_text().splitlines()
    vectors = []
    for line in lines:
        if line.startswith("Q ;"):
            asked, size, reply = line[3:].split(" | ")
            name, _, rdtype = asked.split(" rc ")[0].split()
            vectors.append(Golden(name, rdtype, bytes.fromhex(reply)))
            assert len(vectors[-1].reply) == int(size)
    return vectors


def known_peer(public_key: PublicKey) -> ServiceInstance:
    """One of whom as much is known as there may be, in its longest form."""
    addresses = [f"[2001:db8:aaaa:bbbb:cccc:dddd:eeee:{number:x}]" for number in range(0xFF0, 0xFF8)]
    candidates = tuple(CandidateRecord("srflx", f"{address}:65535", 4294967295) for address in addresses)
    instance = peer(public_key, "203.0.113.1:7777", "10.0.0.1/32", "fd00::1/128")
    return replace(instance, candidates=candidates, nat="apdm/apdf/-32", name="a" * 63)

"""The lab's core: what it decides, and that it does so on real packets."""

import sys
from collections import Counter
from ipaddress import ip_address, ip_network

import pytest

from wgdisco.lab.internet import Internet
from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.lab.packets import ICMP, UDP, Header
from wgdisco.lab.plan import Leaf, Plan, Router, Uplink, interfaces
from wgdisco.lab.wire import Conditions
from wgdisco.lab.wire import Router as Core

ROUTES = ((ip_network("198.18.1.0/24"), 0), (ip_network("198.18.2.0/24"), 1), (ip_network("198.18.2.128/25"), 2))


def header(source: str, destination: str, ttl: int = 64, protocol: int = UDP) -> Header:
    return Header(4, ttl, ip_address(source).packed, ip_address(destination).packed, protocol, 1, 2, 28)


def test_the_longest_prefix_is_the_way() -> None:
    core = Core(Conditions(ROUTES))
    assert [core.link(ip_address(a).packed) for a in ("198.18.2.1", "198.18.2.130", "8.8.8.8", "2001:db8::1")] == [
        1,
        2,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("packet", "fate"),
    [
        (header("198.18.1.1", "198.18.2.1"), "sent"),
        (header("198.18.1.1", "198.18.2.1", ttl=4), "ttl"),
        (header("198.18.1.1", "198.18.2.1", ttl=5), "sent"),
        (header("192.168.1.1", "198.18.2.1"), "unroutable"),
        (header("100.64.1.1", "198.18.2.1"), "unroutable"),
        (header("198.18.1.1", "192.168.1.1"), "unroutable"),
        (header("198.18.1.1", "198.18.9.9"), "unroutable"),
        (header("198.18.1.1", "198.18.2.130"), "blocked"),
        (header("198.18.2.130", "198.18.1.1"), "blocked"),
        (header("198.18.1.1", "198.18.2.130", protocol=ICMP), "sent"),
        (header("198.18.1.1", "198.18.2.131"), "sent"),
        (header("198.18.1.1", "198.18.2.9"), "unroutable"),
        (header("198.18.2.9", "198.18.1.1"), "sent"),
    ],
)
def test_fates(packet: Header, fate: str) -> None:
    conditions = Conditions(
        ROUTES,
        blocked=((ip_network("198.18.1.0/24"), ip_network("198.18.2.130")),),
        dead=(ip_network("198.18.2.9"),),
    )
    assert Core(Conditions.from_json(conditions.to_json())).judge(packet) == fate


def test_loss_is_the_seed_s() -> None:
    def fates(seed: int) -> list[str]:
        core = Core(Conditions(ROUTES, loss=0.2, seed=seed))
        return [core.judge(header("198.18.1.1", "198.18.2.1")) for _ in range(5000)]

    assert fates(1) == fates(1)
    assert fates(1) != fates(2)
    assert 900 < Counter(fates(3))["lost"] < 1100


SEND = """
import socket, sys
sender = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
level, option = (41, 16) if ":" in sys.argv[1] else (0, 2)
sender.setsockopt(level, option, int(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    sender.sendto(b"hello", (sys.argv[1], 9))
"""


def site(name: str, number: int, nat_type: str) -> tuple[Router, Leaf]:
    router = Router(
        f"nat-{name}",
        NAT_TYPES[nat_type],
        interfaces(f"198.18.{number}.10/25", f"2001:db8:{number}::1/128"),
        interfaces(f"192.168.{number}.1/24", f"2001:db8:{number}:1::1/64"),
    )
    own = interfaces(f"192.168.{number}.10/24", f"2001:db8:{number}:1::10/64")
    return router, Leaf(name, (Uplink(router.name, own),))


@pytest.mark.usefixtures("needs_lab")
def test_delay_loss_hops_and_the_record_of_real_packets() -> None:
    (nat, host), server = (
        site("a", 1, "symmetric-random"),
        Leaf("server", (Uplink(None, interfaces("198.51.100.10/24", "2001:db8:f::10/64")),)),
    )
    with Internet(Plan((nat,), (host, server)), Conditions((), delay=0.01)) as net:
        since = 0.0
        for target, own in (("198.51.100.10", "198.18.1.10"), ("2001:db8:f::10", "2001:db8:1:1::10")):
            output = net.hosts["a"].run(["ping", "-nc3", "-i0.05", target]).stdout
            assert " 3 received" in output
            assert 20.0 <= float(output.rpartition("=")[2].split("/")[0]) < 40.0
            send = [sys.executable, "-c", SEND, target]
            net.hosts["a"].run([*send, "4", "1"])  # the router, and not all of the core's hops
            net.hosts["a"].run([*send, "64", "1"])
            udp = [one for one in net.crossings(since) if one.is_udp and one.destination == ip_address(target)]
            assert {str(one.source) for one in udp} == {own}
            assert [(one.fate, one.ttl, one.head) for one in udp] == [("ttl", 3, b"hello"), ("sent", 63, b"hello")]
            since = udp[-1].at + 1e-6
        before = udp[-1].source_port
        net.set_conditions(Conditions((), loss=0.5, seed=3))
        net.hosts["a"].run([sys.executable, "-c", SEND, "198.51.100.10", "64", "100"])
        fates = Counter(one.fate for one in net.crossings(since) if one.is_udp)
        assert 30 < fates["lost"] < 70
        assert fates["lost"] + fates["sent"] == 100
        assert before


PORT = """
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.bind(("", 4000))
sender.sendto(b"hello", ("198.51.100.10", 9))
"""


@pytest.mark.usefixtures("needs_lab")
def test_a_router_that_forgets_its_connections_maps_anew() -> None:
    (nat, host), server = (
        site("a", 1, "symmetric-random"),
        Leaf("server", (Uplink(None, interfaces("198.51.100.10/24")),)),
    )
    with Internet(Plan((nat,), (host, server))) as net:
        for forgets in (False, False, True):
            if forgets:
                net.forget_connections("nat-a")
            net.hosts["a"].run([sys.executable, "-c", PORT])
        first, second, third = (one.source_port for one in net.crossings(0.0) if one.is_udp)
        assert first == second != third

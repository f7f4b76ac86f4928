"""The lab's core is the Internet in small: it routes, hides nothing, and carries no private address."""

import sys

import pytest

from wgdisco.endpoint import Endpoint
from wgdisco.errors import ConfigError, LocalError
from wgdisco.lab.capture import UDP, Packet, count
from wgdisco.lab.topology import REGISTRY_ADDRESSES, Lab

pytestmark = pytest.mark.usefixtures("needs_lab")

SEND = """
import socket, sys
address, port, size, times = sys.argv[1], *map(int, sys.argv[2:])
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(times):
    sender.sendto(bytes(size), (address, port))
"""
SEND_IN_ONE_GO = """
import socket, struct, sys
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
UDP_SEGMENT = 103
sender.sendmsg([bytes(1000 * 20)], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 1000))], 0, (sys.argv[1], 9))
"""


def pings(lab: Lab, host: str, *arguments: str) -> int:
    """How many of two pings come back."""
    output = lab.hosts[host].run(["ping", "-c2", "-i0.05", "-W1", *arguments], check=False).stdout
    return int(output.split(" received")[0].rpartition(" ")[2])


def test_all_reach_the_registry_and_the_core_counts_a_hop() -> None:
    with Lab("port-restricted", "public") as lab:
        registry = str(lab.outside("registry"))
        assert pings(lab, "alice", registry) == 2
        assert pings(lab, "bob", registry) == 2
        assert pings(lab, "alice", str(lab.outside("bob"))) == 2
        assert pings(lab, "bob", "-t2", registry) == 0  # nat-b and the core are two hops
        assert pings(lab, "bob", "-t3", registry) == 2


def test_core_drops_private_addresses() -> None:
    with Lab("public", "public") as lab, lab.capture() as capture:
        lab.hosts["registry"].run(["ip", "addr", "add", "192.168.9.9/32", "dev", "lo"])
        assert pings(lab, "registry", "-I192.168.9.9", str(lab.outside("bob"))) == 0
        lab.hosts["core"].run(["ip", "route", "add", "192.168.9.9", "via", str(lab.outside("registry"))])
        assert pings(lab, "bob", "192.168.9.9") == 0
        capture.stop()
        addresses = {address for packet in capture.packets for address in (packet.source, packet.destination)}
        assert not any(Endpoint(address, 9).is_private for address in addresses)


def test_capture_counts_what_passes_and_block_direct_stops_it() -> None:
    with Lab("public", "public") as lab:
        a, b = lab.outside("alice"), lab.outside("bob")
        send = [sys.executable, "-c", SEND, str(b), "9", "1000"]
        with lab.capture() as capture:
            lab.hosts["alice"].run([*send, "3"])
            lab.block_direct()
            lab.hosts["alice"].run([*send, "5"])
            lab.hosts["alice"].run([sys.executable, "-c", SEND, str(REGISTRY_ADDRESSES[0]), "53", "100", "1"])
            lab.unblock_direct()
            lab.hosts["alice"].run([*send, "7"])
        direct = capture.direct(a, b)
        assert count(direct) == 10
        assert {(packet.protocol, packet.destination_port, packet.length, packet.first_byte) for packet in direct} == {
            (UDP, 9, 1028, 0)
        }
        assert capture.direct(a, b, since=direct[-1].at) == direct[-1:]
        assert [packet.length for packet in capture.touching(REGISTRY_ADDRESSES[0]) if packet.protocol == UDP] == [128]
        assert capture.lost == 0


def test_capture_counts_the_packets_of_one_big_send() -> None:
    with Lab("public", "public") as lab, lab.capture() as capture:
        lab.hosts["alice"].run([sys.executable, "-c", SEND_IN_ONE_GO, str(lab.outside("bob"))])
        capture.stop()
        assert count(capture.direct(lab.outside("alice"), lab.outside("bob"))) == 20


def test_packet_line_round_trip() -> None:
    packet = Packet(1.5, REGISTRY_ADDRESSES[0], REGISTRY_ADDRESSES[1], 1, 0, 0, 84, 1, None)
    assert Packet.from_text(packet.to_text()) == packet


def test_hosts_share_no_files_in_run_and_state() -> None:
    with Lab("public", "public") as lab:
        for path in ("/run/wgdisco/alice.conf", "/var/lib/wgdisco/state"):
            lab.hosts["alice"].write_file(path, "secret\n")
            assert lab.hosts["alice"].run(["stat", "-c%a", path]).stdout == "600\n"
            assert lab.hosts["alice"].run(["cat", path]).stdout == "secret\n"
            with pytest.raises(LocalError, match=r"bob: cat .*: No such file"):
                lab.hosts["bob"].run(["cat", path])


def test_unknown_nat_type_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="no NAT type 'conical': choose from public, firewall"):
        Lab(nat_a="conical")

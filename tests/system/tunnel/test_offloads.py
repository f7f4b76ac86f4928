"""What the kernel does for many packets at once: that it is used, that each of it can be switched off, and that
nothing stops where the kernel refuses it.

::

    n1 wg1 192.168.241.1 ── 10.0.0.1 ── cable ── 10.0.0.2 ── 192.168.241.2 wg2 n2

A stream, or large sends by UDP, from n1 to n2; what was used is seen in the kernel's own counters.
"""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.interop import transfer
from tests.system.network import await_
from tests.system.tunnel.bed import TUNNEL, Bed, Tunnel, introduce

pytestmark = pytest.mark.usefixtures("needs_lab")

MEGABYTES = 4
FULL = 1368  # of a TCP segment, with timestamps
PACKETS = MEGABYTES * transfer.MEGABYTE // FULL
REFERENCE = [sys.executable, "-c", f"from wgdisco.tunnel import burst; burst.use('reference'); {TUNNEL[2]}"]
ENGINES = pytest.mark.parametrize("program", [TUNNEL, REFERENCE], ids=["compiled", "reference"])
REFUSING = Path(__file__).with_name("refusing.c")

# 10 sends of 40 datagrams of 1300 bytes, one call each
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    for _ in range(10):
        sender.sendmsg([bytes(40 * 1300)], [(17, 103, (1300).to_bytes(2, sys.byteorder))], 0, ("192.168.241.2", 9))
"""
DATAGRAMS = 10 * 40  # no more than the interface queues


@contextmanager
def pair(offload: str = "all", program: Sequence[str] = TUNNEL, **environment: str):
    with Bed("n1", "n2") as bed:
        bed.veth("n1", "cable", "n2", "cable")
        for number, host in ((1, "n1"), (2, "n2")):
            bed.address(host, "cable", f"10.0.0.{number}/24")
        env = {"WGDISCO_OFFLOAD": offload, **environment}
        wg1, wg2 = (bed.tunnel(f"wg{n}", f"n{n}", env=env, program=program) for n in (1, 2))
        introduce(wg1, wg2)
        wg1.set("peer", wg2.public, "endpoint", "10.0.0.2:2")
        await_(lambda: bed.ping("n1", "192.168.241.2"), "the tunnel")
        yield bed, wg1, wg2


def stream(bed: Bed, address: str = "192.168.241.2") -> None:
    """Send the known stream from n1 to n2; asserts that it arrives whole."""
    program = [sys.executable, "-m", "tests.interop.transfer"]
    with bed["n2"].popen([*program, "receive", address, "5001", str(MEGABYTES)], stdout=subprocess.PIPE) as receiver:
        try:
            assert receiver.stdout.readline().strip() == "listening"
            bed.run("n1", *program, "send", address, "5001", str(MEGABYTES))
            assert receiver.stdout.readline().strip() == transfer.digest(MEGABYTES)
        finally:
            receiver.kill()


@dataclass
class Counts:
    """Frames that went into wg1 and came out of wg2; datagrams as n1's and n2's sockets counted calls and buffers."""

    read: int
    written: int
    sent: int
    received: int


def counts(bed: Bed, wg1: Tunnel, wg2: Tunnel) -> Counts:
    def of_link(tunnel: Tunnel, what: str) -> int:
        lines = bed.run(tunnel.host, "cat", "/proc/net/dev").splitlines()
        words = next(line for line in lines if line.strip().startswith(f"{tunnel.name}:")).partition(":")[2].split()
        return int(words[1 if what == "rx" else 9])

    def of_udp(host: str, what: str) -> int:
        names, values = (
            line.split() for line in bed.run(host, "cat", "/proc/net/snmp").splitlines() if line.startswith("Udp:")
        )
        return int(values[names.index(what)])

    return Counts(of_link(wg1, "tx"), of_link(wg2, "rx"), of_udp("n1", "OutDatagrams"), of_udp("n2", "InDatagrams"))


def difference(before: Counts, after: Counts) -> Counts:
    return Counts(
        after.read - before.read,
        after.written - before.written,
        after.sent - before.sent,
        after.received - before.received,
    )


def few(count: int, of: int) -> bool:
    return count < of / 3


def has_uso(bed: Bed, wg1: Tunnel, wg2: Tunnel) -> bool:
    """Whether this kernel hands large frames of UDP over: it came with 6.2."""
    before = counts(bed, wg1, wg2)
    bed.run("n1", sys.executable, "-c", SEND)
    return few(difference(before, counts(bed, wg1, wg2)).read, DATAGRAMS)


def of_a_stream(bed: Bed, wg1: Tunnel, wg2: Tunnel) -> Counts:
    before = counts(bed, wg1, wg2)
    stream(bed)
    return difference(before, counts(bed, wg1, wg2))


def test_all_of_it_is_used():
    with pair() as (bed, wg1, wg2):
        if not has_uso(bed, wg1, wg2):
            print("this kernel has no USO")
        seen = of_a_stream(bed, wg1, wg2)
        assert all(few(count, PACKETS) for count in (seen.read, seen.written, seen.sent, seen.received)), seen


def test_without_tso_each_segment_is_a_frame():
    with pair("uso,udp_gso,udp_gro") as tunnels:
        seen = of_a_stream(*tunnels)
        assert seen.read >= PACKETS
        assert seen.written >= PACKETS
        assert few(seen.sent, PACKETS)


@pytest.mark.rule("S12")
def test_without_uso_each_datagram_is_a_frame():
    with pair("tso,udp_gso,udp_gro") as tunnels:
        before = counts(*tunnels)
        tunnels[0].run("n1", sys.executable, "-c", SEND)
        await_(lambda: difference(before, counts(*tunnels)).written >= DATAGRAMS, "the last datagram")
        assert difference(before, counts(*tunnels)).read >= DATAGRAMS
        seen = of_a_stream(*tunnels)
        assert few(seen.read, PACKETS)


def test_without_udp_gso_each_datagram_is_sent_alone():
    with pair("tso,uso,udp_gro") as tunnels:
        seen = of_a_stream(*tunnels)
        assert seen.sent >= PACKETS
        assert few(seen.read, PACKETS)


def test_without_udp_gro_each_datagram_is_received_alone():
    with pair("tso,uso,udp_gso") as tunnels:
        seen = of_a_stream(*tunnels)
        assert seen.received >= PACKETS
        assert few(seen.sent, PACKETS)


def test_without_any_of_it():
    with pair("none") as tunnels:
        seen = of_a_stream(*tunnels)
        assert min(seen.read, seen.written, seen.sent, seen.received) >= PACKETS, seen


# Where the kernel refuses


@pytest.fixture(scope="module")
def refusing(tmp_path_factory) -> str:
    library = tmp_path_factory.mktemp("refusing") / "refusing.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(REFUSING)]
    subprocess.run(command, check=True)
    return str(library)


@pytest.fixture
def refused(tmp_path) -> Path:
    path = tmp_path / "refused"
    path.touch()
    return path


@ENGINES
@pytest.mark.rule("S7")
def test_a_device_without_checksums_ends_the_large_sends_and_not_the_tunnel(refusing, refused, program):
    """EIO, once a socket: then the datagrams go one by one."""
    refuses = {"LD_PRELOAD": refusing, "REFUSE": "segments", "REFUSED": str(refused)}
    with pair(program=program, **refuses) as tunnels:
        seen = of_a_stream(*tunnels)
        assert seen.sent >= PACKETS
        assert len(refused.read_bytes()) in (2, 4)  # one of each end, two where a lane was the first to try


@ENGINES
def test_frames_that_the_kernel_refuses_are_written_packet_by_packet(refusing, refused, program):
    """EINVAL for large frames."""
    refuses = {"LD_PRELOAD": refusing, "REFUSE": "large", "REFUSED": str(refused)}
    with pair(program=program, **refuses) as (bed, wg1, wg2):
        seen = of_a_stream(bed, wg1, wg2)
        assert refused.read_bytes()
        assert seen.written >= PACKETS
        assert few(seen.sent, PACKETS)
        assert bed.ping("n1", "192.168.241.2") == 1


@pytest.mark.rule("D14")
def test_a_path_that_takes_less_than_a_row_gets_plain_datagrams():
    """EMSGSIZE for UDP_SEGMENT: the stream is whole, each datagram in two fragments."""
    with pair() as (bed, wg1, wg2):
        for host in ("n1", "n2"):
            bed.ip(host, "link", "set", "cable", "mtu", "1280")
        seen = of_a_stream(bed, wg1, wg2)
        assert seen.sent >= PACKETS
        for host in ("n1", "n2"):
            bed.ip(host, "link", "set", "cable", "mtu", "1500")
        assert bed.ping("n1", "192.168.241.2") == 1

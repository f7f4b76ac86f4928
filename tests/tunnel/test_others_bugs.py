"""Bugs that other WireGuard engines shipped, each of which must not be ours: X1 to X22 of tests/rules.txt.

Here are those that need no interface; for X8, X13, X14, X15 and X20 see tests/system/tunnel/test_others_bugs.py.
"""

import ctypes
import errno
import os
import select
import socket
import struct
from itertools import pairwise
from pathlib import Path

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from tests.tunnel.wire import INITIATION, RESPONSE, TRANSPORT, Wire, joined
from wgdisco.endpoint import Endpoint
from wgdisco.tunnel.burst import Burst, padded_size
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.io.udp import UdpSockets
from wgdisco.tunnel.uapi import format_get

LOOPBACKS = ("127.0.0.1", "::1")
ICMP = 1


@pytest.mark.rule("X1")
@pytest.mark.parametrize("late", [0.26, 1.0, 4.9])
def test_a_late_response_counts(late):
    wire, alice, bob = joined()
    wire.hold = True
    packet = alice.ping(bob)
    wire.pass_on(wire.held[0])
    wire.run(late)
    wire.release()
    assert alice.status(bob).handshake_at == wire.now
    assert bob.delivered == [packet]
    assert len(wire.since(0, INITIATION)) == 1


@pytest.mark.rule("X2", "T10")
@pytest.mark.parametrize("gap", [0.5, 1.0, 11.0])
def test_sessions_are_renewed_once_in_120_seconds_and_no_more(gap):
    """Half an hour of packets both ways: one handshake at the start, and one each time the session is 120 s old."""
    wire, alice, bob = joined()
    began, sent = wire.now, 0
    while wire.now < began + 1800.0:
        alice.ping(bob)
        bob.ping(alice)
        sent += 1
        wire.run(gap)
    initiations = [sent.at for sent in wire.log if sent.kind == INITIATION]
    assert len(initiations) == len([sent for sent in wire.log if sent.kind == RESPONSE])
    assert all(120.0 <= later - earlier < 120.0 + gap + 1e-6 for earlier, later in pairwise(initiations))
    assert len(initiations) >= 1800.0 // (120.0 + gap)
    assert len(bob.delivered) == len(alice.delivered) == sent


@pytest.mark.rule("X2", "T10")
def test_an_idle_session_with_keepalives_is_renewed_once_in_120_seconds():
    wire, alice, bob = joined()
    alice.change(bob, endpoint=bob.endpoint, persistent_keepalive=25)
    wire.run(1800.0)
    initiations = [sent.at for sent in wire.log if sent.kind == INITIATION]
    assert 1800.0 // 145.0 <= len(initiations) <= 1800.0 // 120.0 + 1


@pytest.mark.rule("X3")
@pytest.mark.parametrize("address", ["192.0.2.9", "[2001:db8::9]"])
@pytest.mark.parametrize("port", [1, 65534, 65535])
def test_a_peer_may_be_at_the_last_port(address, port):
    wire = Wire()
    alice = wire.node(f"{address}:{port}", "10.9.0.1")
    bob = wire.node("198.51.100.2:51820" if address[0] != "[" else "[2001:db8::2]:51820", "10.9.0.2")
    wire.introduce(alice, bob)
    wire.introduce(bob, alice, endpoint=None)
    packet = alice.ping(bob)
    answer = bob.ping(alice)
    assert (bob.delivered, alice.delivered) == ([packet], [answer])
    assert f"endpoint={address}:{port}\n" in "".join(format_get(bob.device))


def _arrival(sockets: UdpSockets) -> tuple[Burst, Endpoint]:
    """The first thing to arrive."""
    ready, _, _ = select.select(sockets.fds, [], [], 5.0)
    assert ready
    ((burst, source),) = sockets.receive(ready[0])
    return burst, source


@pytest.mark.rule("X3")
@in_namespace
def test_a_socket_hears_from_the_last_port_and_answers_it():
    sockets = UdpSockets.open(65534)
    for host, family in zip(LOOPBACKS, (socket.AF_INET, socket.AF_INET6), strict=True):
        with socket.socket(family, socket.SOCK_DGRAM) as stranger:
            stranger.settimeout(5.0)
            stranger.bind((host, 65535))
            stranger.sendto(b"x", (host, 65534))
            _, source = _arrival(sockets)
            assert source == Endpoint.from_text(f"[{host}]:65535" if ":" in host else f"{host}:65535")
            sockets.send(Burst.of(b"y"), source)
            assert stranger.recvfrom(9)[0] == b"y"
    sockets.rebind(65535)
    assert sockets.port == 65535
    sockets.close()


@pytest.mark.rule("X4")
@in_namespace
def test_an_ipv6_source_is_an_ipv6_source():
    """Also one that has an IPv4 address in its last bytes, and one of zeros but for a bit."""
    sockets = UdpSockets.open()
    for host in ("::1", "::7f00:1", "::2", "fd00::7"):
        if host != "::1":
            ip("addr", "add", f"{host}/128", "dev", "lo", "nodad")
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as stranger:
            stranger.bind((host, 0))
            stranger.sendto(b"x", ("::1", sockets.port))
            _, source = _arrival(sockets)
            assert source == Endpoint.from_text(f"[{host}]:{stranger.getsockname()[1]}")
            assert source.address.version == 6
    sockets.close()


@pytest.mark.rule("X4", "E1")
def test_an_ipv6_source_becomes_the_endpoint():
    wire, alice, bob = joined()
    alice.ping(bob)
    for text in ("[2001:db8::77]:1234", "[::1]:9", "[fe80::1%3]:51820", "203.0.113.7:4321"):
        source = Endpoint.from_text(text)
        wire.hold = True
        alice.ping(bob)
        wire.hold = False
        bob.receive(wire.held.pop().data, source)
        assert bob.status(alice).endpoint == source
        assert f"endpoint={text}\n" in "".join(format_get(bob.device))


@pytest.mark.rule("X5", "T11")
@pytest.mark.parametrize("step", [0.001, 1.0, 3600.0, 1e9])
def test_a_wall_clock_that_goes_back_is_not_noticed(step):
    """Neither by a session nor by the handshakes that renew it."""
    wire, alice, bob = joined()
    alice.ping(bob)
    wire.unix_offset -= step
    for _ in range(40):
        wire.run(10.0)
        alice.ping(bob)
        bob.ping(alice)
    assert len(bob.delivered) == 41
    assert len(alice.delivered) == 40
    assert bob.drops(Drop.REPLAYED_INITIATION) == 0
    assert len(wire.since(0, INITIATION)) == len(wire.since(0, RESPONSE)) == 4


@pytest.mark.rule("X5", "T11")
@pytest.mark.parametrize("seed", range(5))
def test_a_boot_clock_that_trembles_breaks_nothing(seed):
    """It never goes back; if it did, as on a kernel that gets it wrong by a little, nothing may be raised or lost."""
    wire, alice, bob = joined(seed)
    steps = [wire.random.choice((3.0, 7.0, 31.0, -0.001, -0.4, -2.0)) for _ in range(200)]
    for step in steps:
        wire.now += step
        for node in (alice, bob):
            node.device.handle_timer(wire.now)
        wire.settle()
        alice.ping(bob)
        bob.ping(alice)
    assert len(bob.delivered) == len(alice.delivered) == len(steps)


@pytest.mark.rule("X6", "M1", "D4")
@pytest.mark.parametrize("mtu", [0, 1, 15, 16, 68, 576, 1280, 1420, 9000, 65503, 65535])
def test_any_mtu_pads_and_delivers(mtu):
    _wire, alice, bob = joined()
    alice.device.set_mtu(mtu)
    bob.device.set_mtu(mtu)
    packets = [alice.ping(bob, payload=bytes(size)) for size in (0, 1, 11, 12, 40, 1252, 1392, 1400, 9000, 65000)]
    assert bob.delivered == packets
    for size in range(1, 200):
        assert size <= padded_size(size, mtu) < size + 16


@pytest.mark.rule("X7", "U6")
def test_a_device_whose_peers_are_taken_away_has_none():
    wire, alice, bob = joined(persistent_keepalive=5)
    alice.ping(bob)
    alice.ping(bob)
    late = next(sent for sent in reversed(wire.log) if sent.kind == TRANSPORT and sent.source == alice.endpoint)
    mark = len(wire.log)
    bob.device.apply(DeviceConfig(bob.private), wire.now)
    wire.settle()
    delivered = list(bob.delivered)
    assert bob.device.status().peers == bob.device.config().peers == ()
    bob.receive(late.data, alice.endpoint)
    alice.ping(bob)
    bob.ping(alice)
    wire.run(300.0)
    (unreachable,) = bob.delivered[len(delivered) :]
    assert unreachable[9] == ICMP
    assert wire.since(mark, by=bob) == []
    assert bob.drops(Drop.UNKNOWN_INDEX) > 0
    assert bob.drops(Drop.UNKNOWN_PEER) > 0


@pytest.mark.rule("X9", "E2")
@in_namespace
def test_a_random_port_is_free_for_both_families():
    """IPv6 has all ports but one; whatever IPv4 gets first, it ends with the one."""
    Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("50000 50003")
    taken = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(3)]
    for number, other in enumerate(taken):
        other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        other.bind(("::", 50000 + number))
    for _ in range(5):
        sockets = UdpSockets.open(0)
        assert sockets.port == 50003
        assert len(sockets.fds) == 2
        sockets.close()
    for other in taken:
        other.close()


@pytest.mark.rule("X10", "U4", "T8")
def test_the_time_of_the_last_handshake_is_told_as_it_was():
    """In seconds and nanoseconds since 1970: of the last handshake, not of the last packet, and 0 for none."""
    wire, alice, bob = joined()

    def told(node):
        lines = "".join(format_get(node.device)).splitlines()
        at = dict(line.split("=") for line in lines)
        return int(at["last_handshake_time_sec"]), int(at["last_handshake_time_nsec"])

    assert told(alice) == told(bob) == (0, 0)
    wire.now += 0.25
    alice.ping(bob)
    first = (int(wire.unix_time()), 250_000_000)
    assert told(alice) == told(bob) == first
    wire.run(50.5)
    alice.ping(bob)
    assert told(alice) == told(bob) == first
    wire.run(100.0)
    alice.ping(bob)
    assert told(alice) == told(bob) == (first[0] + 150, 750_000_000)


@pytest.mark.rule("X11", "T3")
def test_handshakes_are_repeated_with_jitter():
    """Of 0 to 333 ms, never twice the same in a row, and different from peer to peer."""
    gaps = []
    for seed in (1, 2):
        wire, alice, bob = joined(seed)
        wire.lose = lambda _sent: True
        alice.ping(bob)
        wire.run(89.0)
        at = [sent.at for sent in wire.log]
        gaps.append([later - earlier - 5.0 for earlier, later in pairwise(at)])
    for jitters in gaps:
        assert len(jitters) >= 15
        assert all(0.0 <= jitter <= 0.334 for jitter in jitters)
        assert max(jitters) - min(jitters) > 0.1
    assert gaps[0] != gaps[1]


@pytest.mark.rule("X12", "H11", "T12")
def test_no_handshake_message_is_consumed_while_the_interface_is_down():
    """Neither an initiation nor a response; once up, the very next initiation is answered."""
    wire, alice, bob = joined()
    wire.hold = True
    bob.ping(alice)
    initiation = wire.held.pop()
    alice.receive(initiation.data, bob.endpoint)
    response = wire.held.pop()
    wire.run(5.4)
    initiation = wire.held.pop()
    assert (initiation.kind, response.kind) == (INITIATION, RESPONSE)
    alice.device.set_up(False, wire.now)
    bob.device.set_up(False, wire.now)
    mark = len(wire.log)
    alice.receive(initiation.data, bob.endpoint)
    bob.receive(response.data, alice.endpoint)
    assert wire.since(mark) == []
    assert bob.status(alice).handshake_at is None
    assert not alice.device._local.indices
    assert not bob.device._local.indices
    wire.hold = False
    wire.now += 1.0
    for node in (alice, bob):
        node.device.set_up(True, wire.now)
    packet = bob.ping(alice)
    assert alice.delivered == [packet]


@pytest.mark.rule("X16")
@in_namespace
def test_every_control_message_of_a_burst_is_read():
    """One receive brings the segment size, the traffic class and the address it came to, in the kernel's order."""
    one, two = UdpSockets.open(), UdpSockets.open()
    for host in LOOPBACKS:
        to = Endpoint.from_text(f"[{host}]:{two.port}" if ":" in host else f"{host}:{two.port}")
        data = bytes(1000) + bytes([1]) * 1000 + bytes([2]) * 10
        one.send(Burst(data, 1000, tos=0x88 | 2), to)
        burst, _ = _arrival(two)
        assert (bytes(burst.data), burst.row) == (data, 1000)
        assert burst.tos == 0x88 | 2
        assert burst.local is not None
        assert burst.local.packed == to.address.packed
    one.close()
    two.close()


def _forget_ipv6() -> None:
    """From now on this process is on a kernel without IPv6: a seccomp filter refuses such sockets (seccomp(2))."""
    number = {"x86_64": 41, "aarch64": 198}.get(os.uname().machine)
    if number is None:
        pytest.skip("the number of socket(2) is known of x86_64 and aarch64 only")
    load, equal, answer = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EAFNOSUPPORT
    steps = [
        (load, 0, 0, 0),  # the system call
        (equal, 0, 3, number),
        (load, 0, 0, 16),  # its first argument
        (equal, 0, 1, socket.AF_INET6),
        (answer, 0, 0, refuse),
        (answer, 0, 0, allow),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for option, *arguments in ((38, 1, 0), (22, 2, ctypes.addressof(program))):  # NO_NEW_PRIVS; SECCOMP, by a filter
        values = [ctypes.c_ulong(value) for value in arguments]
        assert libc.prctl(option, *values, ctypes.c_ulong(0), ctypes.c_ulong(0)) == 0, os.strerror(ctypes.get_errno())


@pytest.mark.rule("X21", "E2")
@in_namespace
def test_without_ipv6_there_is_ipv4_and_a_port():
    _forget_ipv6()
    with pytest.raises(OSError, match="Address family not supported"):
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    for port in (0, 51820):
        sockets = UdpSockets.open(port)
        assert sockets.port == port or (port == 0 and sockets.port > 0)
        assert len(sockets.fds) == 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"x", ("127.0.0.1", sockets.port))
            assert bytes(_arrival(sockets)[0].data) == b"x"
        sockets.send(Burst.of(b"x"), Endpoint.from_text("[2001:db8::1]:9"))
        assert sockets.dropped.total() == 1
        sockets.close()


@pytest.mark.rule("X22", "H7")
def test_a_session_is_found_by_its_whole_index():
    """Indices that agree in their low byte, or in all but one bit, are as different as any."""
    wire, alice, bob = joined()
    carol = wire.node("203.0.113.3:51820", "10.9.0.3")
    wire.introduce(bob, carol)
    wire.introduce(carol, bob)
    alice.ping(bob)
    carol.ping(bob)
    assert len(bob.delivered) == 2
    wire.hold = True
    alice.ping(bob)
    wire.hold = False
    data = wire.held.pop().data
    index = int.from_bytes(data[4:8], "little")
    for bit in range(32):
        other = (index ^ 1 << bit).to_bytes(4, "little")
        bob.receive(data[:4] + other + data[8:], alice.endpoint)
    # The index of another peer's session: its keys do not open this.
    (carols,) = (sent.index for sent in wire.log if sent.kind == TRANSPORT and sent.source == carol.endpoint)
    bob.receive(data[:4] + carols.to_bytes(4, "little") + data[8:], alice.endpoint)
    assert len(bob.delivered) == 2
    assert bob.drops(Drop.UNKNOWN_INDEX) == 32
    assert bob.drops(Drop.FORGED) == 1
    bob.receive(data, alice.endpoint)
    assert len(bob.delivered) == 3


@pytest.mark.rule("X22", "H7", "H13")
def test_a_hundred_sessions_are_not_taken_for_each_other():
    """As many as twelve days of renewals make, between two peers that take turns in beginning."""
    wire, alice, bob = joined()
    for number in range(100):
        here, there = (alice, bob) if number % 2 else (bob, alice)
        wire.run(181.0)
        here.ping(there)
        there.ping(here)
    assert len(alice.delivered) == len(bob.delivered) == 100
    assert len(wire.since(0, INITIATION)) == 100
    assert len({sent.index for sent in wire.log if sent.kind == TRANSPORT}) == 200
    assert len(alice.device._local.indices) <= 3

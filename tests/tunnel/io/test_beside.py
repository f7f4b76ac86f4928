"""Two sockets of one port: another's, which has it, and ours beside it, which sees and sends the same."""

import select
import socket
import struct

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.tunnel.frames import Burst
from wgdisco.tunnel.io.beside import BesideSockets

PORT, UDP_SEGMENT = 51820, 103
HERE = {4: "127.0.0.1", 6: "::1"}
HEAD = b"\4\0\0\0" + b"\x07\0\0\0"


def message(counter, size):
    return HEAD + counter.to_bytes(8, "little") + bytes(size - 16)


def received(beside, version):
    """The next call's messages and whence they came."""
    fd = beside.fds[version // 6]
    assert select.select([fd], [], [], 5)[0]
    return [(bytes(row), source) for burst, source in beside.receive(fd) for row in burst.rows()]


def sockets(version):
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    owner, other = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    owner.settimeout(5)
    other.settimeout(5)
    owner.bind(("", PORT))
    other.bind((HERE[version], 0))
    return owner, other


def both_hear_and_speak(version):
    ip("link", "set", "lo", "up")
    owner, other = sockets(version)
    beside = BesideSockets.open(PORT)
    at, there = other.getsockname()[:2], (HERE[version], PORT)
    endpoint = Endpoint.from_text(f"127.0.0.1:{at[1]}" if version == 4 else f"[::1]:{at[1]}")
    with owner, other:
        other.sendto(message(0, 64), there)
        assert owner.recv(2000) == message(0, 64)
        assert beside.fds == ()
        beside.hear()
        other.sendto(message(1, 64), there)
        assert received(beside, version) == [(owner.recv(2000), endpoint)] == [(message(1, 64), endpoint)]
        beside.send(Burst(b"one" + b"two" + b"3", 3), endpoint)
        answers = [other.recvfrom(10) for _ in range(3)]
        assert [answer for answer, _ in answers] == [b"one", b"two", b"3"]
        assert {source[:2] for _, source in answers} == {there}, "as the owner's own"
        # as peers that send many at once have them on the way
        many = [message(number, 64) for number in range(5)] + [message(5, 32)]
        other.sendmsg([b"".join(many)], [(socket.IPPROTO_UDP, UDP_SEGMENT, struct.pack("=H", 64))], 0, there)
        found = []
        while len(found) < len(many):
            found += received(beside, version)
        assert found == [(one, endpoint) for one in many]
        # more than one call takes, none of which is missed in the end, nor lost by the kernel meanwhile
        for number in range(1000):
            other.sendto(message(number, 1452), there)
        assert [bytes(burst.data) for burst, _ in beside.rest()] == [message(number, 1452) for number in range(1000)]
        assert not beside.dropped
        with pytest.raises(LocalError, match="UDP port 51820 is being taken over"):
            beside.rebind(4500)
    beside.close()
    beside.close()


@in_namespace
def test_both_hear_and_speak_by_ipv4():
    both_hear_and_speak(4)


@in_namespace
def test_both_hear_and_speak_by_ipv6():
    both_hear_and_speak(6)

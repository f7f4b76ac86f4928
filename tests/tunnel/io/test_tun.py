import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.errors import ConfigError, LocalError
from wgdisco.tunnel.frames import Frames
from wgdisco.tunnel.io.tun import TUN_PATH, InterfaceGoneError, Tun, check_name
from wgdisco.tunnel.segment import split


def packet(last: int, size: int) -> bytes:
    """An IPv4 header for 10.0.0.`last`, filled up to `size`."""
    return bytes([0x45, *bytes(15), 10, 0, 0, last, *bytes(size - 20)])


@pytest.mark.parametrize("name", ["", "a" * 16, "a/b", "a b", "tun%d", ".", "..", "é"])
def test_names_no_interface_can_have(name):
    with pytest.raises(ConfigError, match="cannot name an interface"):
        check_name(name)


def echo(sender: socket.socket, *sizes: int) -> None:
    for size in sizes:
        sender.sendto(bytes(size), ("10.77.0.2", 9))


@in_namespace
def test_packets_out_and_in():
    tun = Tun.open("tt0")
    ip("addr", "add", "10.77.0.1/24", "dev", "tt0")
    Path("/proc/sys/net/ipv6/conf/tt0/disable_ipv6").write_text("1")  # no router solicitations between the packets
    ip("link", "set", "tt0", "up")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("10.77.0.1", 0))
        here.settimeout(5)
        assert list(tun.read()) == []
        echo(here, 100, 100, 100, 50, 100)
        (frames,) = tun.read()
        assert [len(packet) for packet in frames.packets()] == [128, 128, 128, 78, 128]
        request = split(bytes(list(frames)[-1]))[0]
        echo(here, *[1392] * 300)
        counts = []
        while read := list(tun.read()):
            counts.append(sum(map(len, read)))
        assert sum(counts) == 300
        assert max(counts) == 46  # as many as leave room for a frame of any size
        # Turned round, a packet comes back to its sender.
        port = here.getsockname()[1].to_bytes(2, "big")
        reply = request[:12] + request[16:20] + request[12:16] + request[22:24] + port + request[24:26] + b"\0\0"
        tun.write(Frames.of(reply + b"hello".ljust(100)))
        data, source = here.recvfrom(200)
        assert data.strip() == b"hello"
        assert source == ("10.77.0.2", 9)
        tun.write(Frames.of(b"\x15 no such version"))
        ip("link", "set", "tt0", "down")
        tun.write(Frames.of(reply))
        assert tun.dropped == {"EINVAL": 1, "EIO": 1}
    tun.close()
    tun.close()
    assert "tt0" not in ip("link")


@pytest.mark.rule("U2")
@in_namespace
def test_an_interface_without_virtio_headers():
    """As others open theirs and hand it over in WG_TUN_FD."""
    fd = os.open(TUN_PATH, os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", b"tt0", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
    tun = Tun.adopt(fd)
    assert (tun.name, tun.takes_tcp, tun.takes_udp) == ("tt0", False, False)
    ip("addr", "add", "10.77.0.1/24", "dev", "tt0")
    Path("/proc/sys/net/ipv6/conf/tt0/disable_ipv6").write_text("1")
    ip("link", "set", "tt0", "up")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind(("10.77.0.1", 0))
        here.settimeout(5)
        assert tun.read() == []
        echo(here, 100, 50)
        packets = [bytes(packet) for frames in tun.read() for packet in frames.packets()]
        assert [len(packet) for packet in packets] == [128, 78]
        request, port = packets[0], here.getsockname()[1].to_bytes(2, "big")
        reply = request[:12] + request[16:20] + request[12:16] + request[22:24] + port + request[24:26] + b"\0\0"
        tun.write(Frames.of(b"\x15 no such version", reply + b"hello".ljust(100)))
        assert here.recvfrom(200)[0].strip() == b"hello"
    assert tun.dropped == {"EINVAL": 1}
    ip("link", "del", "tt0")
    with pytest.raises(InterfaceGoneError):
        tun.read()
    with pytest.raises(InterfaceGoneError):
        tun.write(Frames.of(reply))
    tun.close()


@in_namespace
def test_deleting_the_interface_is_noticed():
    tun = Tun.open("tt0")
    ip("link", "del", "tt0")
    with pytest.raises(InterfaceGoneError, match="interface tt0 was deleted"):
        tun.read()
    with pytest.raises(InterfaceGoneError):
        tun.write(Frames.of(packet(1, 100)))
    tun.close()


@in_namespace
def test_names_that_are_taken():
    tun = Tun.open("tt0")
    with pytest.raises(LocalError, match="interface tt0 is in use by another program"):
        Tun.open("tt0")
    with pytest.raises(LocalError, match="interface lo exists and is no TUN interface"):
        Tun.open("lo")
    tun.close()


AS_NOBODY = """
import os
from wgdisco.errors import LocalError
from wgdisco.tunnel.frames import Frames
from wgdisco.tunnel.io.tun import Tun
os.setuid(65534)
try:
    Tun.open("tt1")
except LocalError as error:
    print(error)
"""


@in_namespace
def test_without_privilege_or_device():
    said = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=True).stdout
    assert said.startswith("no permission to ")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/net"], check=True)
    with pytest.raises(LocalError, match="no TUN device: load it with 'modprobe tun'"):
        Tun.open("tt1")
    assert os.path.exists("/dev")

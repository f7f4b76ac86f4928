"""Bugs that other engines shipped and that show on a real interface or socket only; the list is in
tests/tunnel/test_others_bugs.py.
"""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.system.network import await_
from tests.system.tunnel.bed import Bed, Tunnel, new_key

pytestmark = pytest.mark.usefixtures("needs_lab")

MOST_IN_UDP = (65507 - 32) // 16 * 16


@contextmanager
def _connected() -> Iterator[tuple[Bed, Tunnel, Tunnel]]:
    """A session between wg1 in n1 and wg2 in n2, which meet on n0's loopback."""
    with Bed("n0", "n1", "n2") as bed:
        one = bed.tunnel("wg1", "n0", moved_to="n1")
        two = bed.tunnel("wg2", "n0", moved_to="n2")
        for number, here, there in ((1, one, two), (2, two, one)):
            other = 3 - number
            here.set("private-key", here.key, "listen-port", number)
            peer = ["allowed-ips", f"192.168.241.{other}/32", "endpoint", f"127.0.0.1:{other}"]
            here.set("peer", there.public, *peer)
            here.addresses(f"192.168.241.{number}/24")
            here.up()
        assert bed.ping("n1", "192.168.241.2") == 1
        yield bed, one, two


@contextmanager
def _call(tunnel: Tunnel) -> Iterator[socket.socket]:
    """A connection to the engine's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(10.0)
        caller.connect(f"/proc/{tunnel.home.pid}/root/run/wireguard/{tunnel.name}.sock")
        yield caller


@pytest.mark.rule("X6", "M1")
@pytest.mark.parametrize("mtu", [68, 65535])
def test_the_interface_may_have_any_mtu(mtu):
    """The least and the most that Linux lets a TUN interface have, set while the tunnel is in use.

    An IPv4 datagram takes 65,507 bytes, 32 of which are WireGuard's; what is left is a multiple of 16 after padding.
    """
    with _connected() as (bed, one, two):
        one.up(mtu)
        two.up(mtu)
        assert bed.ping("n1", "192.168.241.2", "-s", str(min(mtu, MOST_IN_UDP) - 28)) == 1
        assert bed.ping("n2", "192.168.241.1", "-s", str(min(2 * mtu, MOST_IN_UDP - 28))) == 1


@pytest.mark.rule("X8", "U2", "E8")
def test_the_interface_is_deleted_amid_traffic():
    """`ip link del` from elsewhere, with pings on their way: the engine ends well, says nothing, takes its socket."""
    with _connected() as (bed, one, two):
        pings = bed["n2"].popen(["ping", "-f", "-q", "192.168.241.1"], stdout=subprocess.DEVNULL)
        try:
            before = one.transfer(two.public)[0]
            await_(lambda: one.transfer(two.public)[0] > before + 10_000, "traffic")
            one.delete()
        finally:
            pings.kill()
            pings.wait()
        assert one.home.run(["sh", "-c", "ls /run/wireguard"]).stdout == "wg2.sock\n"


_LISTEN = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
    listener.bind(("127.0.0.1", 1111))
    print("listening", flush=True)
    while True:
        print(len(listener.recv(2048)), flush=True)
"""


@pytest.mark.rule("X13", "X14", "U9", "T9")
@pytest.mark.parametrize("ending", ["the blank line", "the next peer"])
def test_a_peer_begins_when_its_block_ends_and_no_sooner(ending):
    """A keepalive is due with the peer's first line that says so; it goes when all of the block is known.

    ::

        set=1, public_key=, endpoint=, persistent_keepalive_interval=   nothing goes out
        allowed_ip= and the blank line (or another public_key=)         an initiation, with the connection still open
    """
    peer = new_key().public_key()
    with Bed("n0") as bed:
        tunnel = bed.tunnel("wg0", "n0")
        tunnel.set("private-key", tunnel.key)
        tunnel.up()
        with (
            bed["n0"].popen(["python3", "-c", _LISTEN], stdout=subprocess.PIPE) as listener,
            _call(tunnel) as caller,
        ):
            try:
                assert listener.stdout is not None
                assert listener.stdout.readline() == "listening\n"
                caller.sendall(f"set=1\npublic_key={peer.raw.hex()}\nendpoint=127.0.0.1:1111\n".encode())
                caller.sendall(b"persistent_keepalive_interval=1\n")
                with pytest.raises(subprocess.TimeoutExpired):
                    listener.wait(0.3)
                assert str(peer) not in dict(tunnel.show("endpoints")) or tunnel.transfer(peer) == (0, 0)
                caller.sendall(b"allowed_ip=10.0.0.0/8\n")
                end = (
                    b"\n"
                    if ending == "the blank line"
                    else b"public_key=" + new_key().public_key().raw.hex().encode() + b"\n\n"
                )
                caller.sendall(end)
                assert caller.recv(64) == b"errno=0\n\n"
                assert listener.stdout.readline() == "148\n"
            finally:
                listener.kill()
        assert tunnel.show("allowed-ips")[0] == [str(peer), "10.0.0.0/8"]


@pytest.mark.rule("X15", "U15")
@pytest.mark.parametrize("how", ["SIGTERM", "ip link del"])
def test_closing_amid_gets_and_sets(how):
    """Four callers ask and tell without a pause while the engine is ended: it ends well and has nothing to say."""
    with Bed("n0") as bed:
        tunnel = bed.tunnel("wg0", "n0")
        tunnel.up()
        networks = "".join(f"allowed_ip=10.{n}.0.0/16\n" for n in range(256))
        operations = (b"get=1\n\n", f"set=1\npublic_key={new_key().public_key().raw.hex()}\n{networks}\n".encode())
        answers = [0] * 4

        def ask(number: int) -> None:
            with suppress(OSError):
                while True:
                    with _call(tunnel) as caller:
                        caller.sendall(operations[number % 2])
                        while part := caller.recv(1 << 16):
                            if part.endswith(b"errno=0\n\n"):
                                answers[number] += 1
                                break

        callers = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for caller in callers:
            caller.start()
        await_(lambda: min(answers) >= 5, "answers to all callers")
        if how == "SIGTERM":
            tunnel.stop()
        else:
            tunnel.delete()
        for caller in callers:
            caller.join(15.0)
            assert not caller.is_alive()


@pytest.mark.rule("X20")
def test_a_signal_in_the_middle_of_a_call_ends_nothing():
    """The engine is stopped and continued again and again, which interrupts what it waits in; the tunnel goes on."""
    with _connected() as (bed, one, _two):
        nsenter = one.process.pid  # stops with the engine, and continues it when it is continued itself
        command = ["ping", "-q", "-i", "0.01", "-c", "100", "-W", "2", "192.168.241.2"]
        with bed["n1"].popen(command, stdout=subprocess.PIPE) as pings:
            stopped = 0
            while pings.poll() is None:
                one.process.send_signal(signal.SIGSTOP)
                await_(lambda: Path(f"/proc/{nsenter}/stat").read_text().rpartition(")")[2].split()[0] == "T", "a stop")
                os.kill(nsenter, signal.SIGCONT)
                stopped += 1
                with suppress(subprocess.TimeoutExpired):
                    pings.wait(0.02)
            assert stopped >= 10
            assert pings.stdout is not None
            assert " 100 received" in pings.stdout.read()


@pytest.mark.rule("X21", "E2")
def test_without_ipv6_the_engine_starts_and_has_a_port():
    """IPv6 is switched off in the host: the tunnel works over IPv4, and the port that `wg` shows is the one in use."""
    with Bed("n0", "n1") as bed:
        for host in ("n0", "n1"):
            for scope in ("all", "default", "lo"):
                bed.sysctl(host, f"net/ipv6/conf/{scope}/disable_ipv6", 1)
        bed.ip("n0", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1", "netns", str(bed["n1"].inner_pid))
        tunnels = [bed.tunnel("wg0", host) for host in ("n0", "n1")]
        for number, (here, there) in enumerate((tunnels, tunnels[::-1])):
            bed.address(here.host.name, f"veth{number}", f"192.0.2.{number + 1}/24")
            bed.ip(here.host, "link", "set", f"veth{number}", "up")
            here.set("private-key", here.key, "peer", there.public, "allowed-ips", f"192.168.241.{2 - number}/32")
            here.addresses(f"192.168.241.{number + 1}/24")
            here.up()
        ((port,),) = tunnels[1].show("listen-port")
        assert int(port) > 0
        tunnels[0].set("peer", tunnels[1].public, "endpoint", f"192.0.2.2:{port}")
        assert bed.ping("n0", "192.168.241.2") == 1
        ((port,),) = tunnels[0].show("listen-port")
        assert tunnels[1].endpoint(tunnels[0].public) == f"192.0.2.1:{port}"
        tunnels[0].set("listen-port", 777)
        assert bed.ping("n0", "192.168.241.2") == 1
        assert tunnels[1].endpoint(tunnels[0].public) == "192.0.2.1:777"

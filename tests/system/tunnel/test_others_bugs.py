"""Bugs that other engines shipped and that show on a real interface or socket only: of X1 to X22 in tests/rules.txt."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.system.network import await_
from tests.system.tunnel.bed import Bed, Tunnel, loopback_pair, new_key

pytestmark = pytest.mark.usefixtures("needs_lab")

MOST_IN_UDP = (65507 - 32) // 16 * 16


@contextmanager
def _connected() -> Iterator[tuple[Bed, Tunnel, Tunnel]]:
    """A session between wg1 in n1 and wg2 in n2, which meet on n0's loopback."""
    with Bed("n0", "n1", "n2") as bed:
        one, two = loopback_pair(bed)
        one.set("peer", two.public, "endpoint", "127.0.0.1:2")
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
    listener.settimeout(5.0)
    print("listening", flush=True)
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
            bed["n0"].popen([sys.executable, "-c", _LISTEN], stdout=subprocess.PIPE) as listener,
            _call(tunnel) as caller,
        ):
            try:
                assert listener.stdout is not None
                assert listener.stdout.readline() == "listening\n"
                caller.sendall(f"set=1\npublic_key={peer.raw.hex()}\nendpoint=127.0.0.1:1111\n".encode())
                caller.sendall(b"persistent_keepalive_interval=1\n")
                with pytest.raises(subprocess.TimeoutExpired):
                    listener.wait(0.3)  # it would end with what it hears
                next_peer = f"public_key={new_key().public_key().raw.hex()}\n"
                ends = ["\n"] if ending == "the blank line" else [next_peer, "\n"]
                caller.sendall(f"allowed_ip=10.0.0.0/8\n{ends[0]}".encode())
                assert listener.stdout.readline() == "148\n"
                caller.sendall("".join(ends[1:]).encode())
                assert caller.recv(64) == b"errno=0\n\n"
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

"""Scenarios 15 and 16: what `wg` sets it gets back, much of it and odd bits of it.

Each bigger one prints how long it took; the limits are there so that something quadratic fails, not to measure.
"""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.system.tunnel.bed import Bed, Tunnel, new_key, new_psk
from tests.tunnel.test_noise import LOW_ORDER
from wgdisco.keys import PublicKey

pytestmark = pytest.mark.usefixtures("needs_lab")


@contextmanager
def _one() -> Iterator[Tunnel]:
    """One engine, told nothing yet."""
    with Bed("n0") as bed:
        yield bed.tunnel("wg0", "n0")


@contextmanager
def _within(seconds: float, what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    print(f"{what}: {took:.2f} s")
    assert took < seconds


def _uapi(tunnel: Tunnel, text: str) -> str:
    """Say `text` to the engine's socket: its answer, up to its blank line."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(30.0)
        caller.connect(f"/proc/{tunnel.home.pid}/root/run/wireguard/{tunnel.name}.sock")
        caller.sendall(text.encode())
        answer = ""
        while not answer.endswith("\n\n"):
            part = caller.recv(1 << 16).decode()
            assert part, f"the engine hung up: {answer!r}"
            answer += part
        return answer


def _networks(tunnel: Tunnel) -> dict[str, list[str]]:
    """Allowed IPs by peer."""
    return {peer: [] if networks == "(none)" else networks.split() for peer, networks in tunnel.show("allowed-ips")}


# Scenario 15


@pytest.mark.rule("N15", "U13", "A5")
def test_130560_allowed_ips_on_one_peer():
    """255 x 256 x (one IPv4 /16 and one IPv6 /128), in one setconf, and back in one show; then all are taken away."""
    peer = str(new_key().public_key())
    pairs = [(f"{a}.{b}.0.0/16", f"{a:x}::{b:x}/128") for a in range(1, 256) for b in range(256)]
    lines = "".join(f"AllowedIPs={v4},{v6}\n" for v4, v6 in pairs)
    config = f"[Interface]\nPrivateKey={new_key().to_text()}\n[Peer]\nPublicKey={peer}\n"
    with _one() as tunnel:
        with _within(60.0, "wg setconf with 130,560 allowed IPs"):
            tunnel.home.run(["wg", "setconf", "wg0", "/dev/stdin"], text=config + lines, timeout=60.0)
        with _within(20.0, "wg show of them"):
            networks = _networks(tunnel)
        assert list(networks) == [peer]
        # An address that ends in zeros is printed shorter.
        assert len(networks[peer]) == 255 * 256 * 2
        assert set(networks[peer]) == {network.replace("::0/", "::/") for pair in pairs for network in pair}
        with _within(5.0, "wg set of one thing beside them"):
            tunnel.set("peer", peer, "persistent-keepalive", 0)
        with _within(20.0, "wg set that takes them away"):
            tunnel.set("peer", peer, "allowed-ips", "")
        assert _networks(tunnel) == {peer: []}


@pytest.mark.rule("N15", "U13")
def test_40_peers_with_52_allowed_ips_each():
    """As many as make netlink split its answer; each peer keeps its own."""
    peers = {str(new_key().public_key()): [f"{a}.{b}.0.0/16" for b in range(1, 53)] for a in range(1, 41)}
    config = f"[Interface]\nPrivateKey={new_key().to_text()}\n"
    for peer, networks in peers.items():
        config += f"[Peer]\nPublicKey={peer}\n" + "".join(f"AllowedIPs={network}\n" for network in networks)
    with _one() as tunnel:
        with _within(10.0, "wg setconf with 40 x 52"):
            tunnel.setconf(config)
        shown = _networks(tunnel)
        assert {peer: set(networks) for peer, networks in shown.items()} == {k: set(v) for k, v in peers.items()}
        assert all(len(networks) == 52 for networks in shown.values())


@pytest.mark.rule("N15")
def test_30_peers_of_which_the_last_has_addresses():
    """29 peers that are a key and nothing else, and no private key; showconf gives back what setconf was given."""
    peers = [str(new_key().public_key()) for _ in range(30)]
    config = "".join(f"[Peer]\nPublicKey={peer}\n" for peer in peers) + "AllowedIPs=255.2.3.4/32,abcd::255/128\n"
    with _one() as tunnel:
        tunnel.setconf(config)
        shown = tunnel.bed.run(tunnel.home, "wg", "showconf", "wg0")
        assert [line.split(" = ")[1] for line in shown.splitlines() if line.startswith("PublicKey")] == peers
        assert {peer: set(networks) for peer, networks in _networks(tunnel).items()} == {
            **{peer: set() for peer in peers[:-1]},
            peers[-1]: {"255.2.3.4/32", "abcd::255/128"},
        }


@pytest.mark.rule("N15")
def test_197_allowed_ips_on_the_second_of_two_peers():
    """The first has none, and says so."""
    first, second = (str(new_key().public_key()) for _ in range(2))
    networks = [f"abcd::{number}" for number in range(1, 198)]
    with _one() as tunnel:
        tunnel.set("peer", first)
        tunnel.set("peer", second, "allowed-ips", ",".join(networks))
        shown = _networks(tunnel)
        assert list(shown) == [first, second]
        assert shown[first] == []
        assert set(shown[second]) == {f"{network}/128" for network in networks}
        assert len(shown[second]) == 197


@pytest.mark.rule("N15", "A4", "U7", "U16")
def test_6_of_394_allowed_ips_are_taken_away_with_a_minus():
    """The incremental form of 2025: `allowed_ip=-…` takes one away, from the peer that has it and from no other.

    Said to the socket itself, because a `wg` older than that does not know it.
    """
    mine, other = new_key().public_key(), new_key().public_key()
    networks = {f"192.168.0.{n}/32" for n in range(1, 198)} | {f"abcd::{n}/128" for n in range(1, 198)}
    gone = {f"192.168.0.{n}/32" for n in (1, 20, 100)} | {f"abcd::{n}/128" for n in (1, 20, 100)}
    with _one() as tunnel:
        tunnel.set("peer", other, "allowed-ips", "10.0.0.1/32")
        tunnel.set("peer", mine, "allowed-ips", ",".join(sorted(networks)))
        assert set(_networks(tunnel)[str(mine)]) == networks
        removals = "".join(f"allowed_ip=-{network}\n" for network in sorted(gone))
        # The last two are not there to be taken: another's, and nobody's.
        removals += "allowed_ip=-10.0.0.1/32\nallowed_ip=-172.16.0.0/12\n"
        assert _uapi(tunnel, f"set=1\npublic_key={mine.raw.hex()}\n{removals}\n") == "errno=0\n\n"
        shown = _networks(tunnel)
        assert set(shown[str(mine)]) == networks - gone
        assert len(shown[str(mine)]) == 388
        assert shown[str(other)] == ["10.0.0.1/32"]


# Scenario 16


@pytest.mark.rule("N16")
def test_an_interface_that_is_not_there():
    """`wg show doesnotexist` fails, and leaves those that are there alone."""
    with _one() as tunnel:
        answer = tunnel.home.run(["wg", "show", "doesnotexist"], check=False)
        assert answer.returncode == 1
        assert "Unable to access interface" in answer.stderr
        assert tunnel.home.run(["wg", "show", "interfaces"]).stdout == "wg0\n"


@pytest.mark.rule("N16", "U6", "U7")
def test_keys_are_set_and_cleared():
    """Private key and preshared key come back as they were set; `/dev/null` takes either away."""
    peer, psk = new_key().public_key(), new_psk()
    with _one() as tunnel:
        tunnel.set("private-key", tunnel.key, "peer", peer, "preshared-key", psk)
        assert tunnel.show("private-key") == [[tunnel.key.to_text()]]
        assert tunnel.show("preshared-keys") == [[str(peer), psk.to_text()]]
        tunnel.set("private-key", "/dev/null", "peer", peer, "preshared-key", "/dev/null")
        assert tunnel.show("private-key") == tunnel.show("public-key") == [["(none)"]]
        assert tunnel.show("preshared-keys") == [[str(peer), "(none)"]]


@pytest.mark.rule("N16", "U9", "H16")
def test_our_own_key_is_no_peer():
    """A peer whose key becomes ours goes, and does not come back while it is ours; afterwards it may."""
    first, second = new_key(), new_key()
    peer = second.public_key()
    with _one() as tunnel:
        tunnel.set("private-key", first, "peer", peer)
        assert tunnel.show("peers") == [[str(peer)]]
        tunnel.set("private-key", second)
        assert tunnel.show("public-key") == [[str(peer)]]
        assert tunnel.show("peers") == []
        tunnel.set("peer", peer)
        assert tunnel.show("peers") == []
        tunnel.set("private-key", first)
        assert tunnel.show("peers") == []
        tunnel.set("peer", peer)
        assert tunnel.show("peers") == [[str(peer)]]


@pytest.mark.rule("N16")
def test_a_private_key_comes_back_clamped():
    """The lowest three bits of a private key are zero (RFC 7748, section 5): `/…` comes back as `+…`."""
    with _one() as tunnel:
        text = new_key().to_text()[1:]
        tunnel.home.write_file("/run/unclamped", f"/{text}\n")
        tunnel.set("private-key", "/run/unclamped")
        assert tunnel.show("private-key") == [[f"+{text}"]]


@pytest.mark.rule("N16", "A1", "A5")
def test_everything_and_overlapping_prefixes():
    """A /0 beside prefixes inside it, of either family; then the /0 alone; then another family alone."""
    peer = new_key().public_key()
    lists = (
        {"0.0.0.0/0", "10.0.0.0/8", "100.0.0.0/10", "172.16.0.0/12", "192.168.0.0/16"},
        {"0.0.0.0/0"},
        {"::/0", "1700::/111", "5000::/4", "e000::/37", "9000::/75"},
        {"::/0"},
    )
    with _one() as tunnel:
        for networks in lists:
            tunnel.set("peer", peer, "allowed-ips", ",".join(sorted(networks)))
            assert set(_networks(tunnel)[str(peer)]) == networks
        tunnel.set("peer", peer, "remove")
        assert tunnel.show("peers") == []


_LISTEN = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
    listener.bind(("127.0.0.1", 1111))
    print("listening", flush=True)
    listener.settimeout(2.0)
    for _ in range(2):
        try:
            print(len(listener.recv(2048)), flush=True)
        except TimeoutError:
            print("silence", flush=True)
"""


@pytest.mark.rule("N16", "H5")
def test_peers_with_low_order_keys_are_accepted_and_hear_nothing():
    """Seven keys with which no secret can be agreed are told to send every second; then an ordinary one, which does.

    ::

        wg0 up, seven peers with persistent-keepalive 1 ──► 127.0.0.1:1111: nothing for 2 s
        one more peer                                   ──► an initiation of 148 bytes
    """
    points = [PublicKey(bytes.fromhex(point)) for point in LOW_ORDER]
    keepalive = ["persistent-keepalive", 1, "endpoint", "127.0.0.1:1111"]
    with _one() as tunnel:
        tunnel.set("private-key", tunnel.key)
        for point in points:
            tunnel.set("peer", point, *keepalive)
        assert tunnel.show("peers") == [[str(point)] for point in points]
        with tunnel.home.popen([sys.executable, "-c", _LISTEN], stdout=subprocess.PIPE) as listener:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "listening\n"
            tunnel.up()
            assert listener.stdout.readline() == "silence\n"
            tunnel.set("peer", new_key().public_key(), *keepalive)
            assert listener.stdout.readline() == "148\n"
        assert all(tunnel.transfer(point) == (0, 0) for point in points)

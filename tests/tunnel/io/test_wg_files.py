"""The files that `wg` writes and applies, on a device of ours behind the socket (rules F6 to F8)."""

import asyncio
import shutil
from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.tunnel.io.namespace import in_namespace
from tests.tunnel.io.test_uapi import wg
from tests.tunnel.test_conf import PRIVATE, PSK, PUBLIC_1, PUBLIC_2, ZERO
from tests.tunnel.wire import INITIATION, Node, joined
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.conf import TunnelConf, parse_conf
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.io.uapi import UapiServer

pytestmark = pytest.mark.skipif(shutil.which("wg") is None, reason="needs wg (wireguard-tools)")

FULL = DeviceConfig(
    PrivateKey.from_text(PRIVATE),
    51820,
    0xCA6C,
    (
        PeerConfig(
            PublicKey.from_text(PUBLIC_1),
            PresharedKey.from_text(PSK),
            Endpoint.from_text("[2001:db8::1]:51820"),
            (ip_network("10.192.122.3/32"), ip_network("10.192.124.0/24"), ip_network("fd00::/64")),
            25,
        ),
        PeerConfig(PublicKey.from_text(PUBLIC_2), allowed_ips=(ip_network("0.0.0.0/0"),)),
    ),
)


class Served:
    """A device of a test wire behind the socket, with what the engine adds to it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.device = node.device

    def now(self) -> float:
        return self.node.wire.now

    def settle(self) -> None:
        self.node.wire.settle()

    def set_listen_port(self, port: int) -> None:
        self.device.listen_port = port

    def set_fwmark(self, mark: int) -> None:
        self.device.set_fwmark(mark)


def one_end() -> tuple[Node, Node]:
    """Two nodes with a session; the first is the one that `wg` drives."""
    _, alice, bob = joined()
    alice.ping(bob)
    return alice, bob


async def _run(server: UapiServer, *arguments: str, conf: str = "") -> str:
    name = server.path.stem
    code, out, complaint = await wg(arguments[0], name, *arguments[1:], stdin=conf)
    assert (code, complaint) == (0, "")
    return out


def driven(scenario) -> None:
    """Run a scenario with a served device: `scenario(run, alice, bob)`."""

    async def all_of_it() -> None:
        alice, bob = one_end()
        server = await UapiServer.open("t0", Served(alice))

        async def run(*arguments: str, conf: str = "") -> str:
            return await _run(server, *arguments, conf=conf)

        try:
            await scenario(run, alice, bob)
        finally:
            server.close()

    asyncio.run(all_of_it())


@pytest.mark.rule("F7")
@in_namespace
def test_our_text_is_that_of_showconf():
    """Byte for byte, and it reads back."""

    async def scenario(run, alice, _bob):
        for config in (
            FULL,
            replace(FULL, fwmark=0, listen_port=0, peers=()),
            replace(FULL, private_key=None, peers=FULL.peers[::-1]),
            DeviceConfig(),
        ):
            alice.device.apply(config, alice.wire.now)
            text = TunnelConf(config).to_text()
            assert await run("showconf") == text
            assert parse_conf(text, "t.conf").device == config

    driven(scenario)


@pytest.mark.rule("F8")
@in_namespace
def test_the_columns_of_dump():
    """wg(8), show: interface, then peers; `off` and `(none)` where there is nothing."""

    async def scenario(run, alice, bob):
        private, public = alice.private.to_text(), alice.key.to_text()
        status = alice.status(bob)
        assert status.handshake_unix == 1_700_001_000.0
        assert await run("show", "dump") == (
            f"{private}\t{public}\t0\toff\n"
            f"{bob.key.to_text()}\t(none)\t{bob.endpoint}\t10.9.0.2/32,fd00:9::2/128\t1700001000\t"
            f"{status.rx_bytes}\t{status.tx_bytes}\toff\n"
        )
        alice.device.apply(FULL, alice.wire.now)
        public = FULL.private_key.public_key().to_text()
        assert await run("show", "dump") == (
            f"{PRIVATE}\t{public}\t51820\t0xca6c\n"
            f"{PUBLIC_1}\t{PSK}\t[2001:db8::1]:51820\t10.192.122.3/32,10.192.124.0/24,fd00::/64\t0\t0\t148\t25\n"
            f"{PUBLIC_2}\t(none)\t(none)\t0.0.0.0/0\t0\t0\t0\toff\n"
        )
        alice.device.apply(DeviceConfig(), alice.wire.now)
        assert await run("show", "dump") == "(none)\t(none)\t0\toff\n"

    driven(scenario)


@pytest.mark.rule("F6")
@in_namespace
def test_setconf_resets_all_that_the_file_does_not_say():
    async def scenario(run, alice, bob):
        alice.device.apply(replace(alice.device.config(), listen_port=7, fwmark=9), alice.wire.now)
        peer = f"[Peer]\nPublicKey={PUBLIC_1}\n"
        await run("setconf", "/dev/stdin", conf=peer)
        assert alice.device.config() == DeviceConfig(peers=(PeerConfig(PublicKey.from_text(PUBLIC_1)),))
        await run("setconf", "/dev/stdin", conf=TunnelConf(FULL).to_text())
        assert alice.device.config() == FULL
        await run("setconf", "/dev/stdin")
        assert alice.device.config() == DeviceConfig()
        assert bob.key not in {peer.key for peer in alice.device.status().peers}

    driven(scenario)


@pytest.mark.rule("F6")
@in_namespace
def test_addconf_adds_and_leaves_the_rest():
    async def scenario(run, alice, bob):
        before = alice.device.config()
        await run("addconf", "/dev/stdin", conf=f"[Peer]\nPublicKey={PUBLIC_1}\nAllowedIPs=10.1.0.0/16\n")
        added = PeerConfig(PublicKey.from_text(PUBLIC_1), allowed_ips=(ip_network("10.1.0.0/16"),))
        assert alice.device.config() == replace(before, peers=(*before.peers, added))
        # A section about a peer that is there replaces its allowed IPs alone.
        more = f"[Interface]\nFwMark=1\n[Peer]\nPublicKey={bob.key.to_text()}\nAllowedIPs=10.9.0.0/24\n"
        await run("addconf", "/dev/stdin", conf=more)
        changed = replace(before.peers[0], allowed_ips=(ip_network("10.9.0.0/24"),))
        assert alice.device.config() == replace(before, fwmark=1, peers=(changed, added))
        _still_in_session(alice, bob)

    driven(scenario)


@pytest.mark.rule("F6")
@in_namespace
def test_syncconf_leaves_the_sessions_of_others_alone():
    """Peers that the file does not name go, and one that it has as it is, is not touched.

    That a preshared key or a keepalive is not in the file any more is said by newer versions of `wg` alone.
    """

    async def scenario(run, alice, bob):
        bobs = alice.device.config().peers[0]
        alice.device.apply(replace(FULL, private_key=alice.private, peers=(bobs, *FULL.peers)), alice.wire.now)
        alice.wire.settle()
        less = replace(
            FULL.peers[0], preshared_key=None, persistent_keepalive=0, allowed_ips=(ip_network("10.1.0.0/16"),)
        )
        wanted = DeviceConfig(alice.private, 7, 0, (bobs, less))
        cleared = f"PresharedKey = {ZERO}\nPersistentKeepalive = off\n"
        await run("syncconf", "/dev/stdin", conf=TunnelConf(wanted).to_text() + cleared)
        assert alice.device.config() == wanted
        _still_in_session(alice, bob)

    driven(scenario)


def _still_in_session(alice: Node, bob: Node) -> None:
    mark = len(alice.wire.log)
    packet = alice.ping(bob)
    assert bob.delivered[-1] == packet
    assert [sent for sent in alice.wire.log[mark:] if sent.kind == INITIATION] == []

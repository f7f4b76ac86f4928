"""The engine on a real TUN and real sockets: what it holds, what it lets go, and what happens underneath it."""

import asyncio
import contextlib
import os
import random
import socket
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.endpoint import Endpoint
from wgdisco.errors import ConfigError, LocalError
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceGone, Event, PeerHandshake, RawReceived
from wgdisco.tunnel.io.engine import Engine

DICE = random.Random(7)
ALICE, BOB = (PrivateKey(DICE.randbytes(32)) for _ in range(2))
LOCALHOST = ip_address("127.0.0.1")


@contextlib.asynccontextmanager
async def opened(name: str = "tt0", port: int = 0):
    engine = await Engine.open(name, listen_port=port)
    try:
        yield engine
    finally:
        await engine.close()


def config(own: PrivateKey, other: PrivateKey, port: int = 0, endpoint: Endpoint | None = None) -> DeviceConfig:
    peer = PeerConfig(other.public_key(), endpoint=endpoint, allowed_ips=(ip_network("10.9.0.0/24"),), managed=True)
    return DeviceConfig(own, port, 0, (peer,))


def at(engine: Engine) -> Endpoint:
    return Endpoint(LOCALHOST, engine.status().listen_port)


async def next_event(engine: Engine, kind: type[Event]) -> Event:
    async with asyncio.timeout(10):
        async for event in engine.events():
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the events ended without {kind.__name__}")


def taken(port: int) -> bool:
    """Whether somebody has the UDP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


async def shake_hands(alice: Engine, bob: Engine) -> None:
    """Alice begins; both tell of it."""
    alice.initiate(BOB.public_key(), (at(bob),))
    heard = await next_event(bob, PeerHandshake)
    told = await next_event(alice, PeerHandshake)
    assert (heard.key, heard.endpoint) == (ALICE.public_key(), at(alice))
    assert (told.key, told.endpoint) == (BOB.public_key(), at(bob))


@in_namespace
def test_two_engines_shake_hands():
    async def scenario():
        async with opened("tt0") as alice, opened("tt1") as bob:
            alice.apply(config(ALICE, BOB))
            bob.apply(config(BOB, ALICE))
            await shake_hands(alice, bob)
            (peer,) = alice.status().peers
            assert peer.handshake_at is not None
            assert (peer.rx_bytes > 0, peer.tx_bytes > 0) == (True, True)
            assert alice.get_config().private_key == ALICE
            assert alice.io_drops() == {}

    asyncio.run(scenario())


@in_namespace
def test_an_interface_deleted_underneath_is_told_and_ends_the_events():
    async def scenario():
        async with opened() as engine:
            engine.apply(config(ALICE, BOB, endpoint=Endpoint(LOCALHOST, 9)))
            port = engine.status().listen_port
            ip("link", "set", "tt0", "up")
            ip("link", "del", "tt0")
            async with asyncio.timeout(10):
                events = [event async for event in engine.events()]
            assert events == [DeviceGone("interface tt0 was deleted")]
            # It is of no use any more, and does no harm.
            engine.set_peer(BOB.public_key(), Endpoint(LOCALHOST, 7), 5)
            engine.initiate(BOB.public_key(), (Endpoint(LOCALHOST, 7),))
            assert taken(port)
        assert not taken(port)

    asyncio.run(scenario())


@in_namespace
def test_a_taken_port_leaves_the_old_one_working():
    async def scenario():
        async with opened("tt0") as alice, opened("tt1") as bob:
            alice.apply(config(ALICE, BOB))
            bob.apply(config(BOB, ALICE))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
                holder.bind(("127.0.0.1", 0))
                wanted, before = holder.getsockname()[1], alice.status().listen_port
                with pytest.raises(LocalError, match=rf"UDP port {wanted} is in use by \S+ \(pid {os.getpid()}\)"):
                    alice.apply(replace(config(ALICE, BOB, wanted), peers=()))
                assert alice.status().listen_port == before
                assert [peer.key for peer in alice.status().peers] == [BOB.public_key()]
                await shake_hands(alice, bob)
            alice.apply(config(ALICE, BOB, wanted))
            assert alice.status().listen_port == wanted
            assert not taken(before)
            bob.apply(DeviceConfig(BOB))
            bob.apply(config(BOB, ALICE, endpoint=at(alice)))
            bob.initiate(ALICE.public_key(), (at(alice),))
            assert (await next_event(alice, PeerHandshake)).endpoint == at(bob)

    asyncio.run(scenario())


@in_namespace
def test_opened_on_a_taken_port_it_leaves_no_interface():
    async def scenario():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
            holder.bind(("", 0))
            with pytest.raises(LocalError, match=rf"in use by .* \(pid {os.getpid()}\)"):
                await Engine.open("tt0", listen_port=holder.getsockname()[1])
        assert "tt0" not in ip("link")
        for name, kind in (("lo", LocalError), ("no/slash", ConfigError)):
            with pytest.raises(kind):
                await Engine.open(name)

    asyncio.run(scenario())


@in_namespace
def test_close_ends_the_events_and_takes_everything_along_and_may_be_called_again():
    async def scenario():
        engine = await Engine.open("tt0", listen_port=41000)
        engine.apply(config(ALICE, BOB, 41000, Endpoint(LOCALHOST, 9)))
        engine.set_peer(BOB.public_key(), Endpoint(LOCALHOST, 9), 5)
        listening = asyncio.ensure_future(anext(engine.events(), None))
        await asyncio.sleep(0)
        assert "tt0" in ip("link")
        assert taken(41000)
        await engine.close()
        await engine.close()
        async with asyncio.timeout(10):
            assert await listening is None
        assert "tt0" not in ip("link")
        assert not taken(41000)

    asyncio.run(scenario())


@in_namespace
def test_a_key_that_is_not_configured_is_the_callers_mistake():
    async def scenario():
        stranger = PublicKey(bytes(31) + b"\x09")
        async with opened() as engine:
            engine.apply(config(ALICE, BOB))
            for call in (
                lambda: engine.set_peer(stranger, None, 0),
                lambda: engine.initiate(stranger, (Endpoint(LOCALHOST, 9),)),
                lambda: engine.probe(stranger, Endpoint(LOCALHOST, 9)),
            ):
                with pytest.raises(LocalError, match=f"no peer {stranger}"):
                    call()

    asyncio.run(scenario())


@in_namespace
def test_what_is_not_wireguard_is_handed_on_or_counted():
    stun = b"\x01\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)

    async def scenario():
        async with opened("tt0") as alice, opened("tt1") as bob:
            alice.apply(config(ALICE, BOB))
            bob.send_raw(b"rubbish", at(alice), ttl=64)
            bob.send_raw(stun, at(alice))
            assert await next_event(alice, RawReceived) == RawReceived(stun, at(bob))
            assert {reason.value: count for reason, count in alice.status().drops.items()} == {"not wireguard": 1}

    asyncio.run(scenario())

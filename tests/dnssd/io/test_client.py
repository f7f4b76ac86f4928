"""The follower against the server, both on loopback sockets."""

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address

import pytest

from tests.dnssd.goldenzone import ALICE, BOB, golden_zone, key, peer
from wgdisco.dnssd.browser import InstanceFound, InstanceGone, RegistryReachable, RegistryUnreachable
from wgdisco.dnssd.io.client import ZoneFollower
from wgdisco.dnssd.io.server import DnsServer
from wgdisco.dnssd.responder import Profile, Responder
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import Endpoint

LOOPBACK = ip_address("127.0.0.1")


@asynccontextmanager
async def following(server: Endpoint, *wanted):
    follower = ZoneFollower(server, "example.com", wanted)
    task = asyncio.create_task(follower.run())
    try:
        yield follower, follower.events()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def serving(zone: Zone, profile=Profile.STRICT, address=LOOPBACK, port=0):
    server, responder = DnsServer(), Responder(zone, profile)
    await server.start(responder, [(address, port)])
    try:
        yield server, responder
    finally:
        await server.close()


async def take(events, count, seconds=8):
    async with asyncio.timeout(seconds):
        return [await anext(events) for _ in range(count)]


@pytest.mark.parametrize("profile", Profile)
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_finds_peers_and_follows_changes(profile, address):
    async def main():
        async with (
            serving(golden_zone(), profile, ip_address(address)) as (server, responder),
            following(server.endpoints[0], ALICE, BOB) as (follower, events),
        ):
            first, *found = await take(events, 3)
            assert isinstance(first, RegistryReachable)
            assert {event.instance for event in found} == {golden_zone().instances[one] for one in (ALICE, BOB)}
            moved = peer(ALICE, "192.0.2.7:7", "10.0.0.1/32")
            responder.zone = golden_zone().with_instance(moved, 8).without_instance(BOB, 9)
            follower.poll_now()
            changed, gone = sorted(await take(events, 2), key=lambda event: isinstance(event, InstanceGone))
            assert (changed.instance, gone.key) == (moved, BOB)

    asyncio.run(main())


def test_what_does_not_fit_comes_by_tcp():
    many = peer(key(9), "192.0.2.9:9", *(f"2001:db8:{number:x}::/48" for number in range(120)))

    async def main():
        async with (
            serving(Zone.create("example.com", 1, [many])) as (server, _),
            following(server.endpoints[0], many.key) as (_, events),
        ):
            found = [event.instance for event in await take(events, 3) if isinstance(event, InstanceFound)]
            assert found[-1] == many

    asyncio.run(main())


def test_a_server_that_starts_late_is_found():
    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as placeholder:
            placeholder.setblocking(False)
            placeholder.bind(("127.0.0.1", 0))
            port = placeholder.getsockname()[1]
            async with following(Endpoint(LOOPBACK, port), ALICE) as (_, events):
                await loop.sock_recv(placeholder, 512)
                placeholder.close()
                async with serving(golden_zone(), port=port):
                    assert [type(event) for event in await take(events, 2)] == [RegistryReachable, InstanceFound]

    asyncio.run(main())


def test_refused_and_unroutable_servers_are_told_of_and_asked_on():
    async def main():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as placeholder:
            placeholder.bind(("127.0.0.1", 0))
            port = placeholder.getsockname()[1]
        async with (
            following(Endpoint(LOOPBACK, port), ALICE) as (refused, refused_events),
            # a link-local address without its interface cannot be connected to
            following(Endpoint(ip_address("fe80::1"), 53), ALICE) as (_, unroutable_events),
        ):
            for events in (refused_events, unroutable_events):
                assert [type(event) for event in await take(events, 1, 5)] == [RegistryUnreachable]
            async with serving(golden_zone(), port=port):
                refused.poll_now()
                assert [type(event) for event in await take(refused_events, 2)] == [RegistryReachable, InstanceFound]

    asyncio.run(main())


def test_events_end_when_run_does():
    async def main():
        async with serving(golden_zone()) as (server, _):
            async with following(server.endpoints[0], ALICE) as (_, events):
                await take(events, 2)
            # nothing more: the queue has come to its end
            assert [event async for event in events] == []

    asyncio.run(main())

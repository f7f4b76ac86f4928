"""What the registry makes of its device's events, without a device."""

import asyncio
import time
from ipaddress import ip_network

from wgdisco.api import CandidateRecord
from wgdisco.dnssd.instance import ServiceInstance
from wgdisco.dnssd.names import ZoneNames
from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.keys import PublicKey
from wgdisco.registry.directory import Directory
from wgdisco.registry.io.daemon import serials
from wgdisco.registry.io.publisher import Publisher
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import DeviceStatus, PathSeen, PeerHandshake

MEMBERS = [PublicKey(number.to_bytes(32, "big")) for number in range(1, 1001)]
AT = parse_address("198.51.100.7")


class Crowd:
    """An engine to which all members come back in the same moment, as after a restart."""

    interface = "crowd"

    def status(self):
        return DeviceStatus(None, 51820, 0, (), {})

    async def events(self):
        for port, key in enumerate(MEMBERS, start=1024):
            yield PathSeen(key, Endpoint(AT, port), 1.0)
            yield PeerHandshake(key, Endpoint(AT, port), 1.0)


def test_a_crowd_is_published_at_once_and_leaves_the_serial_near_unix_time():
    """A snapshot an event took seconds, and its serial an hour into the future, from where a restart brings it back."""
    peers = tuple(PeerConfig(key, allowed_ips=(ip_network("10.0.0.0/24"),)) for key in MEMBERS)
    directory = Directory(DeviceConfig(None, 51820, 0, peers), ())
    names = ZoneNames.from_text("example.com.")

    async def main():
        registry = Publisher(Crowd(), directory, names, serials(), "test")
        await registry.follow_device()
        await asyncio.sleep(0)
        assert len(registry.zone.instances) == len(MEMBERS)
        assert registry.zone.serial <= time.time() + 1

    asyncio.run(main())


def test_what_a_member_says_of_itself_is_in_the_zone():
    alice = MEMBERS[0]
    directory = Directory(DeviceConfig(None, 51820, 0, (PeerConfig(alice),)), ())
    told = CandidateRecord("host", "192.168.1.5:40000", 7)

    async def main():
        registry = Publisher(Crowd(), directory, ZoneNames.from_text("example.com."), serials(), "test")
        registry.named = {alice: "alice"}.get
        directory.observe_event(PathSeen(alice, Endpoint(AT, 1024), 1.0))
        registry.publish()
        await asyncio.sleep(0)
        before = registry.zone
        assert before.instances[alice] == ServiceInstance(alice, Endpoint(AT, 1024), name="alice")
        directory.tell(alice, [told], "eim/apdf/-")
        registry.told(alice)
        await asyncio.sleep(0)
        instance = registry.zone.instances[alice]
        assert (instance.candidates, instance.nat) == ((told,), "eim/apdf/-")
        assert registry.zone.serial > before.serial

    asyncio.run(main())


def test_a_peer_that_comes_with_its_endpoint_is_published_in_the_devices_order():
    """As wgsd does; no event of the device tells of it."""
    first, second = (PeerConfig(key, endpoint=Endpoint(AT, 1024)) for key in MEMBERS[:2])
    directory = Directory(DeviceConfig(None, 51820, 0, (first,)), (), exact=True)

    async def main():
        names = ZoneNames.from_text("example.com.")
        registry = Publisher(Crowd(), directory, names, serials(), "test", in_order=True)
        directory.set_peers([second, first], 2.0)
        registry.publish(changed=True)
        assert set(registry.zone.instances) == set(MEMBERS[:2])

    asyncio.run(main())

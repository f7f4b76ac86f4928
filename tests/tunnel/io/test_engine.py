"""The engine between real sockets and a real interface."""

import asyncio
import os
import socket
import time

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.io.engine import Engine


def _initiations(engine: Engine, private: PrivateKey, count: int) -> list[bytes]:
    """From as many strangers: all that one needs for a good mac1 is the public key."""
    there = Endpoint.from_text(f"127.0.0.1:{engine.status().listen_port}")
    messages = []
    for _ in range(count):
        stranger = Device(os.urandom, time.time)
        peer = PeerConfig(private.public_key(), endpoint=there, persistent_keepalive=25)
        stranger.apply(DeviceConfig(PrivateKey(os.urandom(32)), peers=(peer,)), 1.0)
        messages += [bytes(datagrams.data) for datagrams, _ in stranger.datagrams_to_send()]
    return messages


@in_namespace
def test_a_flood_of_strangers_initiations_is_answered_with_cookies():
    async def main():
        ip("link", "set", "lo", "up")
        engine = await Engine.open("tt0")
        private = PrivateKey(os.urandom(32))
        engine.apply(DeviceConfig(private))
        messages = _initiations(engine, private, 50)
        there = ("127.0.0.1", engine.status().listen_port)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as strangers:
            for _ in range(60):
                for message in messages:
                    strangers.sendto(message, there)
            while sum(engine.status().drops.values()) < 3000:  # noqa: ASYNC110  what the loop does is looked at
                await asyncio.sleep(0)
        drops = engine.status().drops
        await engine.close()
        assert drops[Drop.COOKIE_SENT] > drops[Drop.UNKNOWN_PEER] > 0

    asyncio.run(main())

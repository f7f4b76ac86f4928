"""What is for others at the port of another engine: seen by real packets, however many receivers there are."""

import asyncio
import random
import socket
from contextlib import suppress
from pathlib import Path

from tests.tunnel.io.namespace import in_namespace
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.registry.io.beside import Beside
from wgdisco.registry.relay import MAX_OFFERED, MAX_ORDERS, Relay
from wgdisco.tunnel.cookie import CookieJar, mac1_key
from wgdisco.tunnel.events import Foreign
from wgdisco.tunnel.raw import MAX_INDICES

PORT = 51820
OPTIONS_MAX = Path("/proc/sys/net/core/optmem_max")


def _key(number: int) -> PublicKey:
    return PrivateKey(number.to_bytes(31, "big") + b"\0").public_key()


def _initiation(to: PublicKey, index: int) -> bytes:
    return CookieJar(to).add_macs(b"\x01\0\0\0" + index.to_bytes(4, "little") + bytes(108), 0.0)


async def _hear_all() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        hub, relay, chance = _key(1), Relay(), random.Random(8)
        taken: asyncio.Queue[Foreign] = asyncio.Queue()
        at = Endpoint.from_text(f"127.0.0.1:{sock.getsockname()[1]}")
        relay.locate(hub, at)
        beside = Beside(relay, [PORT], mac1_key(_key(2)), taken.put_nowait)
        assert beside.start()
        indices = []
        for number in range(3, 3 + MAX_INDICES // MAX_OFFERED):
            other, source = _key(number), Endpoint.from_text(f"192.0.2.1:{number}")
            relay.locate(other, source)
            assert relay.admit(hub, other, 0.0)
            for _ in range(MAX_OFFERED):
                indices.append(chance.getrandbits(32))
                message = _initiation(hub, indices[-1])
                assert relay.receive(Foreign(message, len(message), source), 0.0) is not None
            beside.learn()
        for index in (indices[0], indices[-1]):
            sock.sendto(b"\x04\0\0\0" + index.to_bytes(4, "little") + bytes(24), ("127.0.0.1", PORT))
        async with asyncio.timeout(5):
            seen = [(await taken.get()).data[4:8] for _ in range(2)]
        assert seen == [one.to_bytes(4, "little") for one in (indices[0], indices[-1])]
        beside.close()


@in_namespace
def test_all_are_heard_where_the_kernel_has_no_room_for_so_long_a_filter():
    assert MAX_INDICES // MAX_OFFERED <= MAX_ORDERS
    with suppress(FileNotFoundError):  # Linux before 6.9 has one for all namespaces, and it is as small by itself
        OPTIONS_MAX.write_text("20480")
    asyncio.run(_hear_all())

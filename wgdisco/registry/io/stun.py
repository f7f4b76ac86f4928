"""The sockets of the STUN responder: three ports on each of the machine's public addresses."""

import asyncio
import logging
import socket
from collections.abc import Sequence
from contextlib import suppress

from pyroute2 import AsyncIPRoute

from wgdisco.endpoint import Endpoint, IPAddress, parse_address
from wgdisco.machine import boot_time, port_owner
from wgdisco.registry.stun import THIRD_PORT, Site, StunResponder, choose_addresses
from wgdisco.stun import MAX_SIZE, PORTS

LOG = logging.getLogger(__name__)

_DATAGRAMS_AT_ONCE = 64
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# Any address of the documentation ranges will do: nothing is sent by connecting a UDP socket.
_PROBES = {4: "192.0.2.1", 6: "2001:db8::1"}
# IFA_F_TEMPORARY (of IPv4 it means "secondary"), IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE: not there to stay
_IFA_PASSING = {socket.AF_INET: 0, socket.AF_INET6: 0x01 | 0x08 | 0x20 | 0x40}


class StunServer:
    """Listens for `responder`, and sends what it answers."""

    def __init__(self, responder: StunResponder) -> None:
        self.responder = responder
        self._sockets: dict[Endpoint, socket.socket] = {}

    async def start(self, registries: Sequence[str], tunnel: str) -> None:
        """Listen on the machine's public addresses, those in `registries` (`HOST:PORT`) first, `tunnel`'s left out.

        A port that is taken is warned of and done without: members then know less of their NATs.
        """
        named = _literals(registries)
        local = await _addresses(tunnel)
        for version in _FAMILIES:
            ours = [[one for one in addresses if one.version == version] for addresses in (named, local)]
            for address, bound in choose_addresses(ours[0], ours[1], _source(version)).items():
                await self._open(address, bound)

    def close(self) -> None:
        """Close every socket."""
        for opened in self._sockets.values():
            asyncio.get_running_loop().remove_reader(opened)
            opened.close()
        self._sockets.clear()

    def drops(self) -> dict[str, int]:
        """What was not answered, by reason."""
        return {f"stun: {reason.value}": count for reason, count in self.responder.drops.items()}

    async def _open(self, address: IPAddress, bound: IPAddress) -> None:
        """Serve `address`, which is ours as `bound`."""
        opened = [port for port in (*PORTS, THIRD_PORT) if await self._listen(Endpoint(address, port), bound)]
        asked = tuple(port for port in opened if port != THIRD_PORT)
        if asked:
            site = Site(address, asked, THIRD_PORT if THIRD_PORT in opened else None)
            self.responder.sites = (*self.responder.sites, site)

    async def _listen(self, endpoint: Endpoint, bound: IPAddress) -> bool:
        opened = socket.socket(_FAMILIES[bound.version], socket.SOCK_DGRAM)
        try:
            opened.setblocking(False)
            if bound.version == 6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind((str(bound), endpoint.port))
        except OSError as error:
            opened.close()
            owner = await asyncio.to_thread(port_owner, endpoint.port)
            by = "" if owner is None else f" by {owner}"
            why = f"UDP port {endpoint.port} of {bound} cannot be had{by}: {error.strerror}"
            LOG.warning("%s; members learn less about their NATs", why)
            return False
        self._sockets[endpoint] = opened
        asyncio.get_running_loop().add_reader(opened, self._receive, opened, endpoint)
        return True

    def _receive(self, opened: socket.socket, asked: Endpoint) -> None:
        """What waits, and no more than so much at once."""
        now = boot_time()
        for _ in range(_DATAGRAMS_AT_ONCE):
            try:
                data, source = opened.recvfrom(MAX_SIZE + 1)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error for an earlier answer
            if source[1] == 0:
                continue
            reply = self.responder.answer(data, asked, Endpoint(parse_address(source[0]), source[1]), now)
            if reply is not None:
                # a full buffer or no route: the member asks again
                with suppress(OSError):
                    to = (source[0], reply.destination.port, *source[2:])
                    self._sockets[reply.origin].sendto(reply.data, to)


def _literals(registries: Sequence[str]) -> list[IPAddress]:
    found = []
    for text in registries:
        with suppress(ValueError):  # a name: where it leads, whoever gave it knows
            found.append(Endpoint.from_text(text).address)
    return found


async def _addresses(tunnel: str) -> list[IPAddress]:
    """This machine's addresses that are there to stay, those of interface `tunnel` left out."""
    own = socket.if_nametoindex(tunnel)
    found = []
    async with AsyncIPRoute() as netlink:
        async for message in await netlink.addr("dump"):
            text = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
            flags = message.get("IFA_FLAGS") or message["flags"]
            if text and message["index"] != own and not flags & _IFA_PASSING[message["family"]]:
                found.append(parse_address(text))
    return found


def _source(version: int) -> IPAddress | None:
    """Where packets to the Internet leave from; None without a default route."""
    try:
        with socket.socket(_FAMILIES[version], socket.SOCK_DGRAM) as probe:
            probe.connect((_PROBES[version], 9))
            return parse_address(probe.getsockname()[0])
    except OSError:
        return None

"""`wgdisco netcheck`, in the daemon: what is known of the network a member is on, looked at anew."""

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any

from wgdisco.api import StunRecord
from wgdisco.endpoint import LOOPBACK, Endpoint, in_any, parse_address
from wgdisco.errors import RemoteError
from wgdisco.machine import boot_time
from wgdisco.nat import NatProfile, can_punch
from wgdisco.peer.io.classic_nat import classic_name
from wgdisco.peer.io.surroundings import Surroundings
from wgdisco.peer.natcheck import NatReport
from wgdisco.peer.roster import Roster
from wgdisco.stun import TRANSACTION_ID_SIZE, Kind, Message
from wgdisco.tunnel.io.backend import Backend

ROUND_TRIPS = 3
HAIRPIN_ROUNDS = 3
HAIRPIN_WAIT = 0.3


async def netcheck(
    surroundings: Surroundings, roster: Roster, device: Backend, registry: Endpoint | None
) -> dict[str, Any]:
    """All of it as JSON; takes seconds. `registry` is where the registry is heard from, None while it is not."""
    service = StunRecord([], "", "", 0)
    with suppress(RemoteError):
        service = await surroundings.check_nat()
    outlook = surroundings.outlook
    rtt, hairpinning, classic = await asyncio.gather(
        _round_trip(surroundings),
        _hairpinning(surroundings, device, service, outlook.reports.get(4)),
        classic_name(service),
    )
    report = surroundings.report
    profile = NatProfile(None, None) if report is None else report.profile
    lifetime = outlook.lifetime
    return {
        "interface": device.interface,
        "udp": _udp(registry, roster),
        "registry": None if registry is None else str(registry),
        "ipv4": _reflexive(outlook.reports.get(4)),
        "ipv6": _reflexive(outlook.reports.get(6)),
        "nat": {
            "mapping": None if profile.mapping is None else profile.mapping.value,
            "filtering": None if profile.filtering is None else profile.filtering.value,
            "delta": profile.delta,
            "preserves_port": None if report is None else report.preserved,
            "block": None if report is None or report.block is None else list(report.block),
            "hairpinning": hairpinning,
            "classic": classic,
            "lifetime": {
                "at_least": round(lifetime.at_least, 1) if lifetime.is_known else None,
                "below": None if lifetime.below is None else round(lifetime.below, 1),
            },
        },
        "keepalive": lifetime.interval(),
        "relay": {"rtt_ms": None if rtt is None else round(rtt * 1000, 3)},
        "peers": _peers(surroundings, roster, profile),
    }


def _udp(registry: Endpoint | None, roster: Roster) -> str | None:
    """By which way the registry is reached: udp, also-port (another than its own) or tls; None: by none."""
    if registry is None:
        return None
    if in_any(registry.address, LOOPBACK):
        return "tls"
    own_port = roster.memory().snapshot.network.registries[0].rpartition(":")[2]
    return "udp" if str(registry.port) == own_port else "also-port"


def _reflexive(report: NatReport | None) -> dict[str, Any]:
    if report is None:
        return {"works": None, "reflexive": []}
    return {"works": bool(report.reflexive), "reflexive": [str(endpoint) for endpoint in report.reflexive]}


def _peers(surroundings: Surroundings, roster: Roster, own: NatProfile) -> list[dict[str, Any]]:
    """Each member: what NAT it says it has, whether it is near, and which path to expect (None: cannot be told)."""
    found = []
    for member in roster.members.values():
        if member.is_device:
            continue
        told = roster.told_of(member.key)
        theirs = None
        if told is not None and told.nat is not None:
            with suppress(ValueError):
                theirs = NatProfile.from_text(told.nat)
        near = [str(endpoint) for endpoint in surroundings.lan_peers.get(member.key, ())]
        punch = None if theirs is None else can_punch(own, theirs)
        expected = "lan" if near else {True: "direct", False: "relay", None: None}[punch]
        nat = None if theirs is None else theirs.to_text()
        online = roster.online().get(member.key, False)
        found.append({"name": member.name, "online": online, "nat": nat, "lan": near, "expected": expected})
    return found


async def _round_trip(surroundings: Surroundings) -> float | None:
    """To the registry inside the tunnel, which is also what relays: on a connection that stands, the best of a few."""
    times = []
    with suppress(RemoteError):
        for _ in range(ROUND_TRIPS):
            began = boot_time()
            await surroundings.client.stun()
            times.append(boot_time() - began)
    return min(times, default=None)


async def _hairpinning(
    surroundings: Surroundings, device: Backend, service: StunRecord, report: NatReport | None
) -> bool | None:
    """Whether our NAT turns what goes from one of our outside endpoints to another (RFC 4787 section 6), over IPv4.

    A spare socket and the tunnel's own send to each other where they are seen, so that no filter is in the way. None
    where there is no NAT, or it is not known where they are.
    """
    if report is None or not report.reflexive:
        return None
    ours = report.reflexive[0]
    if any(local.address == ours.address for local in surroundings.local.addresses):
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as spare:
        fwmark = device.status().fwmark
        if fwmark:
            spare.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, fwmark)
        seen = await _seen_at(spare, service)
        if seen is None:
            return None
        datagram = Message(Kind.INDICATION, os.urandom(TRANSACTION_ID_SIZE)).pack()
        arrived = asyncio.Event()

        def heard(data: bytes, _source: Endpoint) -> None:
            if data == datagram:
                arrived.set()

        def readable() -> None:
            with suppress(OSError):
                heard(spare.recv(2048), ours)

        loop = asyncio.get_running_loop()
        surroundings.hearers.add(heard)
        loop.add_reader(spare, readable)
        try:
            for _ in range(HAIRPIN_ROUNDS):
                device.send_raw(datagram, seen)
                with suppress(OSError):
                    spare.sendto(datagram, (str(ours.address), ours.port))
                with suppress(TimeoutError):
                    async with asyncio.timeout(HAIRPIN_WAIT):
                        await arrived.wait()
                        return True
        finally:
            loop.remove_reader(spare)
            surroundings.hearers.discard(heard)
    # where the mapping depends on the destination, neither is where the other sends to
    return False if len(report.reflexive) == 1 else None


async def _seen_at(spare: socket.socket, service: StunRecord) -> Endpoint | None:
    """Where a socket is seen by the registry."""
    servers = [one for one in map(Endpoint.from_text, service.endpoints) if one.address.version == 4]
    if not servers:
        return None
    request = Message(Kind.REQUEST, os.urandom(TRANSACTION_ID_SIZE), username=service.username)
    data = request.pack(service.password)
    loop = asyncio.get_running_loop()
    for _ in range(HAIRPIN_ROUNDS):
        with suppress(OSError, TimeoutError):
            spare.sendto(data, (str(servers[0].address), servers[0].port))
            async with asyncio.timeout(HAIRPIN_WAIT):
                while True:
                    received, source = await loop.sock_recvfrom(spare, 2048)
                    if Endpoint(parse_address(source[0]), source[1]) != servers[0]:
                        continue
                    with suppress(ValueError):
                        answer = Message.parse(received)
                        if answer.transaction_id == request.transaction_id and answer.verify(service.password):
                            return answer.mapped
    return None

"""The way from the root down to the zone, asked step by step, and the zone's own servers."""

import asyncio
from collections.abc import Iterable

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
from dns.rcode import NOERROR, NXDOMAIN
from dns.rdatatype import AAAA, DNSKEY, DS, NS, SOA, A, RdataType

from wgdisco.endpoint import Endpoint, IPAddress, parse_address
from wgdisco.registry.delegation import Delegation, Served, Server, ds_of

# a.root-servers.net, f. and k., which are three operators
ROOTS = tuple(
    Endpoint(parse_address(address), 53)
    for address in ("198.41.0.4", "192.5.5.241", "193.0.14.129", "2001:503:ba3e::2:30", "2001:500:2f::f")
)
_TIMEOUT = 2.0
# all the way down, in seconds: others' servers may be many, and silent
WALK_MAX = 20.0
_STEPS_MAX = 32
# a name server's own name may lead to others; no further than this
_DEPTH_MAX = 4
_SERVERS_MAX = 4


class _LostError(Exception):
    """The way down ends here."""


class Walker:
    """Asks from `roots` downwards, without anybody's cache."""

    def __init__(self, roots: Iterable[Endpoint] = ROOTS) -> None:
        self._roots = tuple(roots)
        self._asking = dns.name.root

    async def delegation(self, zone: dns.name.Name) -> Delegation:
        """What is above `zone`, as far as WALK_MAX lets us see."""
        try:
            async with asyncio.timeout(WALK_MAX):
                return await self._walk(zone)
        except _LostError as lost:
            return Delegation(dns.name.root, said=str(lost))
        except TimeoutError:
            said = f"no answer within {WALK_MAX:g} s; the last asked were the servers of {self._asking}"
            return Delegation(dns.name.root, said=said)

    async def _walk(self, zone: dns.name.Name) -> Delegation:
        above, servers, reply = await self._descend(zone, NS, 0)
        parent = await _zone_of(servers, zone.parent(), above)
        referral = _referral(reply, zone, above)
        if referral is None:
            # who serves the parent may serve the zone as well, and then there is no referral
            referral = next((rrset for rrset in reply.answer if rrset.rdtype == NS and rrset.name == zone), None)
        if referral is None or referral.name != zone:
            return Delegation(parent)
        names = frozenset(record.target for record in referral)
        glue: dict[dns.name.Name, frozenset[str]] = {}
        for rrset in reply.additional:
            if rrset.name in names and rrset.rdtype in (A, AAAA):
                glue[rrset.name] = glue.get(rrset.name, frozenset()) | {record.address for record in rrset}
        said = await _ask_any(servers, zone, DS)
        found = [] if said is None else [one for one in said.answer if one.rdtype == DS and one.name == zone]
        return Delegation(parent, names, glue, frozenset(record.to_text() for rrset in found for record in rrset))

    async def _descend(
        self, name: dns.name.Name, rdtype: RdataType, depth: int
    ) -> tuple[dns.name.Name, tuple[Endpoint, ...], dns.message.Message]:
        """The last zone on the way that is above `name` or holds it, its servers, and their answer."""
        at, servers = dns.name.root, self._roots
        for _ in range(_STEPS_MAX):
            self._asking = at
            reply = await _ask_any(servers, name, rdtype)
            if reply is None:
                raise _LostError(f"no server of {at} answers")
            referral = _referral(reply, name, at)
            if referral is None or (rdtype == NS and referral.name == name):
                return at, servers, reply
            at, servers = referral.name, await self._servers(reply, referral, depth)
        raise _LostError(f"{at} leads nowhere")

    async def _servers(self, reply: dns.message.Message, referral: dns.rrset.RRset, depth: int) -> tuple[Endpoint, ...]:
        names = [record.target for record in referral]
        addresses = [
            record.address
            for rrset in reply.additional
            if rrset.name in names and rrset.rdtype in (A, AAAA)
            for record in rrset
        ]
        if not addresses and depth < _DEPTH_MAX:
            for name in names[:_SERVERS_MAX]:
                _, _, said = await self._descend(name, A, depth + 1)
                addresses += [record.address for rrset in said.answer if rrset.rdtype == A for record in rrset]
        if not addresses:
            raise _LostError(f"the servers of {referral.name} have no address")
        return tuple(Endpoint(parse_address(address), 53) for address in addresses[:_SERVERS_MAX])


async def _zone_of(servers: Iterable[Endpoint], name: dns.name.Name, above: dns.name.Name) -> dns.name.Name:
    """The zone that `name` is in: servers of one zone may have one further down as well."""
    reply = await _ask_any(servers, name, SOA)
    sections = () if reply is None else (*reply.answer, *reply.authority)
    return next((rrset.name for rrset in sections if rrset.rdtype == SOA), above)


async def ask_servers(served: Served) -> list[Server]:
    """Each of the zone's servers, at each of its addresses."""
    return list(
        await asyncio.gather(
            *(
                _ask_server(served.zone, name, address)
                for name, addresses in served.servers.items()
                for address in addresses
            )
        )
    )


async def _ask_server(zone: dns.name.Name, name: dns.name.Name, address: IPAddress) -> Server:
    server = Endpoint(address, 53)
    try:
        udp = _serial(await _ask(server, zone, SOA))
    except OSError as error:
        if error.errno is not None and not isinstance(error, ConnectionError):
            return Server(name, address, None, None, is_reachable=False)
        udp = None
    if udp is None:
        return Server(name, address, None, None)
    tcp = _serial(await _ask_or_none(server, zone, SOA, by_tcp=True))
    keys = await _ask_or_none(server, zone, DNSKEY)
    found = [] if keys is None else [one for one in keys.answer if one.rdtype == DNSKEY]
    return Server(name, address, udp, tcp, ds_of(zone, found[0] if found else None))


def _serial(reply: dns.message.Message | None) -> int | None:
    if reply is None or reply.rcode() != NOERROR or not reply.flags & dns.flags.AA:
        return None
    return next((int(rrset[0].serial) for rrset in reply.answer if rrset.rdtype == SOA), None)


def _referral(reply: dns.message.Message, name: dns.name.Name, above: dns.name.Name) -> dns.rrset.RRset | None:
    """The name servers of a zone further down towards `name`, if that is what the reply says."""
    if reply.answer or reply.rcode() != NOERROR:
        return None
    for rrset in reply.authority:
        down = rrset.name.is_subdomain(above) and rrset.name != above and name.is_subdomain(rrset.name)
        if rrset.rdtype == NS and down:
            return rrset
    return None


async def _ask_any(servers: Iterable[Endpoint], name: dns.name.Name, rdtype: RdataType) -> dns.message.Message | None:
    for server in servers:
        reply = await _ask_or_none(server, name, rdtype)
        if reply is not None and reply.rcode() in (NOERROR, NXDOMAIN):
            return reply
    return None


async def _ask_or_none(
    server: Endpoint, name: dns.name.Name, rdtype: RdataType, *, by_tcp: bool = False
) -> dns.message.Message | None:
    try:
        return await _ask(server, name, rdtype, by_tcp=by_tcp)
    except OSError:
        return None


async def _ask(
    server: Endpoint, name: dns.name.Name, rdtype: RdataType, *, by_tcp: bool = False
) -> dns.message.Message | None:
    query = dns.message.make_query(name, rdtype, flags=0, use_edns=0, payload=1232)
    where = str(server.address)
    try:
        if by_tcp:
            return await dns.asyncquery.tcp(query, where, _TIMEOUT, server.port)
        reply, _ = await dns.asyncquery.udp_with_fallback(query, where, _TIMEOUT, server.port)
    except (dns.exception.DNSException, EOFError):
        return None
    return reply

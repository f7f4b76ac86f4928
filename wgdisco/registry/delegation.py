"""A zone of one's own in the public tree: what its parent has to hold, and what is missing there.

Nothing of this is needed inside the network, where members ask the registry.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import dns.dnssec
import dns.name
import dns.rdataset
from dns.rdatatype import DNSKEY

from wgdisco.dnssd.transfer import is_newer
from wgdisco.endpoint import IPAddress
from wgdisco.registry.finding import Finding

# names that no parent may delegate (RFC 6761, RFC 8375, RFC 6762; ICANN, 29 July 2024)
_PRIVATE = tuple(dns.name.from_text(name) for name in ("internal.", "home.arpa.", "local.", "localhost.", "invalid."))
_SEP = 0x0001
_REVOKED = 0x0080


@dataclass(frozen=True, slots=True)
class Served:
    """The zone as it is to be: its serial at the registry, and its name servers by name, with their addresses.

    `given` has the serials that the registry gave to addresses; a server that signs serves others, of its own.
    """

    zone: dns.name.Name
    serial: int
    servers: Mapping[dns.name.Name, tuple[IPAddress, ...]]
    given: Mapping[IPAddress, int] = field(default_factory=dict)

    def is_followed(self) -> bool:
        """Whether all servers that were given a serial were given this one, or one since."""
        addresses = (address for several in self.servers.values() for address in several)
        return not any(is_newer(self.serial, self.given.get(address, self.serial)) for address in addresses)


@dataclass(frozen=True, slots=True)
class Delegation:
    """What was found above the zone: who its parent is, and what that holds for it; nothing when there is none.

    `said` is why the way down from the root ended, where it did before the zone.
    """

    parent: dns.name.Name
    servers: frozenset[dns.name.Name] = frozenset()
    glue: Mapping[dns.name.Name, frozenset[str]] = field(default_factory=dict)
    ds: frozenset[str] = frozenset()
    said: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """One name server asked at one address: the serials it has by UDP and TCP, None for no answer of authority."""

    name: dns.name.Name
    address: IPAddress
    udp: int | None
    tcp: int | None
    ds: frozenset[str] = frozenset()
    is_reachable: bool = True


def is_private(zone: dns.name.Name) -> bool:
    """Whether nobody can delegate it."""
    return any(zone.is_subdomain(suffix) for suffix in _PRIVATE)


def ds_of(zone: dns.name.Name, keys: dns.rdataset.Rdataset | None) -> frozenset[str]:
    """The DS records, SHA-256, of the zone's key-signing keys (RFC 4034 section 5)."""
    return frozenset(
        dns.dnssec.make_ds(zone, key, "SHA256").to_text()
        for key in keys or ()
        if key.rdtype == DNSKEY and key.flags & _SEP and not key.flags & _REVOKED
    )


def parent_lines(served: Served, ds: Iterable[str]) -> list[str]:
    """The lines for the parent, as in its zone file."""
    lines = [f"{served.zone} IN NS {name}" for name in served.servers]
    for name, addresses in served.servers.items():
        lines += [f"{name} IN {'A' if one.version == 4 else 'AAAA'} {one}" for one in addresses]
    return lines + [f"{served.zone} IN DS {one}" for one in sorted(ds)]


def findings(served: Served, found: Delegation, servers: Iterable[Server]) -> list[Finding]:
    """From the parent down to each server."""
    asked = list(servers)
    said = [_parent(served, found)]
    if found.servers:
        said += [_glue(name, addresses, found) for name, addresses in served.servers.items()]
    said += [_server(served, one) for one in asked]
    if found.servers:
        said.append(_ds(found, [one for one in asked if one.udp is not None]))
    return said


def _parent(served: Served, found: Delegation) -> Finding:
    if not found.servers:
        said = found.said or f"{found.parent} does not know the zone: have the lines above put there"
        return Finding("delegation", False, said)
    missing = [str(name) for name in served.servers if name not in found.servers]
    foreign = sorted(str(name) for name in found.servers if name not in served.servers)
    if not missing and not foreign:
        return Finding("delegation", True, f"{found.parent} names {', '.join(map(str, served.servers))}")
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    parts += [f"names {', '.join(foreign)}, which is none of ours"] if foreign else []
    return Finding("delegation", False, f"{found.parent} {' and '.join(parts)}")


def _glue(name: dns.name.Name, addresses: tuple[IPAddress, ...], found: Delegation) -> Finding:
    what, wanted, held = f"glue of {name}", {str(address) for address in addresses}, found.glue.get(name, frozenset())
    if wanted == held:
        return Finding(what, True, ", ".join(sorted(held)))
    if not held:
        return Finding(what, False, f"{found.parent} has none: it should be {', '.join(sorted(wanted))}")
    return Finding(what, False, f"{found.parent} has {', '.join(sorted(held))} instead of {', '.join(sorted(wanted))}")


def _server(served: Served, one: Server) -> Finding:
    what = f"{one.name} at {one.address}"
    if not one.is_reachable:
        return Finding(what, True, "not looked at: nothing leads there from here")
    if one.udp is None:
        return Finding(what, False, "no answer for the zone by UDP: does it run, has it the zone, is port 53 open?")
    if one.tcp is None:
        return Finding(what, False, "answers by UDP and not by TCP: open TCP port 53 as well")
    has = served.given.get(one.address, None if one.ds else one.udp)
    if has is not None and is_newer(served.serial, has):
        return Finding(what, False, f"has serial {has}, the registry {served.serial}: does it hear of changes?")
    return Finding(what, True, f"serial {one.udp}")


def _ds(found: Delegation, servers: list[Server]) -> Finding:
    signed = [one for one in servers if one.ds]
    if not signed and not found.ds:
        return Finding("DS", True, "none, and the zone is not signed")
    if not signed:
        return Finding("DS", False, f"{found.parent} has one and nobody signs: validating resolvers take no answer")
    unsigned = next((one for one in servers if not one.ds), None)
    if unsigned is not None:
        return Finding("DS", False, f"{unsigned.address} does not sign, and {signed[0].address} does")
    foreign = next((one for one in signed if found.ds and not one.ds & found.ds), None)
    if foreign is not None:
        return Finding("DS", False, f"{found.parent} has one of no key at {foreign.address}: nobody takes its answers")
    if not found.ds:
        return Finding("DS", False, f"the zone is signed, and {found.parent} has none: have the line put there")
    return Finding("DS", True, f"{found.parent} vouches for the key")

"""The host's resolver and a tunnel's name servers: which program is told of them, and in which words.

All names go to the servers of a `.conf`'s `DNS`, as with wg-quick(8); those of a network's registry get the names of
its zone alone, for which the resolver must be one that can tell names apart.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Self

from wgdisco.endpoint import IPAddress, parse_address
from wgdisco.tunnel.notation import shown

_ADDRESS = re.compile(r"[0-9.]+|.*:.*", re.DOTALL)  # wg-quick's own way to tell them
_DOMAIN = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?")
_ZONE = re.compile(r"[^=/\s]{0,15}")  # an interface's name, and no key
_DOMAIN_MAX_SIZE = 254
_ORDER_PREFIX = re.compile(r"([A-Za-z0-9-]+)\*")
_RESOLVED_DIRECTORY = "/run/systemd/resolve/"
_STUBS = frozenset({"127.0.0.53", "127.0.0.54"})


class DnsMode(Enum):
    """What the user wants the host's resolver told by: whatever there is, one of the two, or not at all."""

    AUTO = "auto"
    RESOLVED = "resolved"
    RESOLVCONF = "resolvconf"
    NONE = "none"


class Tool(Enum):
    """What is told: systemd-resolved, or resolvconf (its own or openresolv's), which writes /etc/resolv.conf."""

    RESOLVED = "resolved"
    RESOLVCONF = "resolvconf"


@dataclass(frozen=True, slots=True)
class NameServers:
    """Name servers inside a tunnel, and the domains short names are looked up in.

    With `zone` they are asked for what is in it and for nothing else.
    """

    servers: tuple[IPAddress, ...] = ()
    search: tuple[str, ...] = ()
    zone: str | None = None

    @classmethod
    def from_items(cls, items: Iterable[str]) -> Self:
        """Of the items of a `DNS` line, addresses and domains; ValueError for what is neither."""
        servers, search = [], []
        for item in items:
            if _ADDRESS.fullmatch(item):
                try:
                    if not _ZONE.fullmatch(item.partition("%")[2]):
                        raise ValueError
                    servers.append(parse_address(item))
                except ValueError:
                    raise ValueError(f"DNS {shown(item)} is not an IP address") from None
            elif _DOMAIN.fullmatch(item) and len(item) <= _DOMAIN_MAX_SIZE:
                search.append(item)
            else:
                raise ValueError(f"DNS {shown(item)} is neither an IP address nor a domain")
        return cls(tuple(servers), tuple(search))

    def items(self) -> tuple[str, ...]:
        """What `from_items` reads."""
        return (*map(str, self.servers), *self.search)


@dataclass(frozen=True, slots=True)
class ResolverFacts:
    """What the host says: /etc/resolv.conf, its text and where it leads, the text of /etc/nsswitch.conf, the programs.

    `is_resolved_only` says that the resolvconf here is resolvectl under that name.
    """

    resolv_conf: str = ""
    leads_to: str = ""
    nsswitch: str = ""
    has_resolvectl: bool = False
    has_resolvconf: bool = False
    is_resolved_only: bool = False
    interface_order: str = ""

    def asks_resolved(self) -> bool:
        """Whether programs here look names up by systemd-resolved."""
        words = (line.partition("#")[0].split() for line in self.resolv_conf.splitlines())
        servers = {line[1] for line in words if len(line) > 1 and line[0] == "nameserver"}
        hosts = (line.partition("#")[0].split() for line in self.nsswitch.splitlines())
        by_nss = any(line[:1] == ["hosts:"] and "resolve" in line for line in hosts)
        return by_nss or self.leads_to.startswith(_RESOLVED_DIRECTORY) or not servers.isdisjoint(_STUBS)


@dataclass(frozen=True, slots=True)
class Step:
    """A command, and what it reads. What is `optional` may fail: an older program does not know it."""

    command: tuple[str, ...]
    text: str = ""
    optional: bool = False


def choose(mode: DnsMode, facts: ResolverFacts, names: NameServers) -> Tool | None:
    """What to tell of `names`; None for nobody. ValueError, which says what to do, where what is wanted is not there.

    resolvconf knows no zones: with AUTO it is not told of servers that are for one only.
    """
    match mode:
        case DnsMode.NONE:
            return None
        case DnsMode.RESOLVED if not facts.has_resolvectl:
            raise ValueError("there is no resolvectl here: install systemd-resolved")
        case DnsMode.RESOLVED:
            return Tool.RESOLVED
        case DnsMode.RESOLVCONF if not facts.has_resolvconf:
            raise ValueError("there is no resolvconf here: install openresolv")
        case DnsMode.RESOLVCONF:
            return Tool.RESOLVED if facts.is_resolved_only else Tool.RESOLVCONF
    if facts.has_resolvectl and (facts.asks_resolved() or facts.is_resolved_only):
        return Tool.RESOLVED
    if names.zone is not None:
        return None
    if facts.has_resolvconf and not facts.is_resolved_only:
        return Tool.RESOLVCONF
    raise ValueError("neither systemd-resolved nor resolvconf looks names up here: install openresolv")


def record_name(tool: Tool, interface: str, facts: ResolverFacts, names: NameServers) -> str:
    """By what name the tool knows the interface: with resolvconf one that comes first in its order, as wg-quick's.

    openresolv needs that only where others stay; first are, unless a user says otherwise, those called vpn.
    """
    if tool is Tool.RESOLVED:
        return interface
    found = (_ORDER_PREFIX.fullmatch(line) for line in facts.interface_order.splitlines())
    prefix = next((match[1] for match in found if match is not None), None)
    if prefix is None and names.zone is not None:
        prefix = "vpn"
    return interface if prefix is None else f"{prefix}.{interface}"


def steps(tool: Tool, name: str, names: NameServers) -> tuple[Step, ...]:
    """How to tell it."""
    servers = [str(server) for server in names.servers]
    if tool is Tool.RESOLVCONF:
        lines = [f"nameserver {server}" for server in servers]
        if names.search:
            lines.append(f"search {' '.join(names.search)}")
        # as wg-quick's; for a zone the others stay: what the registry refuses to answer, they are asked
        how = ("-m", "0", "-x") if names.zone is None else ()
        return (Step(("resolvconf", "-a", name, *how), "\n".join((*lines, ""))),)
    if names.zone is None:
        return (
            Step(("resolvectl", "dns", name, *servers)),
            Step(("resolvectl", "domain", name, *names.search, "~.")),
            Step(("resolvectl", "default-route", name, "yes"), optional=True),
        )
    return (
        Step(("resolvectl", "default-route", name, "no"), optional=True),
        Step(("resolvectl", "domain", name, f"~{names.zone}")),
        # the tunnel is what authenticates; the zone is signed elsewhere if at all
        Step(("resolvectl", "dnssec", name, "no"), optional=True),
        Step(("resolvectl", "dnsovertls", name, "no"), optional=True),
        Step(("resolvectl", "dns", name, *servers)),
    )


def undo(tool: Tool, name: str) -> Step:
    """How to tell it that the servers are no more."""
    if tool is Tool.RESOLVCONF:
        return Step(("resolvconf", "-d", name, "-f"))
    return Step(("resolvectl", "revert", name))

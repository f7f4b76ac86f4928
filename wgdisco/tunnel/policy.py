"""Which routes and rules a set of AllowedIPs needs: policy routing as wg-quick(8) does it.

A default route stands in a table of its own. All that does not bear the mark of WireGuard's own datagrams goes by it,
unless the main table knows something better than a default route::

    P-1  table main, suppress_prefixlength 0     the LAN, and whatever else has a route of its own
    P    not fwmark M  ──►  table M              default ──► the tunnel
         table main                              what bears the mark: WireGuard's datagrams, by the way there was

What is behind members of a network stands in that table too: a host that is on such a subnet itself, or has a route to
it, goes on as before.
"""

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from wgdisco.endpoint import IPNetwork
from wgdisco.tunnel.notation import parse_number

# By name where it is none of these two
Table = int | str

AUTO: Literal["auto"] = "auto"
OFF: Literal["off"] = "off"
MAIN_TABLE = 254  # linux/rtnetlink.h
MAIN_PRIORITY = 32766  # the rule that sends everything to the main table (net/ipv4/fib_rules.c)
FIRST_TABLE = 51820
HIGHEST_NUMBER = 2**32 - 1
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Plan:
    """What leads into an interface: `routes` in `table`, and `defaults`, each in the mark's table and with rules."""

    table: int = MAIN_TABLE
    routes: tuple[IPNetwork, ...] = ()
    defaults: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule of IP `version`, seen before those of a higher `priority`.

    With a `mark` packets that do not bear it are looked up in `table`; with 0 all are, default routes not considered.
    """

    version: int
    priority: int
    table: int
    mark: int = 0


def parse_table(text: str) -> Table:
    """wg-quick's `Table`: `off`, `auto`, a table's number, or its name as iproute2 has it; ValueError otherwise."""
    if _NAME.fullmatch(text):
        return text
    return parse_number("Table", text, 1, HIGHEST_NUMBER, ", nor auto, off or a table's name")


def parse_table_names(text: str) -> dict[str, int]:
    """What a file rt_tables of iproute2 names; lines that name nothing are passed over, as `ip` does."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and not line.startswith("#"):
            with contextlib.suppress(ValueError):
                found[words[1]] = int(words[0], 0)
    return {name: number for name, number in found.items() if 0 < number <= HIGHEST_NUMBER}


def plan(allowed_ips: Iterable[IPNetwork], table: Table, names: Mapping[str, int] = MappingProxyType({})) -> Plan:
    """What `AllowedIPs` and `Table` ask for, without repetition; ValueError for a table that none of `names` is."""
    networks = tuple(dict.fromkeys(allowed_ips))
    if table == OFF:
        return Plan()
    if isinstance(table, int):
        return Plan(table, networks)
    if table != AUTO:
        if table not in names:
            raise ValueError(f"Table = {table}: no such table in /etc/iproute2/rt_tables: name it there, or by number")
        return Plan(names[table], networks)
    return Plan(
        MAIN_TABLE,
        tuple(network for network in networks if network.prefixlen),
        tuple(network for network in networks if not network.prefixlen),
    )


def free_table(used: Collection[int]) -> int:
    """The table for default routes, and the mark: the first number from 51820 upwards that is not in `used`."""
    return next(number for number in range(FIRST_TABLE, HIGHEST_NUMBER) if number not in used)


def rules_for(networks: Iterable[IPNetwork], mark: int, priorities: Collection[int]) -> tuple[Rule, ...]:
    """The rules for `networks` in the mark's table, before all that have one of `priorities`.

    The one that keeps the LAN comes first. ValueError when there is no room. In the order in which they may be made:
    nothing goes into the tunnel that the main table has a route for.
    """
    priority = min((number for number in priorities if number), default=MAIN_PRIORITY) - 1
    if priority < 2:
        raise ValueError("there is a routing rule of priority 1 or 2: ours would have to come before it")
    rules = []
    for version in dict.fromkeys(network.version for network in networks):
        rules.append(Rule(version, priority - 1, MAIN_TABLE))
        rules.append(Rule(version, priority, mark, mark))
    return tuple(rules)


def kept_rules(kept: object) -> tuple[Rule, ...]:
    """Rules read back from a file; what is none is left out."""
    rules = kept if isinstance(kept, list) else []
    return tuple(
        Rule(*fields)
        for fields in rules
        if isinstance(fields, list)
        and len(fields) == 4
        and all(type(field) is int and 0 <= field <= HIGHEST_NUMBER for field in fields)
        and fields[0] in (4, 6)
    )

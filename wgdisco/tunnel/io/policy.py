"""Default routes into the tunnel: the rules, the switch and the nft table that go with them, and all of it undone.

What is to be undone is written to /run before anything is done, so that whoever comes after a daemon that was killed
can do it. The rules bear a protocol number of ours: nobody else's are ever deleted.
"""

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgdisco.endpoint import IPNetwork
from wgdisco.errors import ConfigError, LocalError
from wgdisco.tunnel.conf import TunnelConf
from wgdisco.tunnel.io.kept import kept_path, read_kept, write_kept
from wgdisco.tunnel.io.link import Link, family, if_there, refused
from wgdisco.tunnel.io.nft import run_nft
from wgdisco.tunnel.nft import full_tunnel_rules, remove_full_tunnel
from wgdisco.tunnel.notation import IPInterface
from wgdisco.tunnel.policy import Plan, Rule, free_table, kept_rules, parse_table_names, plan, rules_for

LOG = logging.getLogger(__name__)

PROTOCOL = 119  # of our rules (FRA_PROTOCOL); /etc/iproute2/rt_protos has no such number
_FIB_RULE_INVERT = 2  # linux/fib_rules.h
_SWITCH = Path("/proc/sys/net/ipv4/conf/all/src_valid_mark")
_SUFFIX = "routes"
# Where iproute2 has the names of tables, what counts more last: its own, the host's, what packages add
_TABLE_NAMES = ("/usr/share/iproute2/rt_tables", "/etc/iproute2/rt_tables")
_TABLE_NAMES_MORE = Path("/etc/iproute2/rt_tables.d")


def planned(conf: TunnelConf) -> Plan:
    """Which routes a file asks for; ConfigError when its `Table` is one that the host has no number for."""
    networks = [network for peer in conf.device.peers for network in peer.allowed_ips]
    names: dict[str, int] = {}
    for path in (*map(Path, _TABLE_NAMES), *sorted(_TABLE_NAMES_MORE.glob("*.conf"))):
        with contextlib.suppress(OSError):
            names |= parse_table_names(path.read_text(errors="replace"))
    try:
        return plan(networks, conf.table, names)
    except ValueError as error:
        raise ConfigError(str(error)) from error


class Policy:
    """Of one interface. Whoever made it calls `close` in the end, which may be done at any time and again."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._kept = kept_path(interface, _SUFFIX)

    async def mark(self, wanted: int) -> int:
        """The mark of WireGuard's datagrams, which is also the table's number: `wanted`, or for 0 a free one."""
        if wanted:
            return wanted
        async with AsyncIPRoute() as netlink:
            used = {_table(rule) for rule in await _rules(netlink)}
            try:
                for version in (4, 6):
                    used |= {_table(route) async for route in await netlink.route("dump", family=family(version))}
            except NetlinkError as error:
                raise refused("list the routes", error) from error
        return free_table(used)

    async def open(
        self, link: Link, networks: Sequence[IPNetwork], mark: int, addresses: Iterable[IPInterface]
    ) -> None:
        """Lead `networks` into the link, but for what bears the mark; LocalError when the system refuses."""
        if not networks:
            return
        try:
            table = full_tunnel_rules(self.interface, mark, [address.ip for address in addresses])
            async with AsyncIPRoute() as netlink:
                priorities = {rule.get_attr("FRA_PRIORITY") or 0 for rule in await _rules(netlink)}
                rules = rules_for(networks, mark, priorities)
                turns = any(network.version == 4 for network in networks) and _is_off()
                _keep(self._kept, rules, turns)
                await run_nft("-f", "-", text=table)
                if turns:
                    _turn("1")
                await link.set_routes(networks, mark)
                for rule in rules:
                    await netlink.rule("add", **_fields(rule))
        except NetlinkError as error:
            raise refused(f"make routing rules for {self.interface}", error) from error
        except ValueError as error:
            raise LocalError(f"cannot route into {self.interface}: {error}") from error

    async def close(self) -> None:
        """Undo what `open` did, here or in a process that was killed. The routes go with the interface.

        LocalError when rules cannot be deleted; another call tries again.
        """
        kept = _load(self._kept)
        if kept is None:
            return
        rules, turned = kept
        try:
            async with AsyncIPRoute() as netlink:
                for rule in reversed(rules):
                    await if_there(netlink.rule("del", **_fields(rule)))
        except NetlinkError as error:
            raise refused(f"delete the routing rules of {self.interface}", error) from error
        with contextlib.suppress(LocalError):
            await run_nft("-f", "-", text=remove_full_tunnel(self.interface))
        if turned and not self._hand_over():
            with contextlib.suppress(LocalError):
                _turn("0")
        with contextlib.suppress(OSError):
            self._kept.unlink()

    def _hand_over(self) -> bool:
        """Leave the switch to another interface that needs it; False when there is none."""
        for path in self._kept.parent.glob(f"*.{_SUFFIX}"):
            if path != self._kept and (kept := _load(path)) is not None:
                _keep(path, kept[0], True)
                return True
        return False


def _load(path: Path) -> tuple[tuple[Rule, ...], bool] | None:
    """The rules, and whether the switch was turned; None for nothing kept."""
    kept = read_kept(path)
    return None if kept is None else (kept_rules(kept.get("rules")), kept.get("src_valid_mark") is True)


def _keep(path: Path, rules: Sequence[Rule], turned: bool) -> None:
    write_kept(path, {"rules": [astuple(rule) for rule in rules], "src_valid_mark": turned})


def _is_off() -> bool:
    return _SWITCH.read_text().strip() == "0"


def _turn(value: str) -> None:
    try:
        _SWITCH.write_text(value)
    except OSError as error:
        raise LocalError(
            f"cannot set net.ipv4.conf.all.src_valid_mark to {value} ({error.strerror}): set it in /etc/sysctl.d"
        ) from error


async def _rules(netlink: Any) -> list[Any]:
    """All rules of both IP versions."""
    try:
        return [rule for version in (4, 6) async for rule in await netlink.rule("dump", family=family(version))]
    except NetlinkError as error:
        raise refused("list the routing rules", error) from error


def _table(message: Any) -> int:
    """Of a rule or a route; the header has no room for numbers past 255."""
    return int(message.get_attr("FRA_TABLE") or message.get_attr("RTA_TABLE") or message["table"])


def _fields(rule: Rule) -> Mapping[str, Any]:
    """For adding and deleting."""
    fields = {
        "family": family(rule.version),
        "priority": rule.priority,
        "table": rule.table,
        "protocol": PROTOCOL,
    }
    if rule.mark:
        return {**fields, "fwmark": rule.mark, "fwmask": 0xFFFFFFFF, "flags": _FIB_RULE_INVERT}
    return {**fields, "suppress_prefixlen": 0}

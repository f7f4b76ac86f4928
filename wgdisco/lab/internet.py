"""A plan built: namespaces, links, addresses, nft rules, and the process between the routers that is the Internet."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from wgdisco.errors import LocalError
from wgdisco.lab.packets import Crossing
from wgdisco.lab.plan import Interface, Leaf, Plan, Router
from wgdisco.lab.warm import Warm
from wgdisco.lab.wire import Conditions
from wgdisco.lab.world import Host, World

CORE = "core"
_MARK_TIMEOUT = 10.0
_EVERYWHERE = {4: "0.0.0.0/0", 6: "::/0"}
# IPv6 addresses are ours to give, and usable at once
_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
}


class Internet:
    """A running plan; a context manager. `warm` runs wgdisco in its hosts."""

    def __init__(self, plan: Plan, conditions: Conditions | None = None) -> None:
        """Build it. LocalError where this machine does not allow it."""
        self.plan = plan
        routers = [router.name for router in plan.routers]
        self._world = World([CORE, *routers, *(leaf.name for leaf in plan.leaves)])
        self.hosts = self._world.hosts
        self._crossings: list[Crossing] = []
        self.warm = Warm(self.hosts[CORE])
        try:
            self._links = plan.at_internet()
            routes = tuple((network, number) for number, link in enumerate(self._links) for network in link[2])
            self._wire = _Wire(self.hosts[CORE], [(self.hosts[host].inner_pid, name) for host, name, _ in self._links])
            self.conditions = replace(conditions or Conditions(()), routes=routes)
            self.set_conditions(self.conditions)
            self._build()
        except BaseException:
            self.warm.close()
            self._world.close()
            raise

    @property
    def identifier(self) -> str:
        """What tells this lab's processes from those of other labs (`world.find_holders`)."""
        return self._world.lab

    def set_conditions(self, conditions: Conditions) -> None:
        """From now on the Internet is like that; its routes stay."""
        self.conditions = replace(conditions, routes=self.conditions.routes)
        self._wire.tell({"conditions": self.conditions.to_json()})
        self._wire.settle()

    def change_uplink(self, host: str) -> None:
        """A host loses its first uplink and goes by its second: it is told so, as by a cable pulled."""
        second = self.plan.leaf(host).uplinks[1]
        assert second.router is not None
        lines = _default_routes("eth1", second.addresses, self.plan.router(second.router).lan)
        self._batch(host, ["link set eth0 down", *lines])

    def change_address(self, router: str) -> None:
        """A router gets its spare outside addresses and forgets what it has mapped: hosts behind it hear of nothing."""
        plan = self.plan.router(router)
        gone = [f"addr del {address} dev wan" for address in plan.wan]
        self._batch(router, [*_addresses("wan", plan.spare), *gone])
        self.forget_connections(router)

    def _batch(self, host: str, lines: Iterable[str]) -> None:
        self.hosts[host].run(["ip", "-batch", "-"], text="\n".join(lines) + "\n")

    def set_names(self, names: Mapping[str, Sequence[str]]) -> None:
        """What every host knows without DNS: the addresses of names."""
        lines = "".join(f"{address} {name}\n" for name, addresses in names.items() for address in addresses)
        for leaf in self.plan.leaves if names else ():
            host = self.hosts[leaf.name]
            host.write_file("/run/hosts", f"127.0.0.1 localhost\n{lines}")
            host.run(["mount", "--bind", "/run/hosts", "/etc/hosts"])

    def set_ports(self, ports: range) -> None:
        """What every host draws a free port from."""
        for leaf in self.plan.leaves:
            path = "/proc/sys/net/ipv4/ip_local_port_range"
            self.hosts[leaf.name].run(["sh", "-c", f"echo {ports[0]} {ports[-1]} >{path}"])

    def forget_connections(self, host: str) -> None:
        """Have a router at the Internet forget what it has mapped, as one that was switched off and on."""
        number = next(number for number, (name, _, _) in enumerate(self._links) if name == host)
        self._wire.tell({"flush": number})
        self._wire.settle()

    def crossings(self, since: float) -> list[Crossing]:
        """What has come to the core since then (boot-time clock). What came before is forgotten."""
        self._wire.settle()
        self._crossings += map(Crossing.from_text, self._wire.take())
        self._crossings = [crossing for crossing in self._crossings if crossing.at >= since]
        return list(self._crossings)

    def file(self, host: str, path: str) -> Path:
        """A file as that host sees it."""
        return Path(f"/proc/{self.hosts[host].pid}/root") / path.removeprefix("/")

    def close(self) -> None:
        """End every process of the lab, and with them its namespaces. May be called again."""
        self.warm.close()
        self._world.close()
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _build(self) -> None:
        for router in self.plan.routers:
            _configure(self.hosts[router.name], self._router_lines(router))
        for router in self.plan.routers:
            for rules in _rules(router):
                self.hosts[router.name].run(["nft", "-f", "-"], text=rules)
        for leaf in self.plan.leaves:
            _configure(self.hosts[leaf.name], self._leaf_lines(leaf), forwards=False)

    def _router_lines(self, router: Router) -> list[str]:
        """`ip -batch` lines. Its wan is there already: made by the core, or by its parent."""
        lines = ["link add lan type bridge", "link set lan addrgenmode none up", *_addresses("lan", router.lan)]
        for child in self.plan.behind(router.name):
            lines += _port(child.name, self.hosts[child.name], "wan")
            lines += [f"route add {address.ip} dev lan" for address in child.wan if not _is_within(address, router.lan)]
        for leaf, number in self.plan.hosts_of(router.name):
            lines += _port(f"{leaf.name}.{number}", self.hosts[leaf.name], f"eth{number}")
        lines += ["link set wan addrgenmode none up", *_addresses("wan", router.wan)]
        parent = None if router.parent is None else self.plan.router(router.parent).lan
        return lines + _default_routes("wan", router.wan, parent)

    def _leaf_lines(self, leaf: Leaf) -> list[str]:
        lines = []
        for number, uplink in enumerate(leaf.uplinks):
            name = f"eth{number}"
            lines += [f"link set {name} addrgenmode none up", *_addresses(name, uplink.addresses)]
            gateways = None if uplink.router is None else self.plan.router(uplink.router).lan
            if number == 0:
                lines += _default_routes(name, uplink.addresses, gateways)
        return lines


def _is_within(address: Interface, networks: Iterable[Interface]) -> bool:
    return any(address.ip in network.network for network in networks if network.version == address.version)


def _port(name: str, peer: Host, peer_name: str) -> list[str]:
    """A cable from the bridge `lan` to another host."""
    port = f"p-{name}"[:15]
    return [
        f"link add {port} type veth peer name {peer_name} netns {peer.inner_pid}",
        f"link set {port} addrgenmode none master lan up",
    ]


def _addresses(link: str, addresses: Iterable[Interface]) -> list[str]:
    return [f"addr add {address} dev {link}" + (" nodad" if address.version == 6 else "") for address in addresses]


def _default_routes(link: str, own: Iterable[Interface], gateways: Iterable[Interface] | None) -> list[str]:
    """A default route of each family, by the gateway of that family; at the Internet the link itself is the way."""
    families = sorted({address.version for address in own})
    if gateways is None:
        return [f"route add {_EVERYWHERE[family]} dev {link}" for family in families]
    by_family = {gateway.version: gateway.ip for gateway in gateways}
    return [
        f"route add {_EVERYWHERE[family]} via {by_family[family]} dev {link}"
        for family in families
        if family in by_family
    ]


def _rules(router: Router) -> list[str]:
    """What `nft -f` is to load, in order."""
    wan = next((address.ip for address in router.wan if address.version == 4), None)
    loads = router.nat_type.transactions(wan) if wan is not None else []
    if router.rules:
        loads.append(router.rules.replace("WAN_ADDRESS", str(wan)))
    return loads


def _configure(host: Host, lines: Iterable[str], forwards: bool = True) -> None:
    sysctls = _SYSCTLS if forwards else {name: value for name, value in _SYSCTLS.items() if "default" in name}
    script = "".join(f"echo {value} >/proc/sys/{name}\n" for name, value in sysctls.items())
    host.run(["sh", "-ec", f"{script}exec ip -batch -"], text="\n".join(["link set lo up", *lines]) + "\n")


class _Wire:
    """The process in the core, from outside."""

    def __init__(self, core: Host, links: list[tuple[int, str]]) -> None:
        command = [sys.executable, "-m", "wgdisco.lab.wire", json.dumps(links)]
        self._process = core.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            self._process.wait()
            raise LocalError("the core of the lab did not start")
        self._lines: list[str] = []
        self._mark = 0
        self._seen = threading.Semaphore(0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def tell(self, command: dict[str, object]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise LocalError("the core of the lab has ended") from None

    def settle(self) -> None:
        """Until all that was told is done, and all that passed before is here."""
        self._mark += 1
        self.tell({"mark": self._mark})
        if not self._seen.acquire(timeout=_MARK_TIMEOUT):
            raise LocalError("the core of the lab does not answer")

    def take(self) -> list[str]:
        taken = self._lines[:]  # the reader may add to it meanwhile
        del self._lines[: len(taken)]
        return taken

    def close(self) -> None:
        """Once its process has ended."""
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("mark "):
                self._seen.release()
            else:
                self._lines.append(line)

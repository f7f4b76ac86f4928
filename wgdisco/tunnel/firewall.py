"""The host's own firewall: whether it drops what we need, and the commands of its own tool that let it through.

Every base chain on a hook has to accept a packet; an accept in one undoes no drop in another. So a rule has to go into
the very chain that drops, or to the tool that writes that chain. The chains are read as `nft -j list ruleset` gives
them, iptables-nft's among them, and a few packets are walked through them.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from wgdisco.tunnel.chains import Chain, Packet, Ruleset


class Mode(Enum):
    """What to do about a firewall that drops: `--firewall`."""

    AUTO = "auto"
    PRINT = "print"
    NONE = "none"


class Tool(Enum):
    """Who writes a chain."""

    UFW = "ufw"
    FIREWALLD = "firewalld"
    DOCKER = "Docker"
    IPTABLES = "iptables"
    NFT = "nft"


@dataclass(frozen=True, slots=True)
class Service:
    """A port that the host serves inside the tunnel; `protocol` is "tcp" or "udp"."""

    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Need:
    """What has to come through: WireGuard's UDP `port`, services in and `outside` the tunnel, and a hub's forwarding.

    With `full_tunnel` traffic also leaves the tunnel for the Internet, and its answers come back.
    """

    interface: str
    port: int
    inside: tuple[Service, ...] = ()
    forward: bool = False
    full_tunnel: bool = False
    outside: tuple[Service, ...] = ()

    @property
    def ports(self) -> tuple[Service, ...]:
        """All that anybody may speak to."""
        return (Service("udp", self.port), *self.outside)

    @property
    def mark(self) -> str:
        """The comment on every rule of ours, by which it is found again."""
        return f"wgdisco-{self.interface}"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the host says.

    `ruleset` are nft's JSON objects; `ufw` the lines of `ufw show added`, None when it is not active; `iptables` what
    `iptables -S` and `ip6tables -S` print, by command, of those that are installed; `zone` firewalld's default zone,
    None when it does not run, `zone_ports` that zone's open ports, and `zones` all there are.
    """

    ruleset: Sequence[Mapping[str, Any]] = ()
    ufw: tuple[str, ...] | None = None
    iptables: Mapping[str, tuple[str, ...]] | None = None
    zone: str | None = None
    zone_ports: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()


Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A chain that drops what we need, and what lets it through. `permanent` commands outlast a reboot."""

    tool: Tool
    where: str
    commands: tuple[Command, ...]

    @property
    def permanent(self) -> bool:
        """Whether the tool keeps the rules itself: then they stay until the network is uninstalled."""
        return self.tool in {Tool.UFW, Tool.FIREWALLD}

    def to_text(self) -> str:
        """One line for people, then a command a line."""
        head = f"this host's firewall ({self.tool.value}, {self.where}) drops what the network needs: run"
        return "\n".join([head, *(f"  sudo {shlex.join(command)}" for command in self.commands)])


@dataclass(frozen=True, slots=True)
class _Want:
    """A packet that must come through, and how each tool writes the rule for it."""

    hook: str
    packet: Packet
    nft: str
    iptables: Command
    ufw: Command


def findings(need: Need, facts: Facts) -> tuple[Finding, ...]:
    """What stands in the way, in the order of the chains; empty when all comes through."""
    ruleset = Ruleset(facts.ruleset)
    found: dict[tuple[Tool, str], dict[Command, None]] = {}
    wants = _wants(need)
    for chain in ruleset.base_chains():
        if chain.table.startswith("wgdisco_"):
            continue
        closed = [want for want in wants if want.hook == chain.hook and not ruleset.accepts(chain, want.packet)]
        if not closed:
            continue
        tool = _tool(ruleset, chain, facts)
        # ufw and firewalld have one command for all of their chains.
        where = "its rules" if tool in {Tool.UFW, Tool.FIREWALLD} else f"{chain.family} {chain.table} {chain.name}"
        commands = _commands(tool, chain, closed, need, facts)
        found.setdefault((tool, where), {}).update(dict.fromkeys(commands))
    return tuple(Finding(tool, where, tuple(commands)) for (tool, where), commands in found.items() if commands)


def removals(need: Need, facts: Facts, permanent: bool) -> tuple[Command, ...]:
    """The commands that take away what `findings` added, found by its mark; what others wrote stays.

    Without `permanent` only what does not outlast a reboot.
    """
    commands: list[Command] = []
    for rule in Ruleset(facts.ruleset).rules():
        theirs = rule["table"] == "filter" and _IPTABLES.get(rule["family"]) in (facts.iptables or {})
        if rule.get("comment") == need.mark and not (theirs and str(rule["chain"]).isupper()):
            place = (rule["family"], rule["table"], rule["chain"])
            commands.append(("nft", "delete", "rule", *place, "handle", str(rule["handle"])))
    for command, lines in (facts.iptables or {}).items():
        ours = (shlex.split(line) for line in lines if line.startswith("-A "))
        commands += [(command, "-D", *words[1:]) for words in ours if need.mark in words]
    if permanent:
        commands += _ufw_removals(need, facts.ufw or ())
        if facts.zone is not None:
            commands += _firewalld_removals(need, facts)
    return tuple(commands)


def _wants(need: Need) -> list[_Want]:
    name = need.interface
    wants = [
        _Want(
            "input",
            Packet(it.protocol, it.port),
            f"{it.protocol} dport {it.port} accept",
            ("INPUT", "-p", it.protocol, "-m", it.protocol, "--dport", str(it.port)),
            ("allow", f"{it.port}/{it.protocol}"),
        )
        for it in need.ports
    ]
    for service in need.inside:
        protocol, number = service.protocol, str(service.port)
        wants.append(
            _Want(
                "input",
                Packet(protocol, service.port, iifname=name),
                f'iifname "{name}" {protocol} dport {number} accept',
                ("INPUT", "-i", name, "-p", protocol, "-m", protocol, "--dport", number),
                ("allow", "in", "on", name, "to", "any", "port", number, "proto", protocol),
            )
        )
    if need.full_tunnel:
        wants += [
            _Want(
                "forward",
                Packet(iifname=name),
                f'iifname "{name}" accept',
                ("FORWARD", "-i", name),
                ("route", "allow", "in", "on", name),
            ),
            _Want(
                "forward",
                Packet(oifname=name, state="established"),
                f'oifname "{name}" ct state established,related accept',
                ("FORWARD", "-o", name, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"),
                ("route", "allow", "in", "on", name),
            ),
        ]
    elif need.forward:
        wants.append(
            _Want(
                "forward",
                Packet(iifname=name, oifname=name),
                f'iifname "{name}" oifname "{name}" accept',
                ("FORWARD", "-i", name, "-o", name),
                ("route", "allow", "in", "on", name, "out", "on", name),
            )
        )
    return wants


def _tool(ruleset: Ruleset, chain: Chain, facts: Facts) -> Tool:
    if chain.table == "firewalld" and facts.zone is not None:
        return Tool.FIREWALLD
    command = _IPTABLES.get(chain.family)
    if chain.name.upper() != chain.name or chain.table != "filter" or command not in (facts.iptables or {}):
        return Tool.NFT
    if facts.ufw is not None and any(name.startswith("ufw") for name in ruleset.chain_names(chain)):
        return Tool.UFW
    if chain.hook == "forward" and "DOCKER-USER" in ruleset.chain_names(chain):
        return Tool.DOCKER
    return Tool.IPTABLES


_IPTABLES = {"ip": "iptables", "ip6": "ip6tables"}


def _commands(tool: Tool, chain: Chain, wants: Iterable[_Want], need: Need, facts: Facts) -> list[Command]:
    match tool:
        case Tool.UFW:
            present = {tuple(shlex.split(line)) for line in facts.ufw or ()}
            commands = [("ufw", *want.ufw, "comment", need.mark) for want in wants]
            return [command for command in commands if command not in present and command[:-2] not in present]
        case Tool.FIREWALLD:
            return _firewalld_commands(need, facts)
        case Tool.NFT:
            place = (chain.family, chain.table, chain.name)
            comment = f'comment "{need.mark}"'
            return [("nft", "insert", "rule", *place, *want.nft.split(), *comment.split()) for want in wants]
        case Tool.DOCKER | Tool.IPTABLES:
            command = _IPTABLES[chain.family]
            present = {tuple(shlex.split(line))[1:] for line in (facts.iptables or {})[command]}
            rules = []
            for want in wants:
                target = "DOCKER-USER" if tool is Tool.DOCKER else chain.name
                rules.append((target, *want.iptables[1:], "-m", "comment", "--comment", need.mark, "-j", "ACCEPT"))
            return [(command, "-I", *rule) for rule in rules if rule not in present]


def _firewalld_commands(need: Need, facts: Facts) -> list[Command]:
    """The port in the default zone; what goes on inside in a zone of ours, which takes a reload to be."""
    commands: list[Command] = []
    assert facts.zone is not None
    for port in (f"{it.port}/{it.protocol}" for it in need.ports):
        if port not in facts.zone_ports:
            add = (f"--zone={facts.zone}", f"--add-port={port}")
            commands += [("firewall-cmd", "--permanent", *add), ("firewall-cmd", *add)]
    if _zone(need) not in facts.zones and (need.forward or need.full_tunnel or need.inside):
        permanent, zone = ("firewall-cmd", "--permanent"), _zone(need)
        ours = (*permanent, f"--zone={zone}")
        commands += [
            (*permanent, f"--new-zone={zone}"),
            (*ours, f"--add-interface={need.interface}"),
            *((*ours, f"--add-port={service.port}/{service.protocol}") for service in need.inside),
        ]
        if need.forward or need.full_tunnel:
            commands.append((*ours, "--add-forward"))
        if need.full_tunnel:
            policy = (*permanent, f"--policy={zone}")
            commands += [
                (*permanent, f"--new-policy={zone}"),
                (*policy, f"--add-ingress-zone={zone}"),
                (*policy, f"--add-egress-zone={facts.zone}"),
                (*policy, "--set-target=ACCEPT"),
            ]
        commands.append(("firewall-cmd", "--reload"))
    return commands


def _firewalld_removals(need: Need, facts: Facts) -> list[Command]:
    """Ports carry no comment: one that somebody else opened too is closed with ours."""
    commands: list[Command] = []
    permanent, ours = ("firewall-cmd", "--permanent"), _zone(need)
    for port in (f"{it.port}/{it.protocol}" for it in need.ports):
        if port in facts.zone_ports:
            remove = (f"--zone={facts.zone}", f"--remove-port={port}")
            commands += [(*permanent, *remove), ("firewall-cmd", *remove)]
    if ours in facts.zones:
        if need.full_tunnel:
            commands.append((*permanent, f"--delete-policy={ours}"))
        commands += [(*permanent, f"--delete-zone={ours}"), ("firewall-cmd", "--reload")]
    return commands


def _zone(need: Need) -> str:
    """Our zone's name, of at most 17 characters."""
    return f"wgd-{need.interface}"[:17]


def _ufw_removals(need: Need, lines: Iterable[str]) -> list[Command]:
    """`ufw show added` prints the commands that made its rules."""
    commands: list[Command] = []
    for words in map(shlex.split, lines):
        if words[-2:] != ["comment", need.mark]:
            continue
        rule = words[1:-2]
        at = 1 if rule[0] == "route" else 0
        commands.append(("ufw", *rule[:at], "delete", *rule[at:]))
    return commands

"""What root may ask of a registry: one set of commands, run by the daemon, or on its store while it is not running.

A command takes and gives a JSON object. LocalError says why not.
"""

import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.invitation import SECRET_SIZE, enrol_private_key
from wgdisco.keys import PublicKey
from wgdisco.offers import parse_subnet
from wgdisco.registry.admin import set_role
from wgdisco.registry.approval import approve, disapprove
from wgdisco.registry.directory import Directory
from wgdisco.registry.facts import Change, Invitation, Kind, Member, Role
from wgdisco.registry.io.feed import Feed
from wgdisco.registry.io.ledger import Ledger
from wgdisco.registry.io.store import Observation
from wgdisco.registry.relay import Relay
from wgdisco.registry.stock import DeviceRequest, add_device
from wgdisco.tunnel.firewall import Mode

COMMANDS = (
    "invite",
    "add_device",
    "list",
    "show",
    "rename",
    "revoke",
    "approve",
    "set_endpoint",
    "set_role",
    "set_registries",
    "set_ports",
    "set_firewall",
    "set_forward_dns",
    "backup",
)
# How long it is waited for members to have received what they are told, in seconds
HEARD_PATIENCE = 2.0
_DRAWS = 16


class Commands:
    """`directory`, `feed` and `relay` are the daemon's; without them nothing is known of who is online."""

    def __init__(
        self,
        ledger: Ledger,
        directory: Directory | None = None,
        feed: Feed | None = None,
        relay: Relay | None = None,
    ) -> None:
        self._ledger = ledger
        self._membership = ledger.membership
        self._directory = directory
        self._feed = feed
        self._relay = relay

    def named(self, name: str) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
        """The command of that name, one of COMMANDS."""
        command: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]] = {
            "invite": self.invite,
            "add_device": self.add_device,
            "list": self.list,
            "show": self.show,
            "rename": self.rename,
            "revoke": self.revoke,
            "approve": self.approve,
            "set_endpoint": self.set_endpoint,
            "set_role": self.set_role,
            "set_registries": self.set_registries,
            "set_ports": self.set_ports,
            "set_firewall": self.set_firewall,
            "set_forward_dns": self.set_forward_dns,
            "backup": self.backup,
        }[name]
        return command

    async def invite(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`name` or None, `groups`, `admin`, `uses`, `lifetime` and (or missing) `ephemeral` in seconds → `link`,
        `enrol_key`, `expires_at`, and whether the name `was_revoked`."""
        groups = tuple(_texts(asked, "groups"))
        role = Role.ADMIN if asked.get("admin") else Role.MEMBER
        ephemeral = None if asked.get("ephemeral") is None else float(asked["ephemeral"])
        uses, lifetime, name = int(asked["uses"]), float(asked["lifetime"]), _text_or_none(asked, "name")
        for _ in range(_DRAWS):
            secret, now = os.urandom(SECRET_SIZE), time.time()
            try:
                link = await self._ledger.change(
                    lambda secret=secret, now=now: self._membership.invite(  # type: ignore[misc]
                        secret, now, name, groups, role, uses, lifetime, ephemeral
                    )
                )
            except ValueError:
                continue  # its address is in use: draw again
            was_revoked = any(revoked.name == name for revoked in self._membership.revoked.values())
            return {
                "enrol_key": enrol_private_key(secret).public_key().to_text(),
                "link": link.to_text(),
                "expires_at": now + lifetime,
                "was_revoked": was_revoked,
            }
        raise LocalError("too many invitations are out: revoke some, or wait until they expire")

    async def add_device(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`DeviceRequest` → `DeviceFacts`, both as JSON."""
        request = DeviceRequest.from_json(asked)
        facts = await self._ledger.change(lambda: add_device(self._membership, request, time.time()))
        return facts.to_json()

    async def list(self, _asked: dict[str, Any]) -> dict[str, Any]:
        """→ `network`, `zone`, `epoch`, `endpoints`, `members`, `invitations`."""
        network = self._membership.network
        seen = self._seen()
        return {
            "network": network.name,
            "zone": network.zone,
            "epoch": network.epoch,
            "endpoints": [*network.endpoints],
            "running": self._directory is not None,
            "members": [self._member(member, seen) for member in self._membership.members.values()],
            "invitations": [_invitation(invitation) for invitation in self._membership.invitations.values()],
        }

    async def show(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`name` → the member, whom it sees, and how many bytes the relay passed on for it, by direction."""
        member = self._membership.by_name(_text(asked, "name"))
        sees = [other.name for other in self._membership.visible_to(member)]
        passed = None if self._relay is None else self._relay.traffic().get(member.public_key)
        relayed = {} if passed is None else {"relayed_tx_bytes": passed.tx_bytes, "relayed_rx_bytes": passed.rx_bytes}
        return {**self._member(member, self._seen()), "sees": sees, **relayed}

    async def rename(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`name` or `public_key`, `new_name` → nothing."""
        new_name = _text(asked, "new_name")
        await self._ledger.change(lambda: (self._membership.rename(self._name(asked), new_name), None))
        return {}

    async def approve(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`name`, `networks` as CIDR, `is_taken_back` → `told`: members that have received it, `unseen`."""
        name = _text(asked, "name")
        try:
            networks = tuple(map(parse_subnet, _texts(asked, "networks")))
        except ValueError as error:
            raise LocalError(str(error)) from error
        command = disapprove if asked.get("is_taken_back") else approve
        await self._ledger.change(lambda: (command(self._membership, name, networks), None))
        member = self._membership.by_name(name)
        told, unseen = await self._heard((member, *self._membership.visible_to(member)))
        return {"told": told, "unseen": unseen}

    async def set_endpoint(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`name`, `endpoint` as ADDRESS:PORT or None → nothing."""
        name, text = _text(asked, "name"), _text_or_none(asked, "endpoint")
        endpoint = None if text is None else _global_endpoint(text)
        await self._ledger.change(lambda: (self._membership.set_endpoint(name, endpoint), None))
        return {}

    async def set_role(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`name`, `role` as `Role` has it → nothing."""
        name, role = _text(asked, "name"), Role(_text(asked, "role"))
        await self._ledger.change(lambda: (set_role(self._membership, name, role), None))
        return {}

    async def set_ports(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`also_ports` and `tls_port` (0 for none), each left as it is when missing → nothing."""
        network = self._membership.network
        also_ports = tuple(int(port) for port in asked.get("also_ports", network.also_ports))
        tls_port = int(asked.get("tls_port", network.tls_port or 0)) or None
        await self._ledger.change(lambda: (self._membership.set_ports(also_ports, tls_port), None))
        return {}

    async def set_forward_dns(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`is_on` → nothing."""
        is_on = asked.get("is_on") is True
        await self._ledger.change(lambda: (self._membership.set_forward_dns(is_on=is_on), None))
        return {}

    async def set_firewall(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`mode`, as `firewall.Mode` has it → nothing. The daemon heeds it from its next start."""
        mode = Mode(_text(asked, "mode"))
        await self._ledger.change(lambda: (self._membership.set_firewall(mode), None))
        return {}

    async def set_registries(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`endpoints`, HOST:PORT each → `told`: members that heard at once, `unseen`: those that have not yet."""
        endpoints = tuple(_texts(asked, "endpoints"))
        await self._ledger.change(lambda: (self._membership.set_registries(endpoints), None))
        told, unseen = await self._heard(self._membership.members.values())
        return {"told": told, "unseen": unseen}

    async def revoke(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`name` or `public_key` → `keys` that are gone, `told`: members that have received it, `unseen`: those that
        have not yet."""

        def command() -> tuple[list[Change], tuple[list[PublicKey], Member | None]]:
            name = self._name(asked)
            member = next((member for member in self._membership.members.values() if member.name == name), None)
            changes, keys = self._membership.revoke(name, time.time())
            return changes, (keys, member)

        keys, member = await self._ledger.change(command)
        others = () if member is None else self._membership.visible_to(member)
        told, unseen = await self._heard(others)
        return {"keys": [str(key) for key in keys], "told": told, "unseen": unseen, "was_member": member is not None}

    async def backup(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`file`, an absolute path → nothing."""
        target = Path(_text(asked, "file"))
        if not target.is_absolute():
            raise LocalError("backup: give an absolute path")
        self._ledger.store.backup(target)
        return {}

    def _name(self, asked: dict[str, Any]) -> str:
        """Whom it is about: by a key it is whoever has that now, and not who has got the name meanwhile."""
        if "public_key" not in asked:
            return _text(asked, "name")
        member = self._membership.members.get(PublicKey.from_text(_text(asked, "public_key")))
        if member is None:
            raise LocalError("there is no such member any longer")
        return member.name

    async def _heard(self, members: Iterable[Member]) -> tuple[Sequence[str], Sequence[str]]:
        """The names of those members that have received all they were told, and of those that have not.

        One that sleeps has a stream, and hears nothing; stock devices have none.
        """
        theirs = [member for member in members if member.kind is Kind.MEMBER]
        heard = await self._feed.heard(HEARD_PATIENCE) if theirs and self._feed is not None else set()
        told = [member.name for member in theirs if member.number in heard]
        return told, [member.name for member in theirs if member.number not in heard]

    def _seen(self) -> dict[PublicKey, Observation]:
        return {one.key: one for one in self._ledger.store.observations()}

    def _member(self, member: Member, observations: dict[PublicKey, Observation]) -> dict[str, Any]:
        entry = None if self._directory is None else self._directory.entry(member.public_key)
        seen = observations.get(member.public_key)
        endpoint = entry.endpoint if entry is not None and entry.endpoint is not None else None
        if endpoint is None and seen is not None:
            endpoint = seen.endpoint
        return {
            "name": member.name,
            "public_key": str(member.public_key),
            "kind": member.kind.value,
            "role": member.role.value,
            "groups": [*member.groups],
            "addresses": [str(address) for address in self._membership.network.addresses(member.number)],
            "state": "enrolled" if not member.proven else "live" if entry is not None and entry.live else "offline",
            "endpoint": None if endpoint is None else str(endpoint),
            "fixed_endpoint": None if member.endpoint is None else str(member.endpoint),
            "last_seen": None if seen is None else seen.at,
            "created_at": member.created_at,
            "next_key": None if member.next_key is None else str(member.next_key),
            "offers": [str(network) for network in member.offers],
            "approved": [str(network) for network in member.approved],
            "ephemeral": member.ephemeral,
        }


def _invitation(invitation: Invitation) -> dict[str, Any]:
    return {
        "name": invitation.name,
        "enrol_key": str(invitation.enrol_key),
        "groups": [*invitation.groups],
        "role": invitation.role.value,
        "uses": invitation.uses,
        "expires_at": invitation.expires_at,
        "ephemeral": invitation.ephemeral,
    }


def _text(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value:
        raise LocalError(f"{name} is missing")
    return value


def _text_or_none(asked: dict[str, Any], name: str) -> str | None:
    return None if asked.get(name) is None else _text(asked, name)


def _texts(asked: dict[str, Any], name: str) -> list[str]:
    return [_text({name: one}, name) for one in asked.get(name, [])]


def _global_endpoint(text: str) -> Endpoint:
    try:
        endpoint = Endpoint.from_text(text)
    except ValueError as error:
        raise LocalError(str(error)) from error
    if not endpoint.is_global:
        raise LocalError(f"{text} is a private address: members elsewhere cannot reach it; give a public one, or none")
    return endpoint

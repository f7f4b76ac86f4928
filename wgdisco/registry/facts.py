"""Facts as a store holds them: kind, identity and a JSON text each. The text has secrets in it: never for logs."""

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from typing import Any

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.registry.membership import Fact, Invitation, Kind, Member, Network, Revoked, Role

NETWORK, MEMBER, INVITATION, REVOKED = "network", "member", "invitation", "revoked"


def identity(fact: Fact) -> tuple[str, str]:
    """Kind and identity: a fact takes the place of the one that has the same. A member is its host number."""
    match fact:
        case Network():
            return NETWORK, ""
        case Member(number=number):
            return MEMBER, str(number)
        case Invitation(enrol_key=key):
            return INVITATION, key.to_text()
        case Revoked(public_key=key):
            return REVOKED, key.to_text()


def pack_fact(fact: Fact) -> str:
    """The text `parse_fact` reads."""
    return json.dumps(_fields(fact), separators=(",", ":"))


def parse_fact(kind: str, text: str) -> Fact:
    """Read a fact back; ValueError, without the text, when it cannot be one."""
    try:
        fact: Fact = _PARSERS[kind](json.loads(text))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"a {kind[:20]!r} in the store cannot be read") from None
    return fact


def _fields(fact: Fact) -> dict[str, Any]:
    match fact:
        case Network():
            return {
                "name": fact.name,
                "zone": fact.zone,
                "private_key": fact.private_key.to_text(),
                "listen_port": fact.listen_port,
                "endpoints": list(fact.endpoints),
                "prefix4": str(fact.prefix4),
                "prefix6": str(fact.prefix6),
                "epoch": fact.epoch,
                "next_host": fact.next_host,
            }
        case Member():
            return {
                "name": fact.name,
                "public_key": fact.public_key.to_text(),
                "number": fact.number,
                "groups": list(fact.groups),
                "created_at": fact.created_at,
                "kind": fact.kind.value,
                "role": fact.role.value,
                "preshared_key": _text(fact.preshared_key),
                "proven": fact.proven,
                "invitation": _text(fact.invitation),
                "endpoint": _text(fact.endpoint),
                "next_key": _text(fact.next_key),
            }
        case Invitation():
            return {
                "enrol_key": fact.enrol_key.to_text(),
                "preshared_key": fact.preshared_key.to_text(),
                "address": str(fact.address),
                "expires_at": fact.expires_at,
                "name": fact.name,
                "groups": list(fact.groups),
                "role": fact.role.value,
                "uses": fact.uses,
            }
        case Revoked():
            return {"public_key": fact.public_key.to_text(), "name": fact.name, "at": fact.at}


def _text(value: PublicKey | PresharedKey | Endpoint | None) -> str | None:
    return None if value is None else value.to_text()


def _public_key(text: str | None) -> PublicKey | None:
    return None if text is None else PublicKey.from_text(text)


def _network(fields: dict[str, Any]) -> Network:
    return Network(
        name=fields["name"],
        zone=fields["zone"],
        private_key=PrivateKey.from_text(fields["private_key"]),
        listen_port=int(fields["listen_port"]),
        endpoints=tuple(fields["endpoints"]),
        prefix4=IPv4Network(fields["prefix4"]),
        prefix6=IPv6Network(fields["prefix6"]),
        epoch=int(fields["epoch"]),
        next_host=int(fields["next_host"]),
    )


def _member(fields: dict[str, Any]) -> Member:
    return Member(
        name=fields["name"],
        public_key=PublicKey.from_text(fields["public_key"]),
        number=int(fields["number"]),
        groups=tuple(fields["groups"]),
        created_at=float(fields["created_at"]),
        kind=Kind(fields["kind"]),
        role=Role(fields["role"]),
        preshared_key=None if fields["preshared_key"] is None else PresharedKey.from_text(fields["preshared_key"]),
        proven=bool(fields["proven"]),
        invitation=_public_key(fields["invitation"]),
        endpoint=None if fields["endpoint"] is None else Endpoint.from_text(fields["endpoint"]),
        next_key=_public_key(fields["next_key"]),
    )


def _invitation(fields: dict[str, Any]) -> Invitation:
    return Invitation(
        enrol_key=PublicKey.from_text(fields["enrol_key"]),
        preshared_key=PresharedKey.from_text(fields["preshared_key"]),
        address=IPv4Address(fields["address"]),
        expires_at=float(fields["expires_at"]),
        name=fields["name"],
        groups=tuple(fields["groups"]),
        role=Role(fields["role"]),
        uses=int(fields["uses"]),
    )


def _revoked(fields: dict[str, Any]) -> Revoked:
    return Revoked(PublicKey.from_text(fields["public_key"]), fields["name"], float(fields["at"]))


_PARSERS: dict[str, Callable[[dict[str, Any]], Fact]] = {
    NETWORK: _network,
    MEMBER: _member,
    INVITATION: _invitation,
    REVOKED: _revoked,
}

"""Facts as a store holds them: kind, identity and a JSON text each. The text has secrets in it: never for logs.

A field that an older text lacks takes its default; one that nobody knows any more is passed over.
"""

import json
from dataclasses import fields
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.registry.membership import Fact, Invitation, Member, Network, Revoked

KINDS: dict[str, type[Fact]] = {
    "network": Network,
    "member": Member,
    "invitation": Invitation,
    "revoked": Revoked,
}
_TEXT_TYPES = (PublicKey, PresharedKey, PrivateKey, Endpoint)
_ADDRESS_TYPES = (IPv4Address, IPv4Network, IPv6Network)


def identity(fact: Fact) -> tuple[str, str]:
    """Kind and identity: a fact takes the place of the one that has the same. A member is its host number."""
    match fact:
        case Network():
            return "network", ""
        case Member(number=number):
            return "member", str(number)
        case Invitation(enrol_key=key):
            return "invitation", key.to_text()
        case Revoked(public_key=key):
            return "revoked", key.to_text()


def pack_fact(fact: Fact) -> str:
    """The text `parse_fact` reads."""
    values = {field.name: _to_json(getattr(fact, field.name)) for field in fields(fact)}
    return json.dumps(values, separators=(",", ":"))


def parse_fact(kind: str, text: str) -> Fact:
    """Read a fact back; ValueError, without the text, when it cannot be one."""
    try:
        made = KINDS[kind]
        data, hints = json.loads(text), get_type_hints(made)
        return made(**{name: _from_json(data[name], hint) for name, hint in hints.items() if name in data})
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f"a {kind[:20]!r} in the store cannot be read") from None


def _to_json(value: object) -> object:
    match value:
        case Enum():
            return value.value
        case PublicKey() | PresharedKey() | PrivateKey() | Endpoint():
            return value.to_text()
        case tuple():
            return [_to_json(item) for item in value]
        case None | str() | int() | float():
            return value
        case _:
            return str(value)


def _from_json(value: Any, hint: Any) -> Any:
    """`value` as the type of its field; ValueError or TypeError when it is none."""
    if isinstance(hint, UnionType):
        wanted = next(option for option in get_args(hint) if option is not type(None))
        return None if value is None else _from_json(value, wanted)
    if get_origin(hint) is tuple:
        return tuple(_from_json(item, get_args(hint)[0]) for item in value)
    if hint in _TEXT_TYPES:
        return hint.from_text(value)
    if hint in _ADDRESS_TYPES or issubclass(hint, Enum):
        return hint(value)
    if hint is float and isinstance(value, int):
        return float(value)
    if type(value) is not hint:
        raise TypeError
    return value

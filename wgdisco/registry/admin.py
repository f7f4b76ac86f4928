"""What an admin may ask for by the API, checked as the command line does it.

ConfigError, LocalError or ValueError say why not.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

from wgdisco.api import parse_body
from wgdisco.durations import parse_duration
from wgdisco.errors import ConfigError
from wgdisco.names import check_member_name
from wgdisco.registry.ephemeral import PERIOD, check_period
from wgdisco.registry.facts import DEFAULT_GROUP, Change, Put, Role
from wgdisco.registry.membership import INVITATION_LIFETIME, Membership

USES_MAX = 10_000
GROUPS_MAX = 32
LIFETIME_MAX = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class InviteRequest:
    """An invitation wanted: the body of `POST /v1/invite`. Times are in seconds."""

    name: str | None
    groups: tuple[str, ...]
    admin: bool
    uses: int
    lifetime: float
    ephemeral: float | None

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """`name`, `groups`, `admin`, `uses`, `expires` and `ephemeral`, all of which may be missing.

        `expires` is a time like 24h, or a number of seconds; so is `ephemeral`, or true for the usual.
        """
        body = parse_body(data)
        name, groups, uses = body.get("name"), body.get("groups"), body.get("uses", 1)
        groups = [DEFAULT_GROUP] if groups in (None, []) else groups
        if not isinstance(groups, list) or len(groups) > GROUPS_MAX:
            raise ConfigError(f"groups: a list of up to {GROUPS_MAX}")
        if type(uses) is not int or not 1 <= uses <= USES_MAX:
            raise ConfigError(f"uses: a number from 1 to {USES_MAX}")
        for word in (*(() if name is None else (name,)), *groups):
            if not isinstance(word, str):
                raise ConfigError("names of members and groups are texts")
            check_member_name(word)
        lifetime = _seconds(body, "expires")
        return cls(
            name,
            tuple(dict.fromkeys(groups)),
            _flag(body, "admin"),
            uses,
            INVITATION_LIFETIME if lifetime is None else lifetime,
            _ephemeral(body),
        )


def _ephemeral(body: dict[str, Any]) -> float | None:
    if isinstance(body.get("ephemeral"), bool):
        return PERIOD if body["ephemeral"] else None
    period = _seconds(body, "ephemeral")
    if period is not None:
        check_period("ephemeral", period)
    return period


def set_role(membership: Membership, name: str, role: Role) -> list[Change]:
    """What a member may do through the API; LocalError when there is no such member."""
    member = membership.by_name(name)
    return [] if member.role is role else [Put(replace(member, role=role))]


def text_of(data: Any, name: str) -> str:
    """A field that must be there."""
    value = parse_body(data).get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 255:
        raise ConfigError(f"{name}: missing")
    return value


def _flag(body: dict[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{name}: true or false")
    return value


def _seconds(body: dict[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        value = parse_duration(name, value[:20])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= LIFETIME_MAX:
        raise ConfigError(f"{name}: a time like 30m, 24h or 7d, or a number of seconds, up to {LIFETIME_MAX:.0f}")
    return float(value)

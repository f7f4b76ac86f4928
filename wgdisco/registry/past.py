"""Invitations that are over, kept for a while: an admin sees who used a link, or that nobody did in time.

They are facts as before, with `ended_at`, and without their secret.
"""

from collections.abc import Iterable
from dataclasses import replace

from wgdisco.keys import PresharedKey
from wgdisco.registry.facts import Change, Invitation, Put, Remove

PAST_MAX = 64
PAST_FOR = 7 * 86400.0
USED_BY_MAX = 32


def used(invitation: Invitation, name: str) -> Invitation:
    """`name` has become a member by it, and shown that it holds its key."""
    names = dict.fromkeys((*invitation.used_by, name))
    return replace(invitation, used_by=tuple(names)[-USED_BY_MAX:])


def end(past: Iterable[Invitation], ended: Iterable[Invitation], now: float) -> list[Change]:
    """These end now. Of those that ended before (`past`) the oldest go, where they are too many or too old."""
    past = sorted(past, key=lambda one: one.ended_at or 0.0)
    nothing = PresharedKey(bytes(32))
    over = [replace(one, ended_at=now, preshared_key=nothing) for one in ended][-PAST_MAX:]
    kept = [one for one in past if now - (one.ended_at or 0.0) < PAST_FOR]
    kept = kept[max(0, len(kept) + len(over) - PAST_MAX) :]
    forgotten = [one for one in past if one not in kept]
    return [*map(Remove, forgotten), *map(Put, over)]

"""Ephemeral members: they go by themselves when they were not heard for some time, and at once when they say so.

The time is counted by a clock of its own. It stands still while the registry does not run, or hears nobody at all: who
was cut off together with it has a full period from when it is back.
"""

from collections.abc import Iterable, Mapping

from wgdisco.durations import duration_text
from wgdisco.errors import ConfigError
from wgdisco.keys import PublicKey
from wgdisco.registry.facts import Change, Member
from wgdisco.registry.membership import Membership

# For how long a member is kept that was told nothing else, and at least: one that is there may be silent for 75 s
PERIOD = 600.0
LEAST_PERIOD = 180.0
# How lately, in seconds, somebody was heard while the clock goes on
ANYBODY_WITHIN = 90.0
# What is longer between two looks, in seconds, was no waiting: the registry's machine slept
LOOK_MOST = 60.0


def check_period(where: str, period: float) -> None:
    """ConfigError for one that members who are there would not outlive."""
    if period < LEAST_PERIOD:
        raise ConfigError(f"{where}: at least {duration_text(LEAST_PERIOD)}, since members are silent for a while")


class Absence:
    """How long each ephemeral member was not heard. Begins anew with the registry."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._looked_at: float | None = None
        self._heard: dict[PublicKey, tuple[float | None, float]] = {}  # when by its time, when by our clock

    def look(
        self, members: Iterable[Member], received_at: Mapping[PublicKey, float | None], now: float
    ) -> list[Member]:
        """Who has been away for too long. `received_at` is when each peer was last heard, by the clock of `now`."""
        latest = max((at for at in received_at.values() if at is not None), default=None)
        if self._looked_at is not None and latest is not None and now - latest < ANYBODY_WITHIN:
            self._clock += min(now - self._looked_at, LOOK_MOST)
        self._looked_at = now
        before, self._heard = self._heard, {}
        gone = []
        for member in members:
            if member.ephemeral is None:
                continue
            at = received_at.get(member.public_key)
            known_at, heard = before.get(member.public_key, (None, self._clock))
            self._heard[member.public_key] = (at, heard if at == known_at else self._clock)
            if self._clock - self._heard[member.public_key][1] >= member.ephemeral:
                gone.append(member)
        return gone


def vanish(membership: Membership, member: Member) -> list[Change]:
    """One that was away for too long goes, unless it is another by now: it may just have come with its next key."""
    now = membership.members.get(member.public_key)
    return [] if now is None or now.number != member.number else membership.forget(now)


def leave(membership: Membership, key: PublicKey, now: float) -> list[Change]:
    """A member goes of its own will. The key of one that is ephemeral may come back; any other's is given up."""
    member = membership.members.get(key)
    if member is None:
        return []
    if member.ephemeral is not None:
        return membership.forget(member)
    changes, _ = membership.revoke(member.name, now)
    return changes

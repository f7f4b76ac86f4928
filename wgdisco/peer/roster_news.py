"""What a roster has to tell a person."""

from dataclasses import dataclass

from wgdisco.keys import PublicKey


@dataclass(frozen=True, slots=True)
class Accepted:
    """A member is ours to talk to."""

    name: str
    key: PublicKey


@dataclass(frozen=True, slots=True)
class Gone:
    """A member is no longer."""

    name: str
    key: PublicKey


@dataclass(frozen=True, slots=True)
class MemberRefused:
    """A member is not talked to; `why` is one phrase that says what to do."""

    name: str
    key: PublicKey
    why: str


@dataclass(frozen=True, slots=True)
class OlderEpoch:
    """The registry was restored from a backup older than what is known here; its list of members is not taken over."""

    told: int
    known: int


@dataclass(frozen=True, slots=True)
class TrustExpired:
    """No registry was heard for so long that members are trusted no longer."""


RosterNews = Accepted | Gone | MemberRefused | OlderEpoch | TrustExpired

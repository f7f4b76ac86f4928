"""How NATs behave, in the words of RFC 4787, and which pairs two plain WireGuard peers can punch."""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Self


class MappingBehavior(Enum):
    """How the external port depends on the destination (RFC 4787 section 4.1)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class FilteringBehavior(Enum):
    """Which sources a mapping lets in (RFC 4787 section 5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


MAX_DELTA = 32
_UNKNOWN = "-"
_MAPPINGS = dict(zip(("eim", "adm", "apdm"), MappingBehavior, strict=True))
_FILTERINGS = dict(zip(("eif", "adf", "apdf"), FilteringBehavior, strict=True))
_DELTAS = {str(delta): delta for delta in range(-MAX_DELTA, MAX_DELTA + 1) if delta}


@dataclass(frozen=True, slots=True)
class NatProfile:
    """One NAT's behaviour; None is unknown.

    `burns` says that an unsolicited packet makes it remap the flow it collides with, as Linux does when its own input
    chain accepts (design fact: the entry blocks the port towards that remote until it expires); nobody measures it.
    `delta` is how far apart the ports of one mapping and the next are, -32 to 32 without 0, where that can be told.
    """

    mapping: MappingBehavior | None
    filtering: FilteringBehavior | None
    burns: bool = False
    delta: int | None = None

    def to_text(self) -> str:
        """`MAPPING/FILTERING/DELTA`: `eim|adm|apdm`, `eif|adf|apdf` and a number; `-` is unknown."""
        mapping = next((word for word, meant in _MAPPINGS.items() if meant is self.mapping), _UNKNOWN)
        filtering = next((word for word, meant in _FILTERINGS.items() if meant is self.filtering), _UNKNOWN)
        return f"{mapping}/{filtering}/{_UNKNOWN if self.delta is None else self.delta}"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Parse what `to_text` writes; ValueError otherwise."""
        profile = cls(None, None)
        if text.count("/") == 2:
            mapping, filtering, delta = text.split("/")
            profile = cls(_MAPPINGS.get(mapping), _FILTERINGS.get(filtering), delta=_DELTAS.get(delta))
        if profile.to_text() != text:
            raise ValueError(f"{text!r} is not a NAT profile: MAPPING/FILTERING/DELTA, as eim/apdf/-")
        return profile


def can_punch(a: NatProfile, b: NatProfile) -> bool | None:
    """Whether plain punching connects the pair in either order of starting; None when what is unknown decides it.

    Plain punching is: each side sends to the endpoint a third party saw, and answers to the source it hears from.
    """
    answers = {_reaches(x, y) or _reaches(y, x) for x in _possible(a) for y in _possible(b)}
    return answers.pop() if len(answers) == 1 else None


def _possible(profile: NatProfile) -> list[NatProfile]:
    """Every fully known profile it may be."""
    mappings = list(MappingBehavior) if profile.mapping is None else [profile.mapping]
    filterings = list(FilteringBehavior) if profile.filtering is None else [profile.filtering]
    return [replace(profile, mapping=mapping, filtering=filtering) for mapping in mappings for filtering in filterings]


def _reaches(hard: NatProfile, easy: NatProfile) -> bool:
    """Whether `hard` gets through to the published endpoint of `easy`, and its answers back.

    Before that `easy` has sent to the published endpoint of `hard`.
    """
    if easy.filtering is FilteringBehavior.ENDPOINT_INDEPENDENT:
        # The published port is open to all, but only an endpoint-independent mapping answers from it.
        return (
            easy.mapping is MappingBehavior.ENDPOINT_INDEPENDENT
            or hard.filtering is not FilteringBehavior.ADDRESS_AND_PORT_DEPENDENT
        )
    if easy.mapping is not MappingBehavior.ENDPOINT_INDEPENDENT:
        return False
    if easy.filtering is FilteringBehavior.ADDRESS_DEPENDENT:
        return True
    return hard.mapping is MappingBehavior.ENDPOINT_INDEPENDENT and not (hard.burns or easy.burns)

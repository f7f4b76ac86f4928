"""How NATs behave, in the words of RFC 4787, and which pairs two plain WireGuard peers can punch."""

from dataclasses import dataclass
from enum import Enum


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


@dataclass(frozen=True, slots=True)
class NatProfile:
    """One NAT's behaviour.

    `burns` says that an unsolicited packet makes it remap the flow it collides with, as Linux does when its own input
    chain accepts (design fact: the entry blocks the port towards that remote until it expires).
    """

    mapping: MappingBehavior
    filtering: FilteringBehavior
    burns: bool = False


def can_punch(a: NatProfile, b: NatProfile) -> bool:
    """Whether plain punching connects the pair in either order of starting.

    Plain punching is: each side sends to the endpoint a third party saw, and answers to the source it hears from.
    """
    return _reaches(a, b) or _reaches(b, a)


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

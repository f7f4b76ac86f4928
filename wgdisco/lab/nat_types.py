"""The lab's ten NAT types: the nft rules that make each, and what they amount to in the words of RFC 4787.

The rules are in `nat_types/*.nft`; in them `wan` is the outside interface and WAN_ADDRESS its address.
"""

from dataclasses import dataclass
from importlib import resources
from ipaddress import IPv4Address

from wgdisco.nat import FilteringBehavior, MappingBehavior, NatProfile

_EIM = MappingBehavior.ENDPOINT_INDEPENDENT
_APDM = MappingBehavior.ADDRESS_AND_PORT_DEPENDENT
_EIF = FilteringBehavior.ENDPOINT_INDEPENDENT
_ADF = FilteringBehavior.ADDRESS_DEPENDENT
_APDF = FilteringBehavior.ADDRESS_AND_PORT_DEPENDENT


# What an ordinary user may send the kernel in one go is limited; 4,000 elements are a third of it.
_ELEMENTS_AT_ONCE = 4000


def rules_of(name: str) -> str:
    """The nft rules in `nat_types/NAME.nft`: a type's, or what other routers have beside theirs."""
    return resources.files("wgdisco.lab").joinpath("nat_types", f"{name}.nft").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class NatType:
    """One type. Where it `translates`, the host behind it has a private address; else a public one, routed to it.

    `ports` are those it hands out where it chooses by itself: the values of the rules' map `ports`.
    """

    name: str
    profile: NatProfile
    translates: bool = True
    ports: range = range(0)

    def transactions(self, wan_address: IPv4Address) -> list[str]:
        """What `nft -f` is to load, in order, for a NAT whose outside address is `wan_address`."""
        loads = [rules_of(self.name).replace("WAN_ADDRESS", str(wan_address))]
        for start in range(0, len(self.ports), _ELEMENTS_AT_ONCE):
            ports = self.ports[start : start + _ELEMENTS_AT_ONCE]
            elements = ", ".join(f"{index} : {port}" for index, port in enumerate(ports, start))
            loads.append(f"add element ip nat ports {{ {elements} }}\n")
        return loads


NAT_TYPES: dict[str, NatType] = {
    nat_type.name: nat_type
    for nat_type in (
        NatType("public", NatProfile(_EIM, _EIF), translates=False),
        NatType("firewall", NatProfile(_EIM, _APDF), translates=False),
        NatType("full-cone", NatProfile(_EIM, _EIF)),
        NatType("address-restricted", NatProfile(_EIM, _ADF)),
        NatType("port-restricted", NatProfile(_EIM, _APDF)),
        NatType("eim-other-port", NatProfile(_EIM, _APDF), ports=range(20_000, 40_000)),
        NatType("open-input", NatProfile(_EIM, _APDF, burns=True)),
        NatType("symmetric-sequential", NatProfile(_APDM, _APDF), ports=range(30_000, 33_000)),
        NatType("symmetric-block", NatProfile(_APDM, _APDF)),
        NatType("symmetric-random", NatProfile(_APDM, _APDF)),
    )
}

"""The lab's ten NAT types: the nft rules that make each, and what they amount to in the words of RFC 4787.

The rules are in `nat_types/*.nft`; in them `wan` is the outside interface, and three words are filled in here.
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


@dataclass(frozen=True, slots=True)
class NatType:
    """One type. Where it `translates`, the host behind it has a private address; else a public one, routed to it."""

    name: str
    profile: NatProfile
    translates: bool = True

    def rules(self, wan_address: IPv4Address) -> str:
        """The nft rules of a NAT whose outside address is `wan_address`; empty where there is nothing to do."""
        text = resources.files("wgdisco.lab").joinpath("nat_types", f"{self.name}.nft").read_text(encoding="utf-8")
        rules = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        rules = rules.replace("WAN_ADDRESS", str(wan_address))
        for word, (first, size) in _PORT_MAPS.items():
            if word in rules:
                rules = rules.replace(word, _port_map(first, size))
        return rules + "\n"


# word in the rules: first port, number of ports
_PORT_MAPS = {"EIM_MAP": (20_000, 20_000), "SEQ_MAP": (30_000, 3_000)}


def _port_map(first: int, size: int) -> str:
    """A literal nft map from 0 … size-1 to ports: nft 1.0.6 does not byte-swap a port it computes."""
    return "{ " + ", ".join(f"{index} : {first + index}" for index in range(size)) + " }"


NAT_TYPES: dict[str, NatType] = {
    nat_type.name: nat_type
    for nat_type in (
        NatType("public", NatProfile(_EIM, _EIF), translates=False),
        NatType("firewall", NatProfile(_EIM, _APDF), translates=False),
        NatType("full-cone", NatProfile(_EIM, _EIF)),
        NatType("address-restricted", NatProfile(_EIM, _ADF)),
        NatType("port-restricted", NatProfile(_EIM, _APDF)),
        NatType("eim-other-port", NatProfile(_EIM, _APDF)),
        NatType("open-input", NatProfile(_EIM, _APDF, burns=True)),
        NatType("symmetric-sequential", NatProfile(_APDM, _APDF)),
        NatType("symmetric-block", NatProfile(_APDM, _APDF)),
        NatType("symmetric-random", NatProfile(_APDM, _APDF)),
    )
}

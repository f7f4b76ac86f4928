"""A packet's way through the chains of `nft -j list ruleset`, as far as it can be told.

A rule whose match is not understood does not apply, as a rule: what it would accept may be dropped all the same. Such a
rule that returns leaves the rest of its chain unknown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_DEPTH = 16  # of jumps, as the kernel's NFT_JUMP_STACK_SIZE


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet; what is None is not known. `port` is the destination's, `state` conntrack's."""

    protocol: str | None = None
    port: int | None = None
    iifname: str | None = None
    oifname: str | None = None
    state: str = "new"


@dataclass(frozen=True, slots=True)
class Chain:
    """A base chain of type filter; `policy` is "accept" or "drop"."""

    family: str
    table: str
    name: str
    hook: str
    policy: str


@dataclass(slots=True)
class Ruleset:
    """What nft lists: objects with one key each, "table", "chain" or "rule" of interest."""

    objects: Sequence[Mapping[str, Any]]
    _rules: dict[tuple[str, str, str], list[Mapping[str, Any]]] = field(init=False)

    def __post_init__(self) -> None:
        self._rules = {}
        for rule in self.rules():
            self._rules.setdefault((rule["family"], rule["table"], rule["chain"]), []).append(rule)

    def rules(self) -> Iterable[Mapping[str, Any]]:
        """All rules, in order."""
        return [item["rule"] for item in self.objects if "rule" in item]

    def base_chains(self) -> list[Chain]:
        """Those of the input and the forward hook that see IP packets and may drop them."""
        chains = (item["chain"] for item in self.objects if "chain" in item)
        return [
            Chain(chain["family"], chain["table"], chain["name"], chain["hook"], chain.get("policy", "accept"))
            for chain in chains
            if chain.get("type") == "filter"
            and chain.get("hook") in {"input", "forward"}
            and chain["family"] in {"ip", "ip6", "inet"}
        ]

    def chain_names(self, chain: Chain) -> list[str]:
        """The chains of the same table."""
        found = (item["chain"] for item in self.objects if "chain" in item)
        return [it["name"] for it in found if (it["family"], it["table"]) == (chain.family, chain.table)]

    def accepts(self, chain: Chain, packet: Packet) -> bool:
        """Whether the packet comes through; true where it cannot be told."""
        verdict = self._walk((chain.family, chain.table, chain.name), packet, _DEPTH)
        return (verdict or chain.policy) != "drop"

    def _walk(self, place: tuple[str, str, str], packet: Packet, depth: int) -> str | None:
        """Says "accept", "drop", or None where the packet leaves the chain at its end."""
        if depth == 0:
            return None
        for rule in self._rules.get(place, []):
            applies, verdict = _read(rule, packet)
            match verdict:
                case ("accept" | "drop" as what, _) if applies:
                    return what
                case ("return", _) if applies is not False:
                    return None
                case ("jump" | "goto" as what, str(target)) if applies:
                    inner = self._walk((place[0], place[1], target), packet, depth - 1)
                    if inner is not None or what == "goto":
                        return inner
        return None


def _read(rule: Mapping[str, Any], packet: Packet) -> tuple[bool | None, tuple[str, str | None] | None]:
    """Whether a rule is about the packet (None: not to be told), and its verdict with the chain it leads to."""
    verdict = None
    answers: list[bool | None] = []
    for expression in rule.get("expr", []):
        ((kind, value),) = expression.items()
        said = _verdict(kind, value)
        verdict = verdict or said
        if kind == "match":
            answers.append(_matches(value, packet))
        elif said is None and kind not in _PASSIVE:
            answers.append(None)
    return (False if False in answers else None if None in answers else True), verdict


# Expressions that neither match nor decide
_PASSIVE = frozenset({"match", "counter", "log", "mangle", "comment"})


def _verdict(kind: str, value: Any) -> tuple[str, str | None] | None:
    if kind in {"accept", "return"}:
        return kind, None
    if kind in {"drop", "reject"}:
        return "drop", None
    if kind in {"jump", "goto"}:
        return kind, str(value["target"])
    if kind == "xt" and isinstance(value, Mapping) and value.get("name") in {"REJECT", "DROP"}:
        return "drop", None
    return None


def _matches(match: Mapping[str, Any], packet: Packet) -> bool | None:
    """None where the match is of a kind that is not understood, or about what is not known of the packet."""
    left, right, operator = match["left"], match["right"], match.get("op", "==")
    if not isinstance(left, Mapping) or operator not in {"==", "!=", "in"}:
        return None
    actual = _field(left, packet)
    if actual is None:
        return None
    same = _holds(right, actual)
    return None if same is None else same != (operator == "!=")


def _field(left: Mapping[str, Any], packet: Packet) -> str | int | None:
    match left:
        case {"meta": {"key": "iifname" | "iif"}}:
            return packet.iifname
        case {"meta": {"key": "oifname" | "oif"}}:
            return packet.oifname
        case {"meta": {"key": "l4proto"}} | {"payload": {"field": "protocol" | "nexthdr"}}:
            return packet.protocol
        case {"ct": {"key": "state"}}:
            return packet.state
        case {"payload": {"protocol": "udp" | "tcp" | "th" as protocol, "field": "dport"}}:
            if packet.protocol is None:
                return None
            return packet.port if protocol in {"th", packet.protocol} else -1
    return None


def _holds(right: Any, actual: str | int) -> bool | None:
    if isinstance(right, Mapping):
        if "set" in right:
            items = right["set"] if isinstance(right["set"], list) else [right["set"]]
        elif "range" in right and isinstance(actual, int):
            low, high = right["range"]
            return bool(isinstance(low, int) and isinstance(high, int) and low <= actual <= high)
        else:
            return None
    else:
        items = right if isinstance(right, list) else [right]
    answers = [_holds(item, actual) if isinstance(item, Mapping) else _equal(item, actual) for item in items]
    return True if True in answers else None if None in answers else False


def _equal(item: Any, actual: str | int) -> bool | None:
    """An interface name may end in a wildcard; "@set" is a named set, whose elements are not looked up."""
    if isinstance(item, str) and item.startswith("@"):
        return None
    if isinstance(item, str) and item.endswith("*"):
        return str(actual).startswith(item[:-1])
    return bool(item == actual)

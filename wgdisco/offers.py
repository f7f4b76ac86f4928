"""Offers: subnets behind a member, and the Internet (an exit), before and after somebody approves of them."""

from collections.abc import Iterable
from ipaddress import ip_network

from wgdisco.endpoint import LINK_LOCAL, LOOPBACK, SITE_LOCAL, IPNetwork

OFFERS_MAX = 16  # of one member
EXIT: tuple[IPNetwork, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_EXIT_WORD = "exit"
# What is wider draws too much of the Internet into a tunnel for a subnet. Those that nobody has alone may be wide.
_SHORTEST_PREFIX = {4: 16, 6: 32}
_SHORTEST_PRIVATE_PREFIX = {4: 8, 6: 16}
# RFC 1112 and 4291: multicast; RFC 1122 section 3.2.1.3: this network; class E
_NEVER: tuple[IPNetwork, ...] = (
    *LOOPBACK,
    *LINK_LOCAL,
    *map(ip_network, ("224.0.0.0/4", "ff00::/8", "0.0.0.0/8", "240.0.0.0/4", "::/96", "::ffff:0:0/96")),
)


def is_default(network: IPNetwork) -> bool:
    """Whether it stands for the Internet."""
    return network.prefixlen == 0


def overlaps(network: IPNetwork, others: Iterable[IPNetwork]) -> IPNetwork | None:
    """The first of `others` that has an address in common with `network`."""
    return next((other for other in others if other.version == network.version and other.overlaps(network)), None)


def refuse(network: IPNetwork, prefixes: Iterable[IPNetwork]) -> str | None:
    """Why `network` can be behind no member, in one phrase; `prefixes` are the tunnel's own. None when it can."""
    if is_default(network):
        return None
    if overlaps(network, _NEVER) is not None:
        return "it is for one host or one link alone: give a subnet that can be routed"
    tunnel = overlaps(network, prefixes)
    if tunnel is not None:
        return f"it overlaps {tunnel}, the network's own addresses"
    private = any(site.version == network.version and network.subnet_of(site) for site in SITE_LOCAL)  # type: ignore[arg-type]
    shortest = (_SHORTEST_PRIVATE_PREFIX if private else _SHORTEST_PREFIX)[network.version]
    if network.prefixlen < shortest:
        return f"it is too wide: /{shortest} at the most, or the word {_EXIT_WORD} for the whole Internet"
    return None


def judge_subnets(
    subnets: Iterable[IPNetwork], prefixes: tuple[IPNetwork, ...], taken: Iterable[IPNetwork]
) -> tuple[tuple[IPNetwork, ...], tuple[tuple[IPNetwork, str], ...]]:
    """Those of a member's that may be routed to it, and the others, each with why in one phrase.

    `prefixes` are the tunnel's own; whoever has one of `taken` keeps it.
    """
    held = [network for network in taken if not is_default(network)]
    good: list[IPNetwork] = []
    bad = []
    for subnet in subnets:
        why = refuse(subnet, prefixes)
        if why is None and not is_default(subnet):
            other = overlaps(subnet, held)
            why = None if other is None else f"it overlaps {other}, which is behind another"
            held.append(subnet)
        if why is None:
            good.append(subnet)
        else:
            bad.append((subnet, why))
    return tuple(good), tuple(bad)


def parse_subnet(text: str) -> IPNetwork:
    """One CIDR; ValueError says what to write."""
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text[:70]!r} is not a subnet: write 192.168.7.0/24, or the word {_EXIT_WORD}") from None
    raise ValueError(f"{text} has bits set past its length: write {meant}")


def parse_offers(text: str) -> tuple[IPNetwork, ...]:
    """`CIDR[,CIDR…]`, with the word `exit` for the whole Internet, in order; ValueError says what is wrong with it."""
    found: list[IPNetwork] = []
    for item in text.split(","):
        found += EXIT if item == _EXIT_WORD else [parse_subnet(item)]
    networks = tuple(dict.fromkeys(found))
    if len(networks) > OFFERS_MAX:
        raise ValueError(f"at most {OFFERS_MAX} subnets of one member")
    return networks


def to_texts(networks: Iterable[IPNetwork]) -> list[str]:
    """For a person: `exit` where both default routes are there."""
    networks = list(networks)
    if not set(EXIT) <= set(networks):
        return [str(network) for network in networks]
    return [*(str(network) for network in networks if not is_default(network)), _EXIT_WORD]

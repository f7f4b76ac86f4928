"""What options of `join` and `up` make of a membership."""

import re
from dataclasses import replace

from wgdisco.errors import ConfigError
from wgdisco.names import check_member_name
from wgdisco.offers import is_default, parse_offers, refuse
from wgdisco.peer.interfaces import MdnsPolicy
from wgdisco.peer.io.state import MemberState
from wgdisco.peer.records import Network

_INTERFACE_NAME = re.compile(r"[^/:@\s-][^/:\s]{0,14}")


def with_ways(state: MemberState, offer: str | None, exit_name: str | None) -> MemberState:
    """What `--offer` and `--exit` make of a membership; ConfigError for what cannot be."""
    offers = state.offers
    if offer is not None:
        try:
            offers = () if offer == "none" else parse_offers(offer)
        except ValueError as error:
            raise ConfigError(f"--offer: {error}") from error
        prefixes = Network.of(state.memory.snapshot.network).prefixes
        for network in offers:
            if (why := refuse(network, prefixes)) is not None:
                raise ConfigError(f"--offer: {network}: {why}")
    if exit_name is None:
        exit_name = state.exit_name
    elif exit_name == "none":
        exit_name = None
    else:
        check_member_name(exit_name)
    if exit_name is not None and any(map(is_default, offers)):
        raise ConfigError("--exit and --offer exit: whoever goes out by another member cannot be an exit itself")
    if offers and state.block_incoming:
        raise ConfigError("--offer and --block-incoming: what is offered comes in; take one back (--offer none)")
    return replace(state, offers=offers, exit_name=exit_name)


def mdns_policy(known: MdnsPolicy, *, everywhere: bool, none_on: list[str] | None) -> MdnsPolicy:
    """What `--mdns` and `--no-mdns[=IF]` (each an interface, or "" for all) make of what is `known`."""
    if not everywhere and none_on is None:
        return known
    not_on = tuple(dict.fromkeys(name for name in none_on or () if name))
    if not all(_INTERFACE_NAME.fullmatch(name) for name in not_on):
        # it may be the link, which is a secret
        raise ConfigError("--no-mdns=IF: IF is no interface's name; the join link goes before --no-mdns")
    nowhere = "" in (none_on or ())
    if nowhere and everywhere:
        raise ConfigError("--mdns and --no-mdns: one of them (--no-mdns=IF goes with --mdns)")
    return MdnsPolicy(everywhere, nowhere, not_on)

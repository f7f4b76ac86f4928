"""What a member tells a person about what is behind others, and behind itself."""

from collections.abc import Iterator

from wgdisco.endpoint import IPNetwork
from wgdisco.offers import EXIT, is_default, overlaps, to_texts
from wgdisco.peer.interfaces import LocalNetwork
from wgdisco.peer.roster import Roster


def behind_notes(roster: Roster, offers: tuple[IPNetwork, ...], local: LocalNetwork) -> Iterator[str]:
    """What is not routed, and why; `offers` are our own."""
    for name, subnet, why in roster.subnets_refused():
        yield f"{subnet} behind {name} is not routed there: {why}"
    here = {address.network: address.interface for address in local.addresses if address.network.num_addresses > 1}
    for member in roster.members.values():
        for subnet in member.subnets:
            near = None if is_default(subnet) else overlaps(subnet, here)
            if near is not None:
                yield (
                    f"{subnet} behind {member.name} is not reached in {near}: this host is on that itself"
                    f" ({here[near]})"
                )
    if roster.exit_name is not None:
        yield from _exit_notes(roster, roster.exit_name)
    approved = roster.own_subnets()
    waiting = [network for network in offers if network not in approved]
    if waiting:
        texts = to_texts(waiting)
        yield (
            f"{', '.join(texts)} is offered, and reached by nobody before an administrator types"
            f" `wgdisco registry approve {roster.own_name} {','.join(texts)}`"
        )


def _exit_notes(roster: Roster, name: str) -> Iterator[str]:
    member = next((member for member in roster.members.values() if member.name == name), None)
    if member is None:
        yield f"the exit {name} is no member that is known here: nothing goes to the Internet; `--exit none` ends that"
        return
    missing = [str(network) for network in EXIT if network not in member.subnets]
    if missing:
        yield (
            f"{name} is not approved as an exit for {' and '.join(missing)}, which goes nowhere:"
            f" `wgdisco registry approve {name} exit`, or `--exit none` here"
        )

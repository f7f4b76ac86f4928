"""What a registry counts: members, orders, what it passes on, and what its own store and streams do."""

from collections import Counter
from collections.abc import Iterable

from wgdisco.metrics import Family, Kind, Metric, slug
from wgdisco.registry.directory import Entry
from wgdisco.registry.orders import Asked
from wgdisco.registry.relay import Relay, RelayDrop
from wgdisco.registry.stun import Drop, StunResponder

MEMBERS = Metric(
    "wgdisco_members",
    Kind.GAUGE,
    "Members by state: live, offline, or enrolled and never heard of since (a file's peers: live or offline).",
    ("state",),
)
SERIAL = Metric("wgdisco_zone_serial", Kind.GAUGE, "The zone's serial.")
OF_ALL = (MEMBERS, SERIAL)

INVITATIONS = Metric("wgdisco_invitations_pending", Kind.GAUGE, "Invitations that can be used now.")
ORDERS = Metric("wgdisco_orders_total", Kind.COUNTER, "Orders to punch that members asked for, by result.", ("result",))
RELAY_PACKETS = Metric("wgdisco_relay_packets_total", Kind.COUNTER, "Datagrams that the relay passed on.")
RELAY_BYTES = Metric("wgdisco_relay_bytes_total", Kind.COUNTER, "UDP payload that the relay passed on.")
STUN_ANSWERS = Metric("wgdisco_stun_answers_total", Kind.COUNTER, "STUN requests of members that were answered.")
STREAMS = Metric("wgdisco_event_streams", Kind.GAUGE, "Event streams that are open, of members that listen.")
CUT = Metric("wgdisco_event_streams_cut_total", Kind.COUNTER, "Event streams that were cut, being too far behind.")
COMMITS = Metric("wgdisco_ledger_commits_total", Kind.COUNTER, "Changes of facts that were stored.")
FAILURES = Metric("wgdisco_ledger_failures_total", Kind.COUNTER, "Changes of facts that could not be stored.")
OF_MANAGED = (
    *(INVITATIONS, ORDERS, RELAY_PACKETS, RELAY_BYTES),
    *(STUN_ANSWERS, STREAMS, CUT, COMMITS, FAILURES),
)


def members(entries: Iterable[Entry], enrolled: int | None = None) -> Family:
    """By state. `enrolled` have never been heard under their own key; None where nobody enrols."""
    counted = Counter("live" if entry.live else "offline" for entry in entries)
    states: dict[str, float] = {"live": counted["live"], "offline": counted["offline"]}
    return MEMBERS.by(states if enrolled is None else states | {"enrolled": enrolled})


def orders(asked: Counter[Asked]) -> Family:
    """By result."""
    return ORDERS.by({slug(result.value): asked[result] for result in Asked})


def relayed(relay: Relay) -> list[Family]:
    """What was passed on."""
    return [RELAY_PACKETS.of(relay.passed.rx_packets), RELAY_BYTES.of(relay.passed.rx_bytes)]


def relay_drops(relay: Relay) -> dict[str, float]:
    """By reason."""
    return {slug(reason.value.removeprefix("relay: ")): relay.drops[reason] for reason in RelayDrop}


def stun_drops(stun: StunResponder) -> dict[str, float]:
    """By reason."""
    return {slug(reason.value): stun.drops[reason] for reason in Drop}

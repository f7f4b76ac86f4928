"""What a member tells a person about its network."""

from dataclasses import dataclass, replace

from wgdisco.api import PathWord, PeerReport, Reason
from wgdisco.peer.roster import Roster
from wgdisco.peer.roster_news import OlderEpoch
from wgdisco.tunnel import burst
from wgdisco.tunnel.engines import EngineKind

REGISTRY_NAME = "registry"


def is_settled(peers: list[PeerReport]) -> bool:
    """Whether the registry answers, and every member that is online."""
    waiting = [peer for peer in peers if peer.path == PathWord.PUNCHING.value]
    return all(peer.reason == Reason.PEER_OFFLINE.value and peer.name != REGISTRY_NAME for peer in waiting)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with this host or its membership as a whole. `clock` is a line for a person."""

    clock: str | None = None
    is_revoked: bool = False
    is_other_version: bool = False
    is_firewalled: bool = False


def blame(report: PeerReport, trouble: Trouble, is_online: bool | None) -> PeerReport:
    """The peer with the reason that explains most; `is_online` is what the registry says, None when it says nothing."""
    is_registry = report.name == REGISTRY_NAME
    if report.path in {PathWord.DIRECT.value, PathWord.LAN.value} and not (is_registry and trouble.is_other_version):
        return report
    reason = report.reason
    if trouble.is_revoked:
        reason = Reason.REVOKED.value
    elif is_registry and trouble.is_other_version:
        reason = Reason.VERSION.value
    elif report.path == PathWord.PUNCHING.value and trouble.is_firewalled:
        reason = Reason.HOST_FIREWALL.value
    elif report.path == PathWord.PUNCHING.value and is_online is False:
        reason = Reason.PEER_OFFLINE.value
    elif report.path == PathWord.PUNCHING.value and trouble.clock is not None and reason == Reason.NO_UDP_ANSWER.value:
        reason = Reason.CLOCK.value
    return replace(report, reason=reason)


def notes(roster: Roster, now: float, older_epoch: OlderEpoch | None, trouble: Trouble) -> list[str]:
    """What is not as it should be, and what to do."""
    found = [] if trouble.clock is None else [trouble.clock]
    if trouble.is_revoked:
        found.append(f"{roster.own_name} is no longer a member: `wgdisco leave`, or ask for another invitation")
    if trouble.is_other_version:
        found.append("the registry speaks another version of the API: update the older of the two")
    if trouble.is_firewalled:
        found.append("this host's firewall drops what the network needs: join again with --firewall auto, or print")
    found += [f"{one.name} ({one.key}) is not talked to: {one.why}" for one in roster.refused()]
    if not roster.check_trust(now):
        found.append(TRUST_NOTE)
    if older_epoch is not None:
        found.append(epoch_note(older_epoch))
    return found


def engine_notes(kind: EngineKind = EngineKind.USERSPACE) -> list[str]:
    """What to say of the engine: nothing, unless it is the slow one of ours."""
    return [SLOW_NOTE] if kind is EngineKind.USERSPACE and burst.implementation() == "reference" else []


SLOW_NOTE = (
    "the engine is the reference, which is much slower than the compiled one: have gcc, python3-dev and libssl-dev,"
    " and install wgdisco again"
)
TRUST_NOTE = "no registry was heard for as long as --offline-trust allows: members are not trusted until one is"


def epoch_note(news: OlderEpoch) -> str:
    """The registry is older than what we know."""
    return (
        f"the registry was restored from an older backup (epoch {news.told}, {news.known} is known here): its list of"
        " members is not taken over; restore a newer one with `wgdisco registry restore`"
    )

"""What a member tells a person about its network."""

from dataclasses import replace

from wgdisco.api import PathWord, PeerReport, Reason
from wgdisco.peer.roster import OlderEpoch, Roster

REGISTRY_NAME = "registry"


def is_settled(peers: list[PeerReport]) -> bool:
    """Whether the registry answers, and every member that is online."""
    waiting = [peer for peer in peers if peer.path == PathWord.PUNCHING.value]
    return all(peer.reason == Reason.PEER_OFFLINE.value and peer.name != REGISTRY_NAME for peer in waiting)


def offline(report: PeerReport) -> PeerReport:
    """A peer that is heard neither here nor by the registry is offline."""
    return replace(report, reason=Reason.PEER_OFFLINE.value) if report.path == PathWord.PUNCHING.value else report


def blame_clock(report: PeerReport) -> PeerReport:
    """A peer that does not answer a host whose clock is wrong may refuse its handshakes for that."""
    return replace(report, reason=Reason.CLOCK.value) if report.reason == Reason.NO_UDP_ANSWER.value else report


def notes(roster: Roster, now: float, older_epoch: OlderEpoch | None, clock_note: str | None = None) -> list[str]:
    """What is not as it should be, and what to do."""
    found = [] if clock_note is None else [clock_note]
    found += [f"{one.name} ({one.key}) is not talked to: {one.why}" for one in roster.refused()]
    if not roster.check_trust(now):
        found.append(TRUST_NOTE)
    if older_epoch is not None:
        found.append(epoch_note(older_epoch))
    return found


TRUST_NOTE = "no registry was heard for as long as --offline-trust allows: members are not trusted until one is"


def epoch_note(news: OlderEpoch) -> str:
    """The registry is older than what we know."""
    return (
        f"the registry was restored from an older backup (epoch {news.told}, {news.known} is known here): its list of"
        " members is not taken over; restore a newer one with `wgdisco registry restore`"
    )

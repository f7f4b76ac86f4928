"""What a member says in its log: of its paths, and of who is a member."""

import logging

from wgdisco.api import PathWord
from wgdisco.peer.news import Found, News, Ordered, PathChanged, Refused
from wgdisco.peer.report import TRUST_NOTE, epoch_note
from wgdisco.peer.roster import Accepted, Gone, MemberRefused, OlderEpoch, RosterNews, TrustExpired

LOG = logging.getLogger(__name__)


def tell(news: News) -> None:
    """Of a path."""
    match news:
        case Found(key, endpoint, at):
            LOG.info("found", extra={"fields": {"at": at, "peer": str(key), "endpoint": str(endpoint)}})
        case Refused(key, endpoint, why, at):
            refused = {"at": at, "peer": str(key), "endpoint": str(endpoint), "reason": why}
            LOG.warning("endpoint refused", extra={"fields": refused})
        case Ordered(key, is_initiator, endpoints, at):
            tried = [str(endpoint) for endpoint in endpoints]
            order = {"at": at, "peer": str(key), "initiator": is_initiator, "endpoints": tried}
            LOG.info("order", extra={"fields": order})
        case PathChanged(key, path, reason, endpoints, at):
            told: dict[str, object] = {"at": at, "peer": str(key)}
            if path is PathWord.PUNCHING:
                told["endpoints"] = [str(endpoint) for endpoint in endpoints]
            elif endpoints:
                told["endpoint"] = str(endpoints[0])
            if reason is not None:
                told["reason"] = reason.value
            LOG.info(path.value, extra={"fields": told})


def tell_of_roster(news: RosterNews) -> None:
    """Of the members."""
    match news:
        case Accepted(name, key):
            LOG.info("member", extra={"fields": {"name": name, "peer": str(key)}})
        case Gone(name, key):
            LOG.info("member gone", extra={"fields": {"name": name, "peer": str(key)}})
        case MemberRefused(name, key, why):
            LOG.warning("member refused", extra={"fields": {"name": name, "peer": str(key), "reason": why}})
        case OlderEpoch():
            LOG.warning(epoch_note(news))
        case TrustExpired():
            LOG.warning(TRUST_NOTE)

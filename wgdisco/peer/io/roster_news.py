"""What a roster has to tell, in the log."""

import logging

from wgdisco.peer.report import TRUST_NOTE, epoch_note
from wgdisco.peer.roster_news import Accepted, Gone, MemberRefused, OlderEpoch, RosterNews, TrustExpired

LOG = logging.getLogger(__name__)


def log_news(news: RosterNews) -> None:
    """A line of the log for each."""
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

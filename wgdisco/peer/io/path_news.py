"""What an agent has to tell, in the log."""

import logging

from wgdisco.api import PathWord
from wgdisco.peer.news import Found, News, Ordered, PathChanged, Refused

LOG = logging.getLogger(__name__)


def tell(news: News) -> None:
    """A line of the log for each."""
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

"""`DELETE /v1/self`: a member goes of its own will."""

import asyncio
import hmac
import logging
import time

from aiohttp import web

from wgdisco.api import SCHEMA
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.proof import LeaveRequest, leaving_proof
from wgdisco.registry.ephemeral import leave
from wgdisco.registry.io.connection import is_acknowledged
from wgdisco.registry.io.ledger import Ledger
from wgdisco.tunnel.noise import static_static

LOG = logging.getLogger(__name__)

# How long it is waited for the answer to arrive: without the member's peer nothing more gets there
PARTING, LOOK_INTERVAL = 1.0, 0.02


def may_leave(ledger: Ledger, key: PublicKey, asked: LeaveRequest) -> bool:
    """Whether it is the member of `key` itself that asks."""
    shared = static_static(ledger.membership.network.private_key, key)
    proof = asked.proof.encode(errors="replace")
    return shared is not None and hmac.compare_digest(leaving_proof(shared, key).encode(), proof)


async def let_go(ledger: Ledger, key: PublicKey, request: web.Request) -> web.StreamResponse:
    """202, and when that has arrived it is so."""
    response = web.json_response({"schema": SCHEMA}, status=202)
    await response.prepare(request)
    await response.write_eof()
    for _ in range(int(PARTING / LOOK_INTERVAL)):
        if request.transport is None or is_acknowledged(request.transport):
            break
        await asyncio.sleep(LOOK_INTERVAL)
    try:
        await ledger.change(lambda: (leave(ledger.membership, key, time.time()), None))
    except LocalError as error:
        LOG.error("%s", error)  # it is not heard any longer, and stays until somebody revokes it
    else:
        LOG.info("left", extra={"fields": {"peer": str(key)}})
    return response

"""Every captured reply of wgsd v0.3.5, replayed against the responder."""

import pytest

from tests.dnssd import goldenzone
from wgdisco.dnssd.responder import Profile, Responder

VECTORS = goldenzone.load()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: f"{vector.rdtype} {vector.question[:12]}")
def test_captured_replies_come_back_to_the_byte(vector):
    responder = Responder(goldenzone.golden_zone(), Profile.WGSD_EXACT)
    reply = responder.respond(vector.query(), goldenzone.LOCAL)
    assert reply is not None
    assert reply.hex() == vector.reply.hex()

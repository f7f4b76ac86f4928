"""A registry of its own store: where it answers."""

import pytest

from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.registry.public_dns import PublicDns


@pytest.mark.parametrize(
    ("listen", "covered"),
    [
        (None, []),
        ("192.0.2.1:53", []),
        ("0.0.0.0:53", ["10.0.0.1"]),
        ("0.0.0.0:5353", []),
        ("[::]:53", ["fd00::1"]),
    ],
)
def test_members_are_answered_as_such_wherever_the_port_is_free(listen, covered):
    dns = PublicDns(None if listen is None else Endpoint.from_text(listen))
    assert [text for text in ("10.0.0.1", "fd00::1") if dns.covers(parse_address(text))] == covered

import math
import socket

import pytest

from tests.tunnel.test_conf import PUBLIC_1
from wgdisco.errors import ConfigError, LocalError
from wgdisco.tunnel.conf import parse_conf
from wgdisco.tunnel.io import resolver

pytestmark = pytest.mark.rule("F5")


def conf(endpoint):
    return parse_conf(f"[Peer]\nPublicKey={PUBLIC_1}\nEndpoint={endpoint}\n", "t.conf")


@pytest.fixture
def failing(monkeypatch):
    """A resolver that fails with the errors given, one a call, and then works."""

    def set_up(*numbers):
        left = list(numbers)
        real = socket.getaddrinfo

        def getaddrinfo(*arguments, **more):
            if left:
                raise socket.gaierror(left.pop(0), "for the test")
            return real(*arguments, **more)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        return left

    return set_up


def test_pauses_grow_to_twenty_seconds(failing, capsys):
    """Rule F5: 15 times again, 1 s and then a fifth longer each time."""
    failing(*[socket.EAI_AGAIN] * 15)
    pauses = []
    (peer,) = resolver.resolve_endpoints(conf("127.1:5"), "t.conf", 15, pauses.append).device.peers
    assert str(peer.endpoint) == "127.0.0.1:5"
    assert pauses == pytest.approx([1.2**number for number in range(15)])
    assert capsys.readouterr().err.count("Trying again in ") == 15
    failing(*[socket.EAI_AGAIN] * 30)
    pauses.clear()
    resolver.resolve_endpoints(conf("127.1:5"), "t.conf", math.inf, pauses.append)
    assert pauses[16] == pytest.approx(1.2**16)
    assert pauses[17:] == [20.0] * 13


@pytest.mark.parametrize("error", [socket.EAI_NONAME, socket.EAI_FAIL, socket.EAI_NODATA])
def test_no_such_host_is_final(failing, error):
    left = failing(error, error)
    with pytest.raises(ConfigError, match=r"^t\.conf: Endpoint 127\.1:5 of peer .*: there is no such host$"):
        resolver.resolve_endpoints(conf("127.1:5"), "t.conf", math.inf, pytest.fail)
    assert left == [error]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_when_the_retries_are_used_up(failing, retries):
    left = failing(*[socket.EAI_AGAIN] * 9)
    pauses = []
    with pytest.raises(LocalError, match=r"^t\.conf: cannot look up Endpoint 127\.1:5 of peer"):
        resolver.resolve_endpoints(conf("127.1:5"), "t.conf", retries, pauses.append)
    assert (len(pauses), len(left)) == (retries, 8 - retries)


@pytest.mark.parametrize(
    ("endpoint", "resolved"),
    [
        ("127.1:5", "127.0.0.1:5"),
        ("010.0.0.1:65535", "8.0.0.1:65535"),
        ("0x7f000001:5", "127.0.0.1:5"),
        ("[fe80::1%lo]:5", "[fe80::1%lo]:5"),
        ("fe80::1%1:5", "[fe80::1%lo]:5"),
        ("[2001:db8::1%7]:5", "[2001:db8::1%7]:5"),
        ("127.1:0", "None"),
    ],
)
def test_what_the_resolver_makes_of_addresses(endpoint, resolved):
    whole = resolver.resolve_endpoints(conf(endpoint), "t.conf", 0, pytest.fail)
    assert str(whole.device.peers[0].endpoint) == resolved
    assert whole.endpoint_names == {}


@pytest.mark.parametrize("endpoint", ["[fe80::1%no-such]:5", "1.2.3.4%lo:5", "4294967296:5", "a..b:5", f"{'a' * 64}:5"])
def test_what_no_resolver_takes(endpoint):
    with pytest.raises(ConfigError):
        resolver.resolve_endpoints(conf(endpoint), "t.conf", 0, pytest.fail)


@pytest.mark.parametrize(
    ("text", "retries"),
    [(None, 15), ("0", 0), ("", 0), ("7", 7), ("infinity", math.inf), ("2147483647", 2147483647)],
)
def test_how_often(text, retries):
    assert resolver.parse_retries(text) == retries


@pytest.mark.parametrize("text", ["2147483648", "-1", "Infinity", "5 ", "x", "٣", "9" * 5000])
def test_no_number_of_retries(text):
    with pytest.raises(ConfigError, match="neither a number nor infinity"):
        resolver.parse_retries(text)


def test_services():
    assert resolver.service_port("domain") == 53
    for name in ("", "no-such-service", "a\0b", "\udcff", "é"):
        assert resolver.service_port(name) is None

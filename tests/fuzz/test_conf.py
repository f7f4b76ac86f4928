"""The text of a `.conf` under a fuzzer guided by coverage.

Beside "a value or a ConfigError": what is printed reads back as the same; white space between characters, comments and
the case of names mean nothing; and no message shows what may be a key.
"""

import re

import pytest

from tests.fuzz.coverage import LONG, SHORT, Reader, fuzz, needs_atheris, replay
from wgdisco.errors import ConfigError
from wgdisco.tunnel.conf import TunnelConf, parse_conf

SERVICES = {"domain": 53, "7th": 7}
KEY = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
# What a fuzzer would be long in finding: numbers from 128 upward stand for these.
WORDS = [
    *("[Interface]\n", "[Peer]\n", f"PublicKey={PUBLIC}\n", f"PublicKey={KEY}\n", f"PrivateKey={KEY}\n", KEY, PUBLIC),
    *("PrivateKey=", "ListenPort=", "FwMark=", "Address=", "MTU=", "DNS=", "PostUp="),
    *("PublicKey=", "PresharedKey=", "AllowedIPs=", "Endpoint=", "PersistentKeepalive="),
    *(
        "off",
        "0x",
        "65535",
        "65536",
        "domain",
        "a.example",
        "192.0.2.1",
        "[2001:db8::1]",
        "fe80::1%lo",
        "::",
        "/0",
        "/32",
        "/128",
    ),
    *("\r\n", "\0", "\u00e9", "\u2028", "\u0661", "A" * 43 + "="),
]
LONG_RUN = re.compile(r"[A-Za-z0-9+/]{40}")


def _text(data: bytes) -> str:
    """Bytes below 128 as they are; some of the others are words, and the rest are bytes of no encoding."""
    pieces = []
    for byte in data:
        if 128 <= byte < 128 + len(WORDS):
            pieces.append(WORDS[byte - 128])
        else:
            pieces.append(bytes([byte]).decode("utf-8", "surrogateescape"))
    return "".join(pieces)


def _parsed(text: str) -> TunnelConf | str:
    try:
        return parse_conf(text, "t.conf", SERVICES.get)
    except ConfigError as error:
        complaint = str(error)
        assert re.match(r"t\.conf:[0-9]+: .", complaint)
        assert complaint.isprintable(), "it may end up on a terminal"
        assert not LONG_RUN.search(complaint), "it may be a key"
        return complaint


def _noisy(text: str) -> str:
    """The same file to whom white space, comments and the case of names mean nothing."""
    lines = []
    for line in text.split("\n"):
        kept = re.split("[#\0]", line)[0]
        name, equals, value = kept.partition("=")
        spaced = "\t ".join(name.swapcase() if equals or kept.lstrip().startswith("[") else name)
        is_list = "".join(name.split()).lower() in ("address", "dns")  # white space parts their items
        lines.append(f" {spaced}{equals} " + (value if is_list else "\v".join(value)) + " \r# x=\0[")
    return "\n".join(lines)


def one_input(data: bytes) -> None:
    reader = Reader(data)
    text = ("", "[Interface]\n", f"[Peer]\nPublicKey={PUBLIC}\n")[reader.number(3)] + _text(reader.rest())
    parsed = _parsed(text)
    noisy = _parsed(_noisy(text))
    if isinstance(parsed, str):
        assert isinstance(noisy, str), parsed
        return
    assert noisy == parsed
    printed = parsed.to_text()
    assert parse_conf(printed, "t.conf") == parsed
    assert parse_conf(printed, "t.conf").to_text() == printed
    assert KEY[:40] not in repr(parsed)
    assert len(parsed.device.peers) <= text.lower().count("peer")
    assert len(parsed.tunnel_prefixes()) <= len(text)


def test_the_corpus():
    replay(__name__, one_input)


@needs_atheris
def test_fuzzing(tmp_path):
    fuzz(__name__, SHORT, tmp_path)


@needs_atheris
@pytest.mark.soak
def test_fuzzing_for_long(tmp_path):
    fuzz(__name__, LONG, tmp_path)

"""Cookies against the vectors of RFC 9018 appendix A, and SipHash against its authors'."""

import pytest

from wgdisco.dnssd.cookies import Cookies
from wgdisco.dnssd.siphash import siphash24

SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
SECRET6 = bytes.fromhex("445536bcd2513298075a5d379663c962")
SOURCE = "198.51.100.100"
SOURCE6 = "2001:db8:220:1:59de:d0f4:8769:82b8"
LEARNT = "2464c4abcf10c957010000005cf79f111f8130c3eee29480"


def at(time, secret=SECRET):
    return Cookies(secret, lambda: time)


@pytest.mark.parametrize(
    ("secret", "source", "time", "asked", "answered"),
    [
        (SECRET, SOURCE, 1559731985, "2464c4abcf10c957", LEARNT),
        (SECRET, SOURCE, 1559734385, LEARNT, "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"),
        (
            SECRET,
            "203.0.113.203",
            1559734700,
            "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5",
            "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e",
        ),
        (
            SECRET6,  # the cookie is of the secret before
            SOURCE6,
            1559741961,
            "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
            "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
        ),
    ],
)
@pytest.mark.rule("DNS5")
def test_cookies_are_those_of_the_rfc(secret, source, time, asked, answered):
    assert at(time, secret).option(bytes.fromhex(asked), source) == bytes.fromhex("000a0018" + answered)


@pytest.mark.rule("DNS5")
def test_a_cookie_is_good_for_its_address_client_secret_and_hour():
    cookie = bytes.fromhex(LEARNT)
    made_at = 0x5CF79F11
    assert at(made_at).is_ours(cookie, SOURCE)
    assert at(made_at + 3600).is_ours(cookie, SOURCE)
    assert at(made_at - 300).is_ours(cookie, SOURCE)
    assert not at(made_at + 3601).is_ours(cookie, SOURCE)
    assert not at(made_at - 301).is_ours(cookie, SOURCE)
    assert not at(made_at).is_ours(cookie, "198.51.100.101")
    assert not at(made_at, SECRET6).is_ours(cookie, SOURCE)
    assert not at(made_at).is_ours(b"x" + cookie[1:], SOURCE)
    assert not at(made_at).is_ours(cookie[:-1] + b"x", SOURCE)
    assert not at(made_at).is_ours(cookie[:8], SOURCE)
    assert not at(made_at).is_ours(cookie[:8] + b"\x02" + cookie[9:], SOURCE)


def test_a_young_cookie_comes_back_and_an_old_one_anew():
    cookie = bytes.fromhex(LEARNT)
    made_at = 0x5CF79F11
    assert at(made_at + 1800).option(cookie, SOURCE)[4:] == cookie
    assert at(made_at + 1801).option(cookie, SOURCE)[4:] != cookie


def test_siphash_is_its_authors():
    key = bytes(range(16))
    expected = ["310e0edd47db6f72", "fd67dc93c539f874", "5a4fa9d909806c0d"]
    assert [siphash24(key, bytes(range(size))).hex() for size in range(3)] == expected
    assert siphash24(key, bytes(range(15))).hex() == "e545be4961ca29a1"

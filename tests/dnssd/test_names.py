"""Zone texts, and instance names to and fro."""

import dns.name
import pytest

from tests.dnssd.goldenzone import ALICE
from wgdisco.dnssd.names import ZoneNames

LABEL = "yutrled535igkl7bdlerl6m4vjxsxm3uqqpl4nmsn27mt56ad4ha===="


@pytest.mark.parametrize("text", ["example.com", "example.com.", "EXAMPLE.Com."])
def test_zone_text_is_case_folded_and_made_absolute(text):
    assert ZoneNames.from_text(text).to_text() == "example.com."


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        ".a.com",
        "a b.com",
        "-a.com",
        "a-.com",
        "bücher.example",
        "a\\.b",
        "x" * 64,
        ".".join(["x" * 40] * 3),
    ],
)
def test_what_is_no_zone_is_refused_with_the_text_in_the_message(text):
    with pytest.raises(ValueError, match="zone") as caught:
        ZoneNames.from_text(text)
    assert repr(text) in str(caught.value)


def test_the_longest_zone_leaves_room_for_every_instance_name():
    names = ZoneNames.from_text(".".join(["x" * 58, "y" * 58]))
    assert names.key_of(names.instance(ALICE)) == ALICE


def test_instance_name_is_lower_case_with_padding():
    names = ZoneNames.from_text("example.com")
    assert names.instance(ALICE).to_text() == f"{LABEL}._wireguard._udp.example.com."


@pytest.mark.parametrize("label", [LABEL, LABEL.upper()])
def test_key_of_takes_any_case(label):
    names = ZoneNames.from_text("example.com")
    assert names.key_of(dns.name.from_text(f"{label}._WireGuard._UDP.Example.com.")) == ALICE


@pytest.mark.parametrize(
    "text",
    [
        f"{LABEL.rstrip('=')}._wireguard._udp.example.com.",
        f"{LABEL}._wireguard._tcp.example.com.",
        f"{LABEL}._wireguard._udp.example.org.",
        f"x.{LABEL}._wireguard._udp.example.com.",
        f"{LABEL}.example.com.",
        "_wireguard._udp.example.com.",
        "\\255\\255._wireguard._udp.example.com.",
    ],
)
def test_other_names_have_no_key(text):
    assert ZoneNames.from_text("example.com").key_of(dns.name.from_text(text)) is None


def test_wgsd_looks_at_the_length_alone():
    names = ZoneNames.from_text("example.com")
    assert names.key_by_length(dns.name.from_text(f"{LABEL}.abcdefghij.klmn.example.com.")) == ALICE
    assert names.key_by_length(dns.name.from_text(f"{LABEL}.abcdefghij.klm.example.com.")) is None

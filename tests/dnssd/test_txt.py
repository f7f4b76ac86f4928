"""RFC 6763 section 6."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgdisco.dnssd.txt import pack_pairs, parse_strings

KEYS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="="), min_size=1, max_size=9)


def test_pairs_keep_their_order():
    pairs = (("txtvers", b"1"), ("pub", b"abc="), ("flag", None), ("allowed", b""))
    strings = pack_pairs(pairs)
    assert strings == (b"txtvers=1", b"pub=abc=", b"flag", b"allowed=")
    assert parse_strings(strings) == pairs


def test_no_pairs_are_one_empty_string():
    assert pack_pairs(()) == (b"",)
    assert parse_strings((b"",)) == ()


def test_the_first_of_a_repeated_key_counts_whatever_its_case():
    assert parse_strings((b"Pub=1", b"pub=2", b"PUB")) == (("pub", b"1"),)


@pytest.mark.parametrize("string", [b"", b"=x", b"\xffkey=1", b"a\tb=1"])
def test_strings_without_a_proper_key_are_skipped(string):
    assert parse_strings((string, b"k=v")) == (("k", b"v"),)


@pytest.mark.parametrize(("key", "value"), [("", b""), ("a=b", b""), ("ä", b""), ("k", b"x" * 254), ("k" * 256, None)])
def test_what_cannot_be_a_string_is_refused(key, value):
    with pytest.raises(ValueError, match="TXT"):
        pack_pairs([(key, value)])


def test_a_string_of_exactly_255_bytes_is_allowed():
    assert len(pack_pairs([("k", b"x" * 253)])[0]) == 255


@given(st.lists(st.tuples(KEYS.map(str.lower), st.none() | st.binary(max_size=200)), unique_by=lambda pair: pair[0]))
def test_any_pairs_survive_packing(pairs):
    assert parse_strings(pack_pairs(pairs)) == tuple(pairs)


@given(st.lists(st.binary(max_size=300)))
def test_parsing_never_raises(strings):
    keys = [key for key, _ in parse_strings(strings)]
    assert len(keys) == len(set(keys))

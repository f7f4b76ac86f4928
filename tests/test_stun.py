"""The codec against the RFCs' own vectors, against aioice, and against anything at all."""

import hashlib
import hmac
from ipaddress import IPv4Address, IPv6Address

import pytest
from aioice import stun as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from wgdisco.endpoint import Endpoint
from wgdisco.stun import Change, Integrity, Kind, Message

TRANSACTION = bytes(range(12))
PASSWORD = "VOkJxbRl1RmTxUk/WvJxBt"
EXTENDED = settings(derandomize=True, database=None, deadline=None, max_examples=300)

# RFC 5769 sections 2.1 to 2.3
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008"
    "932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
RESPONSE4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a147"
    "0113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
# RFC 8489 appendix B.1 with erratum 6268
LONG_TERM = bytes.fromhex(
    "000100902112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704"
    "001500296f624d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c39465354767936347341000000"
    "0014000b6578616d706c652e6f726700001d000400020000001c0020"
    "b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65"
)

endpoints = st.builds(
    Endpoint,
    st.one_of(
        st.integers(0, 2**32 - 1).map(IPv4Address),
        st.integers(0, 2**128 - 1).map(IPv6Address).filter(lambda address: address.ipv4_mapped is None),
    ),
    st.integers(1, 65535),
)
ids = st.binary(min_size=12, max_size=12)
passwords = st.text(min_size=1, max_size=40)
usernames = st.none() | st.text(max_size=40)
requests = st.builds(
    Message,
    st.just(Kind.REQUEST),
    ids,
    username=usernames,
    change=st.none() | st.builds(Change, st.booleans(), st.booleans()),
)
answers = st.builds(
    Message,
    st.just(Kind.SUCCESS),
    ids,
    mapped=st.none() | endpoints,
    origin=st.none() | endpoints,
    other=st.none() | endpoints,
)
refusals = st.builds(
    Message,
    st.just(Kind.ERROR),
    ids,
    error=st.integers(300, 699),
    unknown=st.lists(st.integers(0, 0xFFFF), max_size=5).map(tuple),
)
messages = st.one_of(requests, answers, refusals)


def test_rfc_5769_request():
    message = Message.parse(REQUEST)
    assert (message.kind, message.username) == (Kind.REQUEST, "evtj:h6vY")
    assert message.unknown == (0x0024,)  # ICE's PRIORITY, which a server that is no ICE agent may not overlook
    assert message.integrity is Integrity.SHA1
    assert message.verify(PASSWORD)
    assert not message.verify(PASSWORD[:-1])


@pytest.mark.parametrize(
    ("data", "mapped"),
    [(RESPONSE4, "192.0.2.1:32853"), (RESPONSE6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853")],
)
def test_rfc_5769_responses(data, mapped):
    message = Message.parse(data)
    assert message.kind is Kind.SUCCESS
    assert message.mapped == Endpoint.from_text(mapped)
    assert message.verify(PASSWORD)


def test_rfc_8489_sha256():
    message = Message.parse(LONG_TERM)
    assert message.integrity is Integrity.SHA256
    user = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
    assert message.verify_key(hashlib.sha256(f"{user}:example.org:TheMatrIX".encode()).digest())


@pytest.mark.parametrize("data", [REQUEST, RESPONSE4, RESPONSE6])
def test_every_changed_byte_is_noticed(data):
    for at in range(len(data) - 8):  # all that the fingerprint is over
        changed = bytearray(data)
        changed[at] ^= 0x10
        with pytest.raises(ValueError, match=r"."):
            Message.parse(bytes(changed))


def test_a_right_fingerprint_is_no_signature():
    unsigned = Message.parse(Message(Kind.REQUEST, TRANSACTION, username="alice").pack())
    assert unsigned.integrity is None
    assert not unsigned.verify("")


@EXTENDED
@given(messages, passwords, st.sampled_from(Integrity))
def test_what_is_packed_is_parsed(message, password, integrity):
    parsed = Message.parse(message.pack(password, integrity))
    assert parsed == message
    assert parsed.integrity is integrity
    assert parsed.verify(password)
    assert not parsed.verify(password + "x")


@EXTENDED
@given(messages, passwords)
def test_aioice_reads_what_we_write(message, password):
    read = oracle.parse_message(message.pack(password, Integrity.SHA1))
    assert read.transaction_id == message.transaction_id
    assert read.message_class | read.message_method == message.kind.value
    assert read.check_message_integrity(password.encode())
    assert read.attributes.get("USERNAME") == message.username
    for name, endpoint in (
        ("XOR-MAPPED-ADDRESS", message.mapped),
        ("RESPONSE-ORIGIN", message.origin),
        ("OTHER-ADDRESS", message.other),
    ):
        told = None if endpoint is None else (str(endpoint.address), endpoint.port)
        assert read.attributes.get(name) == told
    if message.change is not None:
        assert read.attributes["CHANGE-REQUEST"] == 4 * message.change.address + 2 * message.change.port
    if message.error is not None:
        assert read.attributes["ERROR-CODE"] == (message.error, "")


@EXTENDED
@given(ids, endpoints, endpoints, st.text(max_size=30), st.text(max_size=30), passwords, st.booleans())
def test_we_read_what_aioice_writes(transaction, mapped, plain, username, software, password, hidden):
    attributes = {
        "SOFTWARE": software,
        "MAPPED-ADDRESS": (str(plain.address), plain.port),
        "USERNAME": username,
        "CHANGE-REQUEST": 2,
    }
    if hidden:
        attributes["XOR-MAPPED-ADDRESS"] = (str(mapped.address), mapped.port)
    written = oracle.Message(oracle.Method.BINDING, oracle.Class.RESPONSE, transaction, attributes)
    written.add_message_integrity(password.encode())
    message = Message.parse(bytes(written))
    assert message.verify(password)
    assert (message.username, message.change) == (username, Change(address=False, port=True))
    assert message.mapped == (mapped if hidden else plain)


def test_a_response_port_is_two_bytes_and_padding():
    """RFC 5780 section 7.5; the RFC gives no vector."""
    message = Message(Kind.REQUEST, TRANSACTION, response_port=0xA1B2)
    assert bytes.fromhex("00270004a1b20000") in message.pack()
    assert Message.parse(message.pack()) == message
    unpadded = message.pack().replace(bytes.fromhex("00270004"), bytes.fromhex("00270002"))[:-8]
    unpadded = unpadded[:2] + (len(unpadded) - 20).to_bytes(2, "big") + unpadded[4:]
    assert Message.parse(unpadded).response_port == 0xA1B2
    with pytest.raises(ValueError, match="RESPONSE-PORT"):
        Message.parse(unpadded.replace(bytes.fromhex("00270002"), bytes.fromhex("00270001")))


def test_sha256_counts_where_both_are():
    data = signed_twice()
    message = Message.parse(data)
    assert message.integrity is Integrity.SHA256
    assert message.verify("secret")


def signed_twice() -> bytes:
    """SHA-1 by aioice, then SHA-256 by hand over that, as section 14.6 says."""
    written = oracle.Message(oracle.Method.BINDING, oracle.Class.REQUEST, TRANSACTION, {"USERNAME": "alice"})
    written.add_message_integrity(b"secret")
    del written.attributes["FINGERPRINT"]
    data = bytes(written)
    longer = data[:2] + (len(data) - 20 + 36).to_bytes(2, "big") + data[4:]
    return longer + b"\x00\x1c\x00\x20" + hmac.digest(b"secret", longer, "sha256")


def test_nobody_vouches_for_what_follows_the_signature():
    written = oracle.Message(oracle.Method.BINDING, oracle.Class.REQUEST, TRANSACTION, {"USERNAME": "alice"})
    written.add_message_integrity(b"secret")
    del written.attributes["FINGERPRINT"]
    written.attributes["CHANGE-REQUEST"] = 6
    assert Message.parse(bytes(written)).change is None


shapes = st.one_of(
    st.binary(max_size=120),
    st.tuples(
        st.sampled_from([b"\x00\x01", b"\x01\x01", b"\x01\x11", b"\x00\x11", b"\x00\x03"]),
        ids,
        st.lists(
            st.tuples(st.sampled_from([1, 3, 6, 8, 9, 10, 0x1C, 0x20, 0x802B, 0x8028, 0x7777]), st.binary(max_size=40))
        ),
        st.integers(-4, 4),
    ).map(lambda parts: shaped(*parts)),
)


def shaped(kind, transaction, attributes, off) -> bytes:
    """A header and attributes; the sizes in them right, or nearly so."""
    body = b""
    for type_, value in attributes:
        size = max(len(value) + (off if off % 2 else 0), 0)
        body += type_.to_bytes(2, "big") + size.to_bytes(2, "big") + value + bytes(-len(value) % 4)
    size = max(len(body) + (0 if off % 2 else off), 0)
    return kind + size.to_bytes(2, "big") + b"\x21\x12\xa4\x42" + transaction + body


@settings(EXTENDED, max_examples=2000)
@given(shapes)
def test_any_bytes_are_a_message_or_a_value_error(data):
    try:
        message = Message.parse(data)
    except ValueError:
        return
    assert message.verify("secret") in (True, False)
    assert Message.parse(message.pack()).kind is message.kind


def test_passwords_and_signatures_do_not_show():
    assert "covered" not in repr(Message.parse(RESPONSE4))

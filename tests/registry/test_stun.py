"""Who is answered, with what, from which socket; and who is not."""

import random
from ipaddress import ip_address

import pytest
from aioice import stun as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PrivateKey, PublicKey
from wgdisco.registry.stun import (
    ADDRESS_BURST,
    BURST,
    INTERVAL,
    LIFETIME,
    PROVEN_MAX,
    Drop,
    Site,
    StunResponder,
    choose_addresses,
)
from wgdisco.stun import Change, Integrity, Kind, Message

KEY = PrivateKey(bytes(range(32)))
ALICE, BOB = PublicKey(bytes([1]) * 32), PublicKey(bytes([2]) * 32)
A, B, SIX = ip_address("198.51.100.10"), ip_address("198.51.100.11"), ip_address("2001:db8::10")
SITES = tuple(Site(address, (3478, 3479), 50000 + number) for number, address in enumerate((A, B, SIX)))
ASKED = Endpoint(A, 3478)
SOURCE = Endpoint.from_text("192.0.2.10:41424")
NOW = 1000.0
TRANSACTION = bytes(12)


class Clock:
    """Unix time, moved by hand."""

    def __init__(self):
        self.unix = 1_700_000_000.0

    def __call__(self):
        return self.unix


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def responder(clock):
    responder = StunResponder(KEY, clock)
    responder.sites = SITES
    return responder


def request(credential, change=None, integrity=Integrity.SHA256):
    message = Message(Kind.REQUEST, TRANSACTION, username=credential.username, change=change)
    return message.pack(credential.password, integrity)


@pytest.mark.parametrize("integrity", Integrity)
def test_a_member_is_told_where_it_was_seen(responder, integrity):
    credential = responder.issue(ALICE)
    reply = responder.answer(request(credential, integrity=integrity), ASKED, SOURCE, NOW)
    assert (responder.answers, responder.drops.total()) == (1, 0)
    assert (reply.origin, reply.destination) == (ASKED, SOURCE)
    message = Message.parse(reply.data)
    assert message.verify(credential.password)
    assert message.integrity is integrity
    expected = Message(Kind.SUCCESS, TRANSACTION, mapped=SOURCE, origin=ASKED, other=Endpoint(B, 3479))
    assert message == expected


def test_another_implementation_understands_and_is_understood(responder):
    credential = responder.issue(ALICE)
    asking = oracle.Message(oracle.Method.BINDING, oracle.Class.REQUEST, TRANSACTION, {"USERNAME": credential.username})
    asking.add_message_integrity(credential.password.encode())
    reply = responder.answer(bytes(asking), ASKED, SOURCE, NOW)
    read = oracle.parse_message(reply.data)
    assert read.check_message_integrity(credential.password.encode())
    assert read.attributes["XOR-MAPPED-ADDRESS"] == ("192.0.2.10", 41424)


@pytest.mark.parametrize(
    ("asked", "change", "origin"),
    [
        ((A, 3478), (False, True), (A, 50000)),
        ((A, 3479), (False, True), (A, 50000)),
        ((A, 3478), (True, False), (B, 3478)),
        ((B, 3479), (True, True), (A, 50000)),
        ((A, 3478), (False, False), (A, 3478)),
        ((SIX, 3478), (False, True), (SIX, 50002)),
    ],
)
def test_where_answers_come_from(responder, asked, change, origin):
    """The third port of an address is never one that is asked."""
    reply = responder.answer(request(responder.issue(ALICE), Change(*change)), Endpoint(*asked), SOURCE, NOW)
    assert reply.origin == Endpoint(*origin)
    assert Message.parse(reply.data).origin == reply.origin


def test_an_answer_goes_to_another_port_of_the_same_address(responder):
    credential = responder.issue(ALICE)
    for port, change in ((40000, None), (1024, Change(False, True)), (65535, None)):
        asking = Message(Kind.REQUEST, TRANSACTION, username=credential.username, change=change, response_port=port)
        reply = responder.answer(asking.pack(credential.password), ASKED, SOURCE, NOW)
        assert reply.destination == Endpoint(SOURCE.address, port)
        assert Message.parse(reply.data).mapped == SOURCE
    for port in (0, 53, 1023):
        asking = Message(Kind.REQUEST, TRANSACTION, username=credential.username, response_port=port)
        reply = responder.answer(asking.pack(credential.password), ASKED, SOURCE, NOW)
        assert reply.destination == SOURCE
        message = Message.parse(reply.data)
        assert (message.kind, message.error, message.unknown) == (Kind.ERROR, 420, (0x27,))
    stranger = Message(Kind.REQUEST, TRANSACTION, username=credential.username, response_port=40000)
    assert responder.answer(stranger.pack("guess"), ASKED, SOURCE, NOW) is None


def test_there_is_no_other_address(responder):
    reply = responder.answer(request(responder.issue(ALICE), Change(True, False)), Endpoint(SIX, 3478), SOURCE, NOW)
    message = Message.parse(reply.data)
    assert (message.kind, message.error, message.unknown) == (Kind.ERROR, 420, (3,))
    plain = responder.answer(request(responder.issue(ALICE)), Endpoint(SIX, 3478), SOURCE, NOW)
    assert Message.parse(plain.data).other is None


def test_what_is_not_understood_is_refused(responder):
    credential = responder.issue(ALICE)
    attributes = {"USERNAME": credential.username, "PRIORITY": 1}
    asking = oracle.Message(oracle.Method.BINDING, oracle.Class.REQUEST, TRANSACTION, attributes)
    asking.add_message_integrity(credential.password.encode())
    message = Message.parse(responder.answer(bytes(asking), ASKED, SOURCE, NOW).data)
    assert (message.error, message.unknown) == (420, (0x24,))


def test_strangers_hear_nothing(responder):
    credential = responder.issue(ALICE)
    other = StunResponder(PrivateKey(bytes(32)), lambda: 0.0).issue(ALICE)
    for data, why in (
        (b"", Drop.NOT_STUN),
        (b"\x01\0\0\0" + bytes(144), Drop.NOT_STUN),
        (Message(Kind.REQUEST, TRANSACTION).pack(), Drop.NO_CREDENTIAL),
        (Message(Kind.REQUEST, TRANSACTION).pack(credential.password), Drop.NO_CREDENTIAL),
        (Message(Kind.REQUEST, TRANSACTION, username=credential.username).pack(), Drop.NO_CREDENTIAL),
        (Message(Kind.REQUEST, TRANSACTION, username=credential.username).pack("guess"), Drop.NO_CREDENTIAL),
        (Message(Kind.REQUEST, TRANSACTION, username="zz").pack(""), Drop.NO_CREDENTIAL),
        (request(other), Drop.NO_CREDENTIAL),
        (
            Message(Kind.SUCCESS, TRANSACTION, username=credential.username).pack(credential.password),
            Drop.NOT_A_REQUEST,
        ),
    ):
        responder.drops.clear()
        assert responder.answer(data, ASKED, SOURCE, NOW) is None
        assert responder.drops == {why: 1}
    assert responder.proven(ALICE, NOW) == set()


def test_the_third_port_answers_nobody(responder):
    assert responder.answer(request(responder.issue(ALICE)), Endpoint(A, 50000), SOURCE, NOW) is None
    assert responder.drops == {Drop.THIRD_PORT: 1}


def test_a_port_that_could_not_be_had(responder):
    responder.sites = (Site(A, (3478,), None), Site(B, (3479,), 50001))
    credential = responder.issue(ALICE)
    assert credential.endpoints == ["198.51.100.10:3478", "198.51.100.11:3479"]
    for change, origin in (((False, True), None), ((True, False), None), ((True, True), Endpoint(B, 50001))):
        reply = responder.answer(request(credential, Change(*change)), ASKED, SOURCE, NOW)
        message = Message.parse(reply.data)
        assert message.error == (420 if origin is None else None)
        assert reply.origin == (origin or ASKED)


PRIVATE = ip_address("10.0.0.5")


@pytest.mark.parametrize(
    ("named", "local", "source", "chosen"),
    [
        ([A], [PRIVATE, A], A, {A: A}),
        ([B], [A, B], A, {B: B, A: A}),
        ([], [A], A, {A: A}),
        ([A], [PRIVATE], PRIVATE, {A: PRIVATE}),
        ([A, B], [PRIVATE], PRIVATE, {A: PRIVATE}),
        ([A], [PRIVATE], None, {}),
        ([], [PRIVATE], PRIVATE, {}),
        ([], [ip_address(f"198.51.100.{n}") for n in range(1, 9)], None, 2),
    ],
)
def test_which_addresses_are_served(named, local, source, chosen):
    found = choose_addresses(named, local, source)
    assert (len(found) if isinstance(chosen, int) else found) == chosen
    assert chosen == 2 or list(found) == list(chosen)


def test_nobody_can_make_a_credential_last_longer(responder, clock):
    credential = responder.issue(ALICE)
    end, _, identity = credential.username.partition(".")
    longer = Message(Kind.REQUEST, TRANSACTION, username=f"{int(end, 16) + 1:x}.{identity}").pack(credential.password)
    assert responder.answer(longer, ASKED, SOURCE, NOW) is None
    clock.unix += LIFETIME - 1
    assert responder.answer(request(credential), ASKED, SOURCE, NOW) is not None
    clock.unix += 1
    assert responder.answer(request(credential), ASKED, SOURCE, NOW) is None
    assert responder.drops[Drop.EXPIRED] == 1


def test_a_credential_survives_a_restart_and_shows_no_key(responder, clock):
    credential = responder.issue(ALICE)
    again = StunResponder(KEY, clock)
    again.sites = SITES
    assert again.answer(request(credential), ASKED, SOURCE, NOW) is not None
    assert again.issue(ALICE) == credential != again.issue(BOB)
    assert credential.password not in repr(credential)
    for text in (ALICE.to_text(), ALICE.to_label(), ALICE.raw.hex()[:16]):
        assert text not in credential.username


def test_a_member_is_answered_so_often_and_no_more(responder):
    """Also whoever replays what a member sent: not from many addresses, and not towards one."""
    alice = request(responder.issue(ALICE))
    sources = [Endpoint(ip_address(f"192.0.2.{number}"), 5000) for number in range(100)]
    assert sum(responder.answer(alice, ASKED, source, NOW) is not None for source in sources) == BURST
    assert responder.answer(alice, ASKED, sources[-1], NOW + INTERVAL) is not None
    assert responder.answer(alice, ASKED, sources[-1], NOW + INTERVAL) is None
    assert responder.answer(request(responder.issue(BOB)), ASKED, sources[-1], NOW) is not None
    assert responder.drops[Drop.RATE] == 100 - BURST + 1


def test_one_address_is_sent_so_much_and_no_more(responder):
    members = [PublicKey(number.to_bytes(32, "big")) for number in range(ADDRESS_BURST + 5)]
    answered = [responder.answer(request(responder.issue(one)), ASKED, SOURCE, NOW) for one in members]
    assert sum(reply is not None for reply in answered) == ADDRESS_BURST


@pytest.mark.parametrize("address", ["192.0.2.10", "2001:db8:1::5"])
def test_an_answer_is_hardly_larger_than_its_question(responder, address):
    asked = Endpoint(A if "." in address else SIX, 3478)
    data = request(responder.issue(ALICE))
    assert len(responder.answer(data, asked, Endpoint(ip_address(address), 5000), NOW).data) <= 1.3 * len(data)


def test_addresses_a_member_asked_from_are_remembered_for_a_while(responder, clock):
    def ask(member, address, now):
        assert responder.answer(request(responder.issue(member)), ASKED, Endpoint(ip_address(address), 5000), now)

    ask(ALICE, "192.0.2.10", NOW)
    ask(BOB, "203.0.113.10", NOW)
    assert responder.proven(ALICE, NOW) == {ip_address("192.0.2.10")}
    assert responder.proven(BOB, NOW) == {ip_address("203.0.113.10")}
    assert responder.proven(ALICE, NOW + LIFETIME) == set()
    for number in range(PROVEN_MAX):
        ask(ALICE, f"192.0.2.{number + 20}", NOW + 100 + number)
    assert len(responder.proven(ALICE, NOW + 200)) == PROVEN_MAX
    assert ip_address("192.0.2.10") not in responder.proven(ALICE, NOW + 200)


def test_memory_is_bounded(monkeypatch, responder):
    monkeypatch.setattr("wgdisco.registry.stun.PROVEN_MEMBERS_MAX", 10)
    monkeypatch.setattr("wgdisco.registry.stun.RATES_MAX", 10)
    for number in range(50):
        member = PublicKey(bytes([number]) * 32)
        responder.answer(request(responder.issue(member)), ASKED, Endpoint(ip_address(0xC0000200 + number), 5000), NOW)
    assert len(responder._proven) == 10
    assert len(responder._members._full_at) == len(responder._addresses._full_at) == 10


@settings(derandomize=True, database=None, deadline=None, max_examples=500)
@given(st.integers(0, 200), st.integers(1, 255), st.binary(max_size=40), st.booleans())
def test_a_damaged_request_is_not_answered(at, mask, tail, cut):
    responder = StunResponder(KEY, Clock())
    responder.sites = SITES
    data = bytearray(request(responder.issue(ALICE), Change(False, True))[:-8])
    data[3] -= 8  # without its fingerprint
    assert responder.answer(bytes(data), ASKED, SOURCE, NOW) is not None
    data[at % len(data)] ^= mask
    damaged = bytes(data[: random.Random(at).randrange(len(data))] if cut else data) + tail * cut
    assert responder.answer(damaged, ASKED, SOURCE, NOW) is None

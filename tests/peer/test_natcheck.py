"""What is concluded from what was seen, and that nothing anybody sends upsets a check. Whole checks: tests/sim."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wgdisco.api import StunRecord
from wgdisco.endpoint import Endpoint
from wgdisco.nat import MappingBehavior, NatProfile
from wgdisco.peer.natcheck import MAX_DATAGRAMS, NatCheck, NatReport, _block, _delta, _mapping, merged
from wgdisco.stun import Kind, Message

EIM, ADM, APDM = MappingBehavior
RECORD = StunRecord([f"198.51.100.{host}:{port}" for host in (10, 11) for port in (3478, 3479)], "u", "p", 60)


@pytest.mark.parametrize(
    ("seen", "mapping"),
    [
        ("", None),
        ("A1=5", None),
        ("A1=5 A2=5", None),
        ("A1=5 A2=6", APDM),
        ("A1=5 B1=5", EIM),
        ("A1=5 B1=6", None),  # the address, or the port: it may be either
        ("A1=5 A2=5 B1=6", ADM),
        ("A1=5 A2=5 B1=6 B2=6", ADM),
        ("A1=5 A2=5 B1=5 B2=6", APDM),
        ("A1=5 A2=6 B1=5 B2=6", APDM),
    ],
)
def test_mapping(seen, mapping):
    """Server address and port, and the port seen there."""
    pairs = [
        (Endpoint.from_text(f"198.51.100.1{'AB'.index(one[0])}:{one[1]}"), Endpoint.from_text(f"192.0.2.1:{one[3:]}"))
        for one in seen.split()
    ]
    assert _mapping(pairs) is mapping


def test_two_outside_addresses_are_two_mappings():
    """A carrier's NAT may draw the address too (RFC 4787 section 4.1, address pooling)."""
    server, other = map(Endpoint.from_text, RECORD.endpoints[:2])
    assert _mapping([(server, Endpoint.from_text("192.0.2.1:5")), (other, Endpoint.from_text("192.0.2.2:5"))]) is APDM


@pytest.mark.parametrize(
    ("ports", "delta"),
    [
        ([], None),
        ([5000], None),
        ([5000, 5000], None),
        ([5000, 5001], 1),
        ([5000, 5002], 2),
        ([5000, 5003], None),  # one step alone may be chance
        ([5000, 5001, 5002, 5003], 1),
        ([5000, 5001, 5004, 5006], 1),  # somebody else opened some in between
        ([5003, 5002, 5001, 5000], -1),
        ([5000, 5002, 5004, 5006], 2),
        ([5000, 5001, 5000], None),
        ([5000, 5001, 5034], None),
    ],
)
def test_delta(ports, delta):
    assert _delta(ports) == delta


@pytest.mark.parametrize(
    ("ports", "block"),
    [
        ([20100, 20900], None),
        ([20100, 20900, 20050, 20999], (20050, 20999)),
        ([20100, 20900, 20050, 21200], None),
        ([5000, 5000, 5000, 5000], None),
    ],
)
def test_block(ports, block):
    assert _block(ports) == block


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(st.data())
def test_nothing_that_is_sent_upsets_a_check(data):
    """Garbage, and answers with the right signature that say anything, from anywhere, at any time."""
    check = NatCheck(RECORD, 4, 51820, random.Random(1).randbytes)
    check.start(0.0)
    probes = check.datagrams_to_send()
    ids = st.sampled_from([Message.parse(probe.data).transaction_id for probe in probes])
    endpoints = st.builds(Endpoint, st.ip_addresses(), st.integers(1, 65535))
    anywhere = endpoints | st.sampled_from([probe.destination for probe in probes])
    answers = st.builds(
        Message, st.sampled_from(Kind), ids, mapped=st.none() | endpoints, error=st.none() | st.just(420)
    )
    sent, reports, now = len(probes), 0, 0.0
    for _ in range(data.draw(st.integers(0, 20))):
        now += data.draw(st.floats(0, 0.2))
        datagram = data.draw(st.binary(max_size=60) | answers.map(lambda answer: answer.pack("p")))
        check.receive_datagram(datagram, data.draw(anywhere), now)
        check.handle_timer(now)
        sent += len(check.datagrams_to_send())
        reports += len(check.events())
    check.handle_timer(now + 1)
    check.handle_timer(now + 2)
    assert sent + len(check.datagrams_to_send()) <= MAX_DATAGRAMS
    assert reports + len(check.events()) == 1
    assert check.get_timer() is None


def test_both_ip_versions_make_one_report():
    """What was seen counts before what was not, and IPv4 before IPv6."""
    four, six = Endpoint.from_text("192.0.2.1:5"), Endpoint.from_text("[2001:db8::1]:6")
    eim, nothing = NatProfile(EIM, None), NatProfile(None, None)
    by4 = NatReport(eim, (four,), preserved=True, rtt=0.1)
    by6 = NatReport(NatProfile(APDM, None), (six,), preserved=False, rtt=0.2)
    assert merged({}) is None
    assert merged({4: by4}) == by4
    assert merged({6: by6, 4: by4}) == NatReport(eim, (four, six), preserved=True, rtt=0.1)
    assert merged({4: NatReport(nothing), 6: by6}) == by6
    assert merged({4: by4, 6: NatReport(nothing)}) == by4
    assert merged({4: NatReport(nothing), 6: NatReport(nothing)}) == NatReport(nothing)

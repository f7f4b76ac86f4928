"""Packing, at the limits."""

import dns.message
import dns.name
import pytest
from dns.rdatatype import PTR

from wgdisco.dnssd.records import HinfoData, PtrData, Record, SoaData, TxtData
from wgdisco.dnssd.wire import (
    QR,
    CannotPackError,
    Opt,
    Question,
    Reply,
    answer_count,
    is_truncated,
    pack_messages,
    pack_reply,
)

OWNER = dns.name.from_text("owner.example.com.")
QUESTION = Question(OWNER, PTR, 1)


def reply_of(*targets: str, opt: Opt | None = None) -> Reply:
    records = tuple(Record(OWNER, 5, PtrData(dns.name.from_text(target))) for target in targets)
    return Reply(id=1, flags=QR, rcode=0, question=QUESTION, answer=records, opt=opt)


def targets_of(data: bytes) -> list[str]:
    message = dns.message.from_wire(data, one_rr_per_rrset=True)
    return [rrset[0].target.to_text() for rrset in message.answer]


def test_names_beyond_the_reach_of_a_pointer_are_spelled_out():
    # 63 + 12 bytes a record: the last ones lie beyond 16 KiB
    targets = [f"{number:060}.example.com." for number in range(300)]
    repeated = [*targets, *targets[-3:], *targets[:3]]
    assert targets_of(pack_reply(reply_of(*repeated), 65535)) == repeated


def test_names_share_only_what_agrees_in_case():
    data = pack_reply(reply_of("x.EXAMPLE.com.", "y.EXAMPLE.com.", "z.example.com."), 512)
    assert targets_of(data) == ["x.EXAMPLE.com.", "y.EXAMPLE.com.", "z.example.com."]
    assert data.count(b"EXAMPLE") == 1
    assert data.count(b"example") == 1


def test_nothing_follows_what_was_left_out():
    reply = reply_of("a.example.com.", "b" * 60 + ".example.com.", "c.example.com.")
    whole = pack_reply(reply, 512)
    assert not is_truncated(whole)
    assert pack_reply(reply, len(whole)) == whole
    cut = pack_reply(reply, len(whole) - 40)
    assert is_truncated(cut)
    assert targets_of(cut) == ["a.example.com."]
    assert answer_count(cut) == 1


@pytest.mark.parametrize("size", range(60, 160))
def test_opt_always_has_its_room(size):
    data = pack_reply(reply_of("a.example.com.", "b.example.com.", "c.example.com.", opt=Opt(1232)), size)
    assert len(data) <= size
    assert dns.message.from_wire(data).payload == 1232


def test_every_kind_of_data_is_what_dnspython_reads():
    names = (dns.name.from_text("ns1.example.com."), dns.name.from_text("hostmaster.example.com."))
    reply = Reply(
        id=1,
        flags=QR,
        rcode=0,
        question=QUESTION,
        answer=(Record(OWNER, 1, TxtData((b"", b"a=b"))), Record(OWNER, 2, HinfoData())),
        authority=(Record(OWNER, 2**31 - 1, SoaData(*names, 2**32 - 1, 1, 2, 3, 4)),),
    )
    message = dns.message.from_wire(pack_reply(reply, 512))
    assert [rrset.to_text() for rrset in (*message.answer, *message.authority)] == [
        'owner.example.com. 1 IN TXT "" "a=b"',
        'owner.example.com. 2 IN HINFO "RFC8482" ""',
        "owner.example.com. 2147483647 IN SOA ns1.example.com. hostmaster.example.com. 4294967295 1 2 3 4",
    ]


def test_a_string_above_255_bytes_fails_only_where_there_is_room():
    reply = Reply(id=1, flags=QR, rcode=0, question=QUESTION, answer=(Record(OWNER, 0, TxtData((bytes(600),))),))
    assert is_truncated(pack_reply(reply, 512))
    with pytest.raises(CannotPackError):
        pack_reply(reply, 1232)


def test_an_answer_goes_over_as_many_messages_as_it_takes_and_is_not_made_before():
    owner = dns.name.from_text("example.com.")
    made = []

    def records():
        for number in range(100):
            made.append(number)
            yield Record(owner, 5, PtrData(dns.name.from_text(f"{number}.example.com.")))

    reply = reply_of(opt=Opt(1232))
    messages, seen = pack_messages(reply, records(), 512), 0
    for message in messages:
        assert len(message) <= 512
        assert not is_truncated(message)
        assert dns.message.from_wire(message).edns == 0
        seen += answer_count(message)
        assert len(made) <= seen + 1
    assert seen == 100
    assert len(list(pack_messages(reply, (), 512))) == 1
    with pytest.raises(CannotPackError):
        list(pack_messages(reply, [Record(owner, 5, TxtData((bytes(255), bytes(255))))], 512))

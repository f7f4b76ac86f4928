"""Transfers from snapshots: what a secondary gets, read by dnspython."""

from dataclasses import replace

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.tsigkeyring
import pytest

from tests.dnssd.goldenzone import ALICE, BOB, golden_zone, peer
from wgdisco.dnssd import transfer
from wgdisco.dnssd.responder import Transport
from wgdisco.dnssd.secondaries import TsigKey
from wgdisco.dnssd.transfer import Journal, Primary, Request, is_newer
from wgdisco.dnssd.tsig import Signer, verify
from wgdisco.keys import PublicKey

ZONE = "example.com."
NOW = 1_700_000_000
KEY = TsigKey.from_text('key "k." { algorithm hmac-sha512; secret "c2l4dGVlbiBieXRlcyBhcmUgZW5vdWdoIQ=="; };')


def moved(zone, port, serial):
    return zone.with_instance(peer(ALICE, f"203.0.113.1:{port}", "10.0.0.1/32"), serial)


def ixfr(serial):
    query = dns.message.make_query(ZONE, "IXFR")
    soa = f"{ZONE} 0 IN SOA . . {serial} 0 0 0 0"
    name, ttl, _, _, *data = soa.split()
    query.authority.append(dns.rrset.from_text(name, int(ttl), "IN", "SOA", " ".join(data)))
    return query


def ask(primary, query, transport=Transport.TCP):
    """The answers, one by one in their order; the rcode for other than one message of NOERROR."""
    found = []
    for reply in primary.respond(query.to_wire(), transport, NOW):
        message = dns.message.from_wire(reply, one_rr_per_rrset=True, xfr=True)
        assert message.id == query.id
        if message.rcode() != dns.rcode.NOERROR:
            return message.rcode()
        assert message.flags & dns.flags.AA
        found += [(str(rrset.name), rrset.rdtype, rrset[0]) for rrset in message.answer]
    return found


def serials(answer):
    return [rdata.serial for _, rdtype, rdata in answer if rdtype == dns.rdatatype.SOA]


@pytest.mark.parametrize(
    ("serial", "than", "newer"),
    [(1, 0, True), (0, 1, False), (5, 5, False), (0, 0xFFFFFFFF, True), (0xFFFFFFFF, 0, False), (0x80000000, 0, False)],
)
@pytest.mark.rule("DNS16")
def test_serials_wrap(serial, than, newer):
    assert is_newer(serial, than) is newer


def published(*zones, key=None):
    primary = Primary(key=key)
    for zone in zones:
        primary.journal.add(zone)
    return primary


class TestIncrement:
    @pytest.mark.rule("DNS12")
    def test_holds_what_went_and_what_came(self):
        zone = golden_zone()
        primary = published(zone, moved(zone, 8000, 8), moved(zone, 8001, 9))
        answer = ask(primary, ixfr(7))
        assert serials(answer) == [9, 7, 9, 9]
        changes = [(rdtype, rdata.port) for _, rdtype, rdata in answer if rdtype != dns.rdatatype.SOA]
        assert changes == [(dns.rdatatype.SRV, 7777), (dns.rdatatype.SRV, 8001)]

    @pytest.mark.rule("DNS12")
    def test_starts_where_the_secondary_is(self):
        zone = golden_zone()
        primary = published(zone, moved(zone, 8000, 8), moved(zone, 8001, 9))
        answer = ask(primary, ixfr(8))
        assert serials(answer) == [9, 8, 9, 9]

    def test_what_came_back_to_what_it_was_is_no_change(self):
        zone = golden_zone()
        primary = published(zone, moved(zone, 8000, 8), moved(zone, 7777, 9))
        assert serials(ask(primary, ixfr(7))) == [9, 7, 9, 9]
        assert len(ask(primary, ixfr(7))) == 4

    @pytest.mark.rule("DNS12")
    def test_who_came_and_went(self):
        zone = golden_zone()
        primary = published(zone, zone.without_instance(BOB, 8))
        kinds = [rdtype.name for _, rdtype, _ in ask(primary, ixfr(7))]
        assert kinds == ["SOA", "SOA", "PTR", "SRV", "TXT", "AAAA", "SOA", "SOA"]

    @pytest.mark.parametrize("serial", [9, 10, 0x7FFFFFFF])
    @pytest.mark.rule("DNS13")
    def test_is_the_soa_alone_for_who_is_not_behind(self, serial):
        zone = golden_zone()
        assert serials(ask(published(zone, moved(zone, 8000, 9)), ixfr(serial))) == [9]

    @pytest.mark.rule("DNS13")
    def test_is_the_soa_alone_by_udp(self):
        zone = golden_zone()
        assert serials(ask(published(zone, moved(zone, 8000, 9)), ixfr(7), Transport.UDP)) == [9]

    @pytest.mark.rule("DNS14")
    def test_is_everything_for_who_was_away_too_long(self, monkeypatch):
        monkeypatch.setattr(transfer, "JOURNAL_MAX", 2)
        zone = golden_zone()
        primary = published(zone, *(moved(zone, 8000 + serial, serial) for serial in range(8, 12)))
        assert serials(ask(primary, ixfr(9))) == [11, 9, 11, 11]
        everything = ask(primary, ixfr(8))
        assert serials(everything) == [11, 11]
        assert everything == ask(primary, dns.message.make_query(ZONE, "AXFR"))
        assert primary.counts == {Request.IXFR: 1, Request.AXFR: 2}

    @pytest.mark.rule("DNS16")
    def test_goes_over_the_end_of_numbers(self):
        zone = replace(golden_zone(), serial=0xFFFFFFFF)
        assert serials(ask(published(zone, moved(zone, 8000, 0)), ixfr(0xFFFFFFFF))) == [0, 0xFFFFFFFF, 0, 0]

    @pytest.mark.rule("DNS15")
    def test_without_the_soa_is_a_format_error(self):
        assert ask(published(golden_zone()), dns.message.make_query(ZONE, "IXFR")) == dns.rcode.FORMERR


class TestJournal:
    def test_a_snapshot_with_the_same_records_keeps_the_serial(self):
        journal, zone = Journal(), golden_zone()
        assert journal.add(zone)
        assert not journal.add(replace(zone, serial=8))
        assert journal.zone.serial == 7
        assert journal.add(moved(zone, 8000, 9))
        assert journal.since(7) is not None

    def test_a_serial_that_goes_back_forgets_what_was(self):
        journal, zone = Journal(), golden_zone()
        journal.add(zone)
        journal.add(moved(zone, 8000, 8))
        assert journal.add(moved(zone, 8001, 3))
        assert journal.since(7) is None

    def test_many_instances_at_once_are_bounded_too(self, monkeypatch):
        monkeypatch.setattr(transfer, "JOURNAL_PARTS_MAX", 10)
        journal, zone = Journal(), golden_zone()
        journal.add(zone)
        many = {one: peer(one, "203.0.113.1:1") for one in (PublicKey(bytes(31) + bytes([n])) for n in range(20))}
        journal.add(replace(zone, serial=8, instances=many))
        assert journal.since(7) is None


class TestWhole:
    @pytest.mark.rule("DNS11")
    def test_by_udp_is_refused(self):
        query = dns.message.make_query(ZONE, "AXFR")
        assert ask(published(golden_zone()), query, Transport.UDP) == dns.rcode.REFUSED

    @pytest.mark.rule("DNS11")
    def test_of_another_zone_is_none_of_ours(self):
        query = dns.message.make_query("_udp.example.com.", "AXFR")
        assert ask(published(golden_zone()), query) == dns.rcode.NOTAUTH

    def test_has_no_host_record_at_a_name_that_is_none_for_hosts(self):
        for name, rdtype, rdata in ask(published(golden_zone()), dns.message.make_query(ZONE, "AXFR")):
            if rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                assert "=" not in name
                assert "_" not in name
            if rdtype == dns.rdatatype.SRV:
                assert "=" not in str(rdata.target)

    def test_a_txt_too_large_for_a_message_is_cut_to_who_it_is(self):
        zone = golden_zone()
        large = peer(ALICE, "203.0.113.1:1", *(f"10.{n >> 8}.{n & 255}.0/24" for n in range(2048)))
        answer = ask(published(zone.with_instance(large, 8)), dns.message.make_query(ZONE, "AXFR"))
        sizes = [len(rdata.strings) for _, rdtype, rdata in answer if rdtype == dns.rdatatype.TXT]
        assert sizes[0] == 2


class TestSigned:
    def error(self, query, now=NOW, key=KEY):
        (reply,) = published(golden_zone(), key=key).respond(query, Transport.UDP, now)
        message = dns.message.from_wire(reply, keyring=False)
        assert message.rcode() == dns.rcode.NOTAUTH
        assert not message.answer
        return message.tsig[0]

    def signed(self):
        return Signer(KEY).sign(dns.message.make_query(ZONE, "SOA").to_wire(), NOW)

    @pytest.mark.rule("DNS20")
    def test_a_reply_is_signed_for_the_query(self):
        query = self.signed()
        mac = dns.message.from_wire(query, keyring=False).tsig[0].mac
        (reply,) = published(golden_zone(), key=KEY).respond(query, Transport.UDP, NOW)
        parsed = dns.message.from_wire(reply, keyring=False)
        assert parsed.answer[0][0].serial == 7
        assert verify(reply, parsed, KEY, NOW, mac) == dns.rcode.NOERROR
        assert verify(reply, parsed, KEY, NOW, b"other" + mac) == dns.rcode.BADSIG

    @pytest.mark.rule("DNS20")
    def test_one_bit_more_or_less_is_no_signature(self):
        for position in (4, 13, 25, len(self.signed()) - 10):
            query = bytearray(self.signed())
            query[position] ^= 1
            replies = published(golden_zone(), key=KEY).respond(bytes(query), Transport.UDP, NOW)
            assert replies is None or not dns.message.from_wire(next(replies), keyring=False).answer

    @pytest.mark.rule("DNS21")
    def test_a_clock_far_off_is_told_and_signed(self):
        error = self.error(self.signed(), NOW + 301)
        assert error.error == dns.rcode.BADTIME
        assert error.mac
        assert int.from_bytes(error.other, "big") == NOW + 301

    @pytest.mark.rule("DNS21")
    def test_a_key_that_is_not_ours(self):
        other = TsigKey.from_text('key "other" { secret "c2l4dGVlbiBieXRlcyBhcmUgZW5vdWdoIQ=="; };')
        error = self.error(self.signed(), key=other)
        assert error.error == dns.rcode.BADKEY
        assert not error.mac

    def test_signed_where_we_have_no_key(self):
        assert self.error(self.signed(), key=None).error == dns.rcode.BADKEY

    def test_bytes_of_any_kind_raise_nothing(self):
        primary, whole = published(golden_zone(), key=KEY), self.signed()
        for position in range(len(whole)):
            for value in (0, 0xC0, 0xFF):
                query = whole[:position] + bytes([value]) + whole[position + 1 :]
                list(primary.respond(query, Transport.TCP, NOW) or ())
            list(primary.respond(whole[:position], Transport.TCP, NOW) or ())


class TestKeyFile:
    def test_is_that_of_tsig_keygen(self):
        assert KEY.name == dns.name.from_text("k.")
        assert KEY.algorithm == dns.tsig.HMAC_SHA512
        assert "twen" not in repr(KEY)
        assert str(KEY.secret) not in repr(KEY)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "key k {}",
            'key k { secret "?"; };',
            'key k { secret "c2hvcnQ="; };',
            'key k { algorithm hmac-md5; secret "c2l4dGVlbiBieXRlcyBhcmUgZW5vdWdoIQ=="; };',
            'key "a..b" { secret "c2l4dGVlbiBieXRlcyBhcmUgZW5vdWdoIQ=="; };',
        ],
    )
    def test_that_is_none(self, text):
        with pytest.raises(ValueError, match=r"key|secret|algorithm"):
            TsigKey.from_text(text)

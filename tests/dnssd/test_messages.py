"""What counts as a denial, and what a query looks like."""

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import SRV

from wgdisco.dnssd.messages import Question, is_negative, pack_query

NAME = dns.name.from_text("a.example.com.")
SOA = dns.rrset.from_text("example.com.", 5, "IN", "SOA", "ns1.example.com. hostmaster.example.com. 1 2 3 4 5")
NS = dns.rrset.from_text("example.com.", 5, "IN", "NS", "ns1.example.com.")
CNAME = dns.rrset.from_text(NAME, 5, "IN", "CNAME", "b.example.com.")


@pytest.mark.parametrize(("edns", "size"), [(True, 1232), (False, None)])
def test_query_is_what_dnspython_reads(edns, size):
    message = dns.message.from_wire(pack_query(0x1234, Question(NAME, SRV, edns)))
    assert (message.id, message.flags) == (0x1234, dns.flags.RD)
    assert [(asked.name, asked.rdtype) for asked in message.question] == [(NAME, SRV)]
    assert (message.payload if message.edns == 0 else None) == size


@pytest.mark.parametrize(
    ("rcode", "flags", "answer", "authority", "expected"),
    [
        (dns.rcode.NXDOMAIN, 0, [], [], True),
        (dns.rcode.NOERROR, dns.flags.AA, [], [], True),
        (dns.rcode.NOERROR, 0, [], [SOA], True),
        (dns.rcode.NOERROR, 0, [], [NS], False),
        (dns.rcode.NOERROR, dns.flags.AA, [CNAME], [], False),
        (dns.rcode.SERVFAIL, dns.flags.AA, [], [SOA], False),
        (dns.rcode.REFUSED, 0, [], [], False),
    ],
)
def test_denials(rcode, flags, answer, authority, expected):
    message = dns.message.make_response(dns.message.make_query(NAME, "SRV"))
    message.set_rcode(rcode)
    message.flags |= flags
    message.answer, message.authority = answer, authority
    assert is_negative(message) is expected

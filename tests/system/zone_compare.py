"""`python -m tests.system.zone_compare FILE ZONE ADDRESS...`: what servers answer about all that is in a zone's file.

Every set of records is asked for, in lower and in upper case, and names and types that are not there are too. Prints as
JSON how many sets there are, and what differs from the file, from authority, and from the first server's refusals.
"""

import json
import sys

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.zone


def ask(address, name, rdtype):
    query = dns.message.make_query(name, rdtype, use_edns=0, payload=1232)
    return dns.query.udp_with_fallback(query, address, 5)[0]


def canonical(record):
    """In hex; the case of names means nothing (RFC 4034 section 6.2)."""
    return record.to_digestable().hex()


def text(name, ttl, rdtype, record):
    """One record. Of ns1 we tell the address that was asked, for as long as it may be another; a file has it fixed."""
    owner, kind = name.to_text().lower(), dns.rdatatype.to_text(rdtype)
    return f"{owner} {'any' if owner.startswith('ns1.') else ttl} {kind} {canonical(record)}"


def told(reply):
    """What must be the same everywhere: the code, authority, answer with its TTL, and the SOA of a refusal."""
    records = [*reply.answer, *([] if reply.answer else reply.authority)]
    shown = sorted(text(rrset.name, rrset.ttl, rrset.rdtype, record) for rrset in records for record in rrset)
    return [dns.rcode.to_text(reply.rcode()), bool(reply.flags & dns.flags.AA), shown]


def main(path, origin, *addresses):
    zone = dns.zone.from_file(path, origin, relativize=False)
    sets, differences = 0, []
    for name, rdataset in zone.iterate_rdatasets():
        sets += 1
        kind = dns.rdatatype.to_text(rdataset.rdtype)
        wanted = ["NOERROR", True, sorted(text(name, rdataset.ttl, rdataset.rdtype, record) for record in rdataset)]
        for address in addresses:
            for asked in (name.to_text(), name.to_text().upper()):
                said = told(ask(address, asked, kind))
                if said != wanted:
                    differences.append(f"{address}, {asked} {kind}: {said}, not {wanted}")
    names = sorted(name.to_text() for name in zone)
    absent = [(name, "MX") for name in names]
    absent += [(f"{label}.{origin}", "A") for label in ("nobody", "_udp", "_tcp", "a.ns1", "x" * 52, "=")]
    absent += [(f"{'a' * 56}._wireguard._udp.{origin}", "SRV"), (f"x.{names[0]}", "A")]
    for name, rdtype in absent:
        first, *others = [told(ask(address, name, rdtype)) for address in addresses]
        differences += [f"{name} {rdtype}: {first}, and {said}" for said in others if said != first]
    print(json.dumps({"sets": sets, "absent": len(absent), "differences": differences}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Ask as wgsd-client does: `python -m tests.system.dns_asker ADDRESS NAME COUNT PAUSE`.

Each question for NAME's SRV goes out of a socket of its own, by UDP, without EDNS, once, and is waited for 2 s; then
there is a pause. Prints as JSON how many were asked and answered with all that it needs, and the slowest, in seconds.
"""

import json
import socket
import sys
import time

import dns.flags
import dns.message
import dns.rdatatype

PATIENCE = 2.0  # of the DNS library it is built with


def is_answered(address: str, name: str) -> bool:
    query = dns.message.make_query(name, "SRV")
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect((address, 53))
        sock.send(query.to_wire())
        try:
            reply = dns.message.from_wire(sock.recv(512))
        except TimeoutError:
            return False
    is_whole = reply.id == query.id and bool(reply.answer) and not reply.flags & dns.flags.TC
    # it takes the first of what comes with the answer for the address
    return is_whole and reply.additional[0].rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA)


def main(address: str, name: str, count: str, pause: str) -> None:
    answered, slowest = 0, 0.0
    for _ in range(int(count)):
        began = time.monotonic()
        answered += is_answered(address, name)
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(float(pause))
    print(json.dumps({"asked": int(count), "answered": answered, "slowest": slowest}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A name server out there: `python name_server.py ADDRESS PORT [ANSWER]`. It says `listening`, then what it is asked.

It has ANSWER (192.0.2.80) for every A, and for every TXT a text that does not fit into a datagram.
"""

import socket
import sys
import threading

import dns.flags
import dns.message
import dns.rrset

TEXT = " ".join(['"' + "x" * 250 + '"'] * 8)


def reply_to(query, answer, *, whole):
    message = dns.message.from_wire(query)
    question = message.question[0]
    reply = dns.message.make_response(message, recursion_available=True)
    kind = {1: "A", 16: "TXT"}.get(question.rdtype)
    if kind == "A" or (kind == "TXT" and whole):
        data = answer if kind == "A" else TEXT
        reply.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, data))
    elif kind == "TXT":
        reply.flags |= dns.flags.TC
    print(f"{'tcp' if whole else 'udp'} {question.name} {question.rdtype}", flush=True)
    return reply.to_wire(max_size=65535)


def serve_tcp(listener, answer):
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as stream:
            while size := stream.read(2):
                reply = reply_to(stream.read(int.from_bytes(size, "big")), answer, whole=True)
                stream.write(len(reply).to_bytes(2, "big") + reply)
                stream.flush()


def main(address, port, answer="192.0.2.80"):
    listener = socket.create_server((address, int(port)))
    udp = socket.socket(type=socket.SOCK_DGRAM)
    udp.bind((address, int(port)))
    threading.Thread(target=serve_tcp, args=(listener, answer), daemon=True).start()
    print("listening", flush=True)
    while True:
        query, source = udp.recvfrom(4096)
        udp.sendto(reply_to(query, answer, whole=False), source)


if __name__ == "__main__":
    main(*sys.argv[1:])

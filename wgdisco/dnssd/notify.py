"""NOTIFY (RFC 1996): tell each secondary that the zone changed, until it says that it heard.

A change is told at once, or `COALESCE` after the last one was: a thousand changes a second are a hundred messages. Who
does not answer is asked again, ever less often; it is not given up, since it may be back before it looks by itself.
"""

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import dns.opcode
from dns.rcode import NOERROR
from dns.rdataclass import IN
from dns.rdatatype import SOA

from wgdisco.dnssd.wire import AA, HEADER_SIZE, QR, Question, Reply, pack_reply
from wgdisco.dnssd.zone import Zone
from wgdisco.endpoint import Endpoint

COALESCE = 0.01
RETRY_FIRST = 1.0
RETRY_MAX = 30.0

_FLAGS = dns.opcode.NOTIFY << 11
_KIND = QR | 0x7800 | 0xF
_SIZE = 512


@dataclass(slots=True)
class _Told:
    """One secondary: whether it has to be told, when, and under which id it was."""

    endpoint: Endpoint
    is_due: bool = False
    due_at: float = 0.0
    sent_at: float | None = None
    message_id: int = -1
    interval: float = RETRY_FIRST


class Notifier:
    """See the module's docstring; `random_bytes` gives what strangers must not guess."""

    def __init__(self, secondaries: Iterable[Endpoint], random_bytes: Callable[[int], bytes]) -> None:
        self._told = [_Told(endpoint) for endpoint in dict.fromkeys(secondaries)]
        self._random_bytes = random_bytes
        self._zone: Zone | None = None

    def changed(self, zone: Zone, now: float) -> None:
        """The zone is this one from now on."""
        self._zone = zone
        for one in self._told:
            if not (one.is_due and one.message_id < 0):
                one.due_at = now if one.sent_at is None else max(now, one.sent_at + COALESCE)
            one.is_due, one.message_id, one.interval = True, -1, RETRY_FIRST

    def receive_datagram(self, data: bytes, source: Endpoint) -> None:
        """What came to the socket that notifies; all but the answer to the last NOTIFY is nothing."""
        if len(data) < HEADER_SIZE:
            return
        message_id, flags = struct.unpack_from("!HH", data)
        if flags & _KIND != QR | _FLAGS | NOERROR:
            return
        for one in self._told:
            if one.endpoint == source and one.message_id == message_id:
                one.is_due = False

    def get_timer(self) -> float | None:
        """When somebody has to be told."""
        return min((one.due_at for one in self._told if one.is_due), default=None)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Endpoint]]:
        """What is due, not signed yet."""
        if self._zone is None:
            return []
        datagrams = []
        for one in self._told:
            if one.is_due and one.due_at <= now:
                if one.message_id >= 0:
                    one.interval = min(2 * one.interval, RETRY_MAX)
                one.message_id = int.from_bytes(self._random_bytes(2), "big")
                one.sent_at, one.due_at = now, now + one.interval
                datagrams.append((_pack(self._zone, one.message_id), one.endpoint))
        return datagrams


def _pack(zone: Zone, message_id: int) -> bytes:
    question = Question(zone.names.origin, SOA, IN)
    return pack_reply(Reply(message_id, _FLAGS | AA, NOERROR, question, (zone.soa(),)), _SIZE)

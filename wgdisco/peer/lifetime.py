"""How long the NAT in front remembers a mapping that nothing goes through (RFC 5780 section 4.6).

One socket, X, opens a mapping towards the registry's STUN responder and is silent for a while. Another, Y, then asks
the responder to answer X's port (RESPONSE-PORT). If the answer comes through, the mapping was still there.

::

    X ── plain ──► A:3478     X's port as seen; said again 3 s later, for NATs (Linux) that trust a flow only then
       … silence …
    Y ── RESPONSE-PORT: X's ──► A:3478    ◄── to X: remembered; nothing: forgotten

The silence is doubled while it is outlived, then halved in between. Only what matters is looked for: nobody keeps a
mapping alive more seldom than each MOST seconds. What was lost on the way is asked again; a failure counts only if the
responder answers afterwards. After one, X is another socket: a NAT that forgot may hold a grudge against the old one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from wgdisco.api import HEARTBEAT, HEARTBEAT_LEAST, HEARTBEAT_MOST, StunRecord
from wgdisco.endpoint import Endpoint, IPAddress
from wgdisco.stun import TRANSACTION_ID_SIZE, Kind, Message

# What of a lifetime is made use of
MARGIN = 0.8
# The first silence, and the longest that is of use
FIRST = 30.0
ENOUGH = HEARTBEAT_MOST / MARGIN
# A comment that comes so much later than it was due found no way in, in seconds
LATE = 4.0
# When the flow is used again at its begin: Linux gives it the longer timeout from 2 s on
SETTLE = 3.0
# RFC 8489 section 6.2.1's RTO, and how often is asked
RETRANSMISSION = 0.5
TRIES = 3
# Good enough: what is known to be outlived and what is not are that close together
CLOSE = 1.2


@dataclass(frozen=True, slots=True)
class Lifetime:
    """A silence of `at_least` seconds is outlived, one of `below` is not; 0 and None where that is not known."""

    at_least: float = 0.0
    below: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything is."""
        return self.at_least > 0 or self.below is not None

    def interval(self) -> int:
        """How often to send so that the mapping stays, in whole seconds."""
        if not self.is_known:
            return HEARTBEAT
        return min(max(int(self.at_least * MARGIN), HEARTBEAT_LEAST), HEARTBEAT_MOST)

    def is_refuted(self, silence: float) -> bool:
        """Whether something the registry sent after `interval` was heard only after this `silence`.

        It came when we sent by ourselves, so the mapping had gone.
        """
        return self.is_known and silence > self.interval() + LATE


@dataclass(frozen=True, slots=True)
class LifetimeProbe:
    """A datagram to send from the socket of that number; a number that is new means a new socket."""

    data: bytes
    destination: Endpoint
    socket: int


class _Stage(Enum):
    """What is being waited for."""

    MEETING = "Y's plain answer"
    OPENING = "X's plain answer"
    SETTLING = "the time to use X again"
    SETTLED = "X's plain answer, again"
    SILENCE = "the end of the silence"
    ASKING = "the answer to X that Y asked for"
    DONE = "nothing"


_ASKER = 0


class LifetimeSearch:
    """One search, at one port of the responder. `start` it, and it ends with one Lifetime among its events."""

    def __init__(
        self,
        service: StunRecord,
        server: Endpoint,
        random_bytes: Callable[[int], bytes],
        *,
        first: float = FIRST,
        least: float = HEARTBEAT_LEAST,
        enough: float = ENOUGH,
    ) -> None:
        """`least` is the shortest interval there may be: a lifetime for which it is too long is not told from others.

        Nor is one of more than `enough`.
        """
        self.sent = 0
        self._service = service
        self._server = server
        self._random_bytes = random_bytes
        self._first, self._least, self._enough = first, least, enough
        self._stage = _Stage.DONE
        self._deadline: float | None = None
        self._request: tuple[bytes, bytes, int] = (b"", b"", _ASKER)  # transaction id, datagram, socket
        self._tries = 0
        self._found = Lifetime()
        self._failed: float | None = None
        self._address: IPAddress | None = None
        self._opened = 1  # the number of X's socket
        self._port = 0
        self._silent_since = self._asked_at = 0.0
        self._out: list[LifetimeProbe] = []
        self._events: list[Lifetime] = []

    def start(self, now: float) -> None:
        """Begin."""
        self._ask(_Stage.MEETING, _ASKER, now)

    @property
    def silent_socket(self) -> int:
        """The number of X's socket; sockets below, but for 0, are of no more use."""
        return self._opened

    def receive_datagram(self, data: bytes, socket: int, now: float) -> None:
        """Take what came to one of the sockets; what does not answer us is dropped."""
        try:
            message = Message.parse(data)
        except ValueError:
            return
        transaction_id, _, asked_from = self._request
        is_ours = message.transaction_id == transaction_id and message.verify(self._service.password)
        if not is_ours or self._stage in (_Stage.DONE, _Stage.SETTLING, _Stage.SILENCE):
            return
        if message.kind is Kind.ERROR:
            self._finish(Lifetime())  # it does not know how
        elif message.kind is Kind.SUCCESS and message.mapped is not None:
            if self._stage is _Stage.ASKING:
                if socket == self._opened:
                    self._outlived(now)
            elif socket == asked_from:
                self._answered(message.mapped, now)

    def handle_timer(self, now: float) -> None:
        """Ask again, or go on."""
        if self._deadline is None or now < self._deadline:
            return
        match self._stage:
            case _Stage.SETTLING:
                self._ask(_Stage.SETTLED, self._opened, now)
            case _Stage.SILENCE:
                self._asked_at = now
                self._ask(_Stage.ASKING, _ASKER, now, self._port)
            case _ if self._tries < TRIES:
                self._send(now)
            case _Stage.ASKING:
                self._failed = self._asked_at - self._silent_since
                self._opened += 1
                self._ask(_Stage.OPENING, self._opened, now)
            case _:
                self._finish(self._found)  # the responder does not answer

    def get_timer(self) -> float | None:
        """When `handle_timer` is due; None before the start and after the end."""
        return self._deadline

    def datagrams_to_send(self) -> list[LifetimeProbe]:
        """What is to be sent now."""
        out, self._out = self._out, []
        return out

    def events(self) -> list[Lifetime]:
        """What was found, once."""
        events, self._events = self._events, []
        return events

    def _ask(self, stage: _Stage, socket: int, now: float, port: int | None = None) -> None:
        transaction_id = self._random_bytes(TRANSACTION_ID_SIZE)
        request = Message(Kind.REQUEST, transaction_id, username=self._service.username, response_port=port)
        self._request = (transaction_id, request.pack(self._service.password), socket)
        self._stage, self._tries = stage, 0
        self._send(now)

    def _send(self, now: float) -> None:
        _, data, socket = self._request
        self._tries += 1
        self.sent += 1
        self._deadline = now + RETRANSMISSION
        self._out.append(LifetimeProbe(data, self._server, socket))

    def _answered(self, mapped: Endpoint, now: float) -> None:
        match self._stage:
            case _Stage.MEETING:
                self._address = mapped.address
                self._ask(_Stage.OPENING, self._opened, now)
            case _ if mapped.address != self._address:
                # a NAT with several addresses: what Y asks for would go to another
                self._finish(Lifetime())
            case _Stage.OPENING:
                if self._failed is not None:
                    failed, self._failed = self._failed, None
                    known = failed if self._found.below is None else min(failed, self._found.below)
                    self._found = Lifetime(self._found.at_least, known)
                    if self._is_enough():
                        self._finish(self._found)
                        return
                self._stage, self._deadline = _Stage.SETTLING, now + SETTLE
            case _:
                self._port, self._silent_since = mapped.port, now
                self._stage, self._deadline = _Stage.SILENCE, now + self._next()

    def _outlived(self, now: float) -> None:
        silence = self._asked_at - self._silent_since
        self._found = Lifetime(max(self._found.at_least, silence), self._found.below)
        if self._is_enough():
            self._finish(self._found)
        else:
            self._ask(_Stage.SETTLED, self._opened, now)

    def _next(self) -> float:
        """The silence to try."""
        if self._found.below is not None:
            return (max(self._found.at_least, self._least) + self._found.below) / 2
        return min(max(2 * self._found.at_least, self._first), self._enough)

    def _is_enough(self) -> bool:
        low, high = self._found.at_least, self._found.below
        if low >= self._enough:
            return True
        return high is not None and (high * MARGIN <= self._least or high <= CLOSE * max(low, self._least))

    def _finish(self, found: Lifetime) -> None:
        self._stage, self._deadline = _Stage.DONE, None
        self._events.append(found)

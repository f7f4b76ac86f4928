"""What managed peers may do beyond the letter of the protocol (formats.md, Backend). Plain peers have none of it."""

from dataclasses import dataclass

from wgdisco.keys import PublicKey
from wgdisco.tunnel.session import Session

# Initiations: to how many endpoints at once, and how long after the one before, in seconds
MAX_FAN_OUT = 8
MANAGED_GAP = 0.025
RESPONSE_CACHE_TIME = 10.0
RESPONSE_CACHE_USES = 8
# When our first packet in a new session is said again while nothing has come back in it, in seconds: until it arrives
# the other side can neither send nor tell that we are here, and the next packet may be a persistent keepalive away.
CONFIRMATION_PAUSES = (0.15, 0.3, 0.6, 1.2, 2.4)
# Where both sides are initiators (of a crossed handshake), the one with the greater key renews so much later, in
# seconds: then they do not cross again
RENEWAL_LAG = 2.0
# Data sent without an answer: after so long it is told; and so long without a packet may have closed the
# shortest-lived hole (a NAT's timer for UDP that was never answered is 30 s)
DOUBT_AFTER = 0.3
QUIET_AFTER = 20.0


@dataclass(slots=True)
class _Answered:
    """The last initiation we answered, for those who say it again."""

    initiation: bytes
    response: bytes
    at: float
    uses: int = 0


class Liberties:
    """What one managed peer keeps for that.

    `unconfirmed` is a session of which nothing shows yet that the other side has it.
    """

    __slots__ = ("_answered", "_confirmations", "unconfirmed")

    def __init__(self) -> None:
        self.unconfirmed: Session | None = None
        self._confirmations = 0
        self._answered: _Answered | None = None

    def clear(self) -> None:
        """Keys are wiped: nothing is repeated."""
        self._answered = self.unconfirmed = None

    def answered(self, initiation: bytes, response: bytes, now: float) -> None:
        """That initiation was answered so."""
        self._answered = _Answered(initiation, response, now)

    def response_to(self, initiation: bytes, now: float) -> bytes | None:
        """The response to say again to who says its last initiation again, a few times; or None.

        To wherever that comes from: a peer tries several ways at once. It is smaller than what it answers.
        """
        answered = self._answered
        if answered is None or answered.initiation != initiation:
            return None
        if now - answered.at > RESPONSE_CACHE_TIME or answered.uses >= RESPONSE_CACHE_USES:
            return None
        answered.uses += 1
        return answered.response

    def confirmation_sent(self, session: Session) -> float:
        """Our first packet in `session` went out: after how many seconds it goes again."""
        self.unconfirmed, self._confirmations = session, 0
        return CONFIRMATION_PAUSES[0]

    def confirmation_repeated(self) -> float | None:
        """It went again: after how many seconds once more, or None: that was the last time."""
        self._confirmations += 1
        if self._confirmations < len(CONFIRMATION_PAUSES):
            return CONFIRMATION_PAUSES[self._confirmations]
        self.unconfirmed = None
        return None


def renewal_lag(own: PublicKey | None, remote: PublicKey) -> float:
    """How much later than it might our side renews, in seconds."""
    return RENEWAL_LAG if own is not None and own.raw > remote.raw else 0.0

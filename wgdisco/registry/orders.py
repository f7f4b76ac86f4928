"""Orders: on a member's request both sides of a pair are told, in the same moment, to punch (formats.md, API).

Who asked is the initiator. When both ask, the first request makes the order and the second is part of it.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass
from enum import Enum

from wgdisco.keys import PublicKey

# How long an order is acted on after it is heard
ORDER_LIFETIME = 5.0
# A second request for a pair within that time is the same order
SAME_ORDER = 0.5
# Orders a member may ask for: at once (its whole neighbourhood after a start), and a second in the long run. With the
# packets an attempt sends to one candidate, this bounds what a member can have others send anywhere.
ORDERS_BURST = 64
ORDERS_RATE = 2.0
# And of one pair: that nobody takes all of another's
PAIR_BURST = 16
PAIR_RATE = 0.5
_PAIRS_MAX = 65536


class Asked(Enum):
    """What became of a request."""

    MADE = "made"
    REPEATED = "repeated"
    TOO_MANY = "too many"
    OFFLINE = "offline"
    UNKNOWN = "unknown member"


@dataclass(frozen=True, slots=True)
class Punch:
    """An order. `at` is when it was made, and so is `number`, in ms: a count would tell how many others make."""

    number: int
    initiator: PublicKey
    responder: PublicKey
    at: float


class Orders:
    """Makes orders, and says no to who asks for too many. `asked` counts requests; of those that never get here too."""

    def __init__(self) -> None:
        self.asked: Counter[Asked] = Counter()
        self._last: OrderedDict[frozenset[PublicKey], tuple[Punch, object]] = OrderedDict()
        self._full_at: dict[PublicKey | frozenset[PublicKey], float] = {}

    def request(
        self, asker: PublicKey, peer: PublicKey, now: float, places: object = None
    ) -> tuple[Punch, bool] | None:
        """The order for a pair and whether it is new, so that it has to be told; None when the asker must wait.

        `places` are where the two are: an order for elsewhere is another.
        """
        pair = frozenset((asker, peer))
        last, last_places = self._last.get(pair, (None, None))
        if last is not None and now - last.at < SAME_ORDER and places == last_places:
            self.asked[Asked.REPEATED] += 1
            return last, False
        # Both sides pay: an order makes either send.
        if not (self._may(asker, now) and self._may(peer, now) and self._may(pair, now, PAIR_BURST, PAIR_RATE)):
            self.asked[Asked.TOO_MANY] += 1
            return None
        self.asked[Asked.MADE] += 1
        for who, rate in ((asker, ORDERS_RATE), (peer, ORDERS_RATE), (pair, PAIR_RATE)):
            self._full_at[who] = max(now, self._full_at.pop(who, now)) + 1 / rate
        while len(self._full_at) > _PAIRS_MAX:
            del self._full_at[next(iter(self._full_at))]
        punch = Punch(int(now * 1000), asker, peer, now)
        self._last.pop(pair, None)
        self._last[pair] = punch, places
        while self._last:
            oldest, _ = next(iter(self._last.values()))
            if len(self._last) <= _PAIRS_MAX and now - oldest.at <= SAME_ORDER:
                break
            self._last.popitem(last=False)
        return punch, True

    def _may(
        self, who: PublicKey | frozenset[PublicKey], now: float, burst: int = ORDERS_BURST, rate: float = ORDERS_RATE
    ) -> bool:
        return self._full_at.get(who, now) - now <= (burst - 1) / rate

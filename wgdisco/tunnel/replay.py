"""The replay window: each counter is accepted once, and only within 8128 of the greatest (RFC 6479, 8192 bits)."""

from wgdisco.tunnel.messages import REJECT_AFTER_MESSAGES, REPLAY_BITS, REPLAY_WINDOW

_WORDS = REPLAY_BITS // 64


class ReplayWindow:
    """One session's window. Ask only after the packet has authenticated (rule D5)."""

    __slots__ = ("_next", "_words")

    def __init__(self) -> None:
        self._next = 0  # one more than the greatest counter accepted
        self._words = [0] * _WORDS

    def accept(self, counter: int) -> bool:
        """Whether `counter` is new and in the window; it then counts as seen."""
        if counter >= REJECT_AFTER_MESSAGES or counter + 1 + REPLAY_WINDOW < self._next:
            return False
        word = counter >> 6
        if counter >= self._next:
            newest = (self._next - 1) >> 6
            for step in range(1, min(word - newest, _WORDS) + 1):
                self._words[(newest + step) % _WORDS] = 0
            self._next = counter + 1
        bit = 1 << (counter & 63)
        slot = word % _WORDS
        if self._words[slot] & bit:
            return False
        self._words[slot] |= bit
        return True

    def accept_run(self, first: int, count: int) -> bool:
        """Accept `count` >= 1 counters from `first` upward at once, if all are beyond every one before.

        False, and nothing changed, when they are not: then ask for each.
        """
        end = first + count
        if first < self._next or end > REJECT_AFTER_MESSAGES:
            return False
        words = self._words
        newest, last = (self._next - 1) >> 6, (end - 1) >> 6
        for word in range(max(newest + 1, last - _WORDS + 1), last + 1):
            words[word % _WORDS] = 0
        for word in range(max(first >> 6, last - _WORDS + 1), last + 1):
            start = word << 6
            words[word % _WORDS] |= (1 << min(end - start, 64)) - (1 << max(first - start, 0))
        self._next = end
        return True


class Counters(ReplayWindow):
    """What a session counts: the next counter to send with, and the window of those that came.

    `lane`: whether its packets may go where those before went without being looked at here (`tunnel.lanes`).
    """

    __slots__ = ("lane", "next_sent")

    def __init__(self) -> None:
        super().__init__()
        self.next_sent = 0
        self.lane = 0

"""What a lane is given for, and what it tells: packets of a session that stands need no thought each.

They are sealed, opened, sent and delivered as those before them were, while the event loop waits (`_lanes.c`); what a
peer's state machine would have noted of each is noted of all at once, by the times of those that matter to its timers.
A lane is taken back by whatever else is done to its peer, and given again with its next burst. Without one every burst
is looked at, which comes to the same.
"""

from dataclasses import dataclass

from wgdisco.tunnel.events import Drop
from wgdisco.tunnel.session import Session


@dataclass(slots=True)
class Lane:
    """Packets may go by `session` before `until`, on the device's clock. `waits`: something came since we last sent."""

    session: Session
    until: float
    waits: bool


@dataclass(slots=True)
class Carried:
    """What went by a lane: bytes of datagrams, and on the device's clock the last sent and the last received.

    `unanswered_at` is the first sent after the last that came, `waiting_at` the first packet that came after the last
    sent; `more` whether another came after that.
    """

    tx_bytes: int = 0
    rx_bytes: int = 0
    sent_at: float | None = None
    received_at: float | None = None
    unanswered_at: float | None = None
    waiting_at: float | None = None
    more: bool = False
    drops: tuple[tuple[Drop, int], ...] = ()

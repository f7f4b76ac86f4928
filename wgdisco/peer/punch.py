"""The schedules of punching: what goes out when, after an order has come (or none can be had).

Both sides begin in the same moment. Openers come first: packets that die between the two NATs. They open the sender's
NAT, and no NAT sees them unsolicited: a Linux NAT whose own input chain accepts would remap the flow that such a packet
collides with (design fact "burn"). Normal packets follow HOLD later. After a failure there is silence, so that a NAT
burned all the same can forget; then the pair is tried again, ever less often.

Port prediction, birthday and port mapping will have their schedules here.
"""

from dataclasses import dataclass

from wgdisco.api import MAX_CANDIDATES
from wgdisco.tunnel.turns import OPENER_TTLS

OPENER_GAP = 0.005
HOLD = 0.010
# Rounds of checks and initiations after HOLD, in seconds: never closer than the 25 ms a stock receiver wants
ROUNDS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 1.6, 2.4, 3.2)
GIVE_UP_AFTER = 5.0
# Rounds in which candidates better than the one that answers are still asked
BETTER_ROUNDS = 3
# An order that was asked for and has not come by then
ORDER_TIMEOUT = 1.0
# Not more often than that is one asked for, whatever is sent
ORDER_GAP = 1.0
# Orders that are followed, at once and a second: twice the burst a registry makes (it may have begun anew)
ORDERS_BURST = 128
ORDERS_RATE = 2.0
# Checks of what is told beside an order, at once and a second: the candidates of a peer twice, then once in 35 s
TOLD_BURST = 2 * MAX_CANDIDATES
TOLD_RATE = MAX_CANDIDATES / 35
# After a failure: Linux forgets an unanswered flow after 30 s
RETRY_PAUSES = (35.0, 60.0, 120.0, 300.0, 600.0)
# What one attempt sends to one candidate at the most: openers, and a check and an initiation each round
PACKETS_A_CANDIDATE = len(OPENER_TTLS) + 2 * len(ROUNDS)


@dataclass(frozen=True, slots=True)
class Step:
    """What is due `at` seconds after the begin: openers with `ttl`, or (None) round number `round`, from 0."""

    at: float
    ttl: int | None = None
    round: int = 0


SCHEDULE = (
    *(Step(number * OPENER_GAP, ttl) for number, ttl in enumerate(OPENER_TTLS)),
    *(Step(HOLD + at, None, number) for number, at in enumerate(ROUNDS)),
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a direct path, `step` of SCHEDULE done. `is_initiator` sends initiations while there is no session."""

    since: float
    is_initiator: bool
    step: int = 0

    def get_timer(self) -> float:
        """When the next step is due, or the end."""
        return self.since + (SCHEDULE[self.step].at if self.step < len(SCHEDULE) else GIVE_UP_AFTER)


def retry_pause(failures: int) -> float:
    """How long to stay silent after the given number of failures in a row, 1 the first."""
    return RETRY_PAUSES[min(failures, len(RETRY_PAUSES)) - 1]

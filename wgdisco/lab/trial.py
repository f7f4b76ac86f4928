"""One pair, once: two fresh members join, want each other, and are watched until they are connected as they should be."""

import io
import signal
import subprocess
import time
from contextlib import ExitStack
from dataclasses import dataclass

from wgdisco.endpoint import IPAddress
from wgdisco.errors import LocalError
from wgdisco.invitation import JoinLink
from wgdisco.lab.internet import Internet
from wgdisco.lab.mesh import STATE, join_command
from wgdisco.lab.oracle import Outcome
from wgdisco.lab.packets import Crossing
from wgdisco.lab.timeline import Timeline
from wgdisco.lab.topologies import REGISTRY, Pair
from wgdisco.lab.verdict import PING_SIZE, Observed, Reply, Side, Verdict, judge, parse_replies
from wgdisco.lab.world import HostProcess
from wgdisco.machine import boot_time
from wgdisco.peer.io.state import StateStore

PING_INTERVAL = 0.02
WINDOW = 0.4
_START_TIMEOUT = 15.0
PATIENCE = 4.0
# How long a relayed pair is watched for a better path that theory denies it
_RELAY_SETTLES = 0.8


@dataclass(slots=True)
class Trial:
    """What became of it, with all that was seen: for the report of one that failed."""

    pair: Pair
    verdict: Verdict
    crossings: list[Crossing]
    names: dict[IPAddress, str]
    log: str


class Members:
    """The two daemons of a pair, and the pings of the one that asks first."""

    def __init__(self, net: Internet, pair: Pair, group: str, link: str) -> None:
        self._net = net
        self._pair = pair
        self._group = group
        self._registry_key = JoinLink.from_text(link).registry_key.to_text()
        self._output = io.StringIO()
        self._timeline = Timeline({self._registry_key: REGISTRY}, self._output)
        self._link = link
        self._pings: HostProcess | None = None
        self._pinged_at: float | None = None
        self._asker = pair.a

    def run(self, patience: float, rtt: float) -> Trial:
        """Start them, wait for what is expected or as long as `patience` allows, judge. LocalError if one ends."""
        self._net.crossings()  # of the trial before
        with ExitStack() as stack:
            stack.callback(self._forget)
            stack.callback(self._timeline.close)
            for host in (self._pair.a, self._pair.b):
                self._timeline.start(self._net.hosts[host], join_command(self._link, self._group, f"{self._group}-{host}"))
            if not self._timeline.wait(self._is_asked, _START_TIMEOUT):
                return self._judge(rtt, ())
            self._start_pings()
            since = boot_time()
            self._timeline.wait(self._is_there, patience)
            settles = WINDOW + rtt
            if self._pair.expected is Outcome.RELAY:
                settles = max(settles, since + _RELAY_SETTLES - boot_time())
            self._timeline.wait(lambda: False, settles)
            return self._judge(rtt, self._stop_pings())

    def _side(self, host: str) -> Side:
        said = tuple(one for one in self._timeline.said if one.host == host)
        return Side(host, self._net.plan.outside(host), said, self._registry_key)

    def _other(self, host: str) -> str:
        return self._pair.b if host == self._pair.a else self._pair.a

    def _is_asked(self) -> bool:
        """Whether one wants the other, and both are registered."""
        sides = [self._side(host) for host in (self._pair.a, self._pair.b)]
        asked = [(at, side.host) for side in sides if (at := side.asked_at()) is not None]
        if not asked or any(side.registered_at() is None for side in sides):
            return False
        self._asker = min(asked)[1]
        return True

    def _is_there(self) -> bool:
        expected = self._pair.expected.value
        claims = (self._side(host).claims() for host in (self._pair.a, self._pair.b))
        return all(word is not None and word.value == expected for word in claims)

    def _start_pings(self) -> None:
        state = StateStore(self._net.file(self._other(self._asker), STATE)).load(self._group)
        if state is None:
            raise LocalError(f"{self._other(self._asker)} has no membership on its disk")
        address = state.memory.snapshot.member.addresses[0]
        command = ["ping", "-nD", f"-i{PING_INTERVAL}", f"-s{PING_SIZE}", "-W1", address]
        self._pinged_at = boot_time()
        self._pings = self._net.hosts[self._asker].popen(command, stdout=subprocess.PIPE)

    def _stop_pings(self) -> tuple[Reply, ...]:
        assert self._pings is not None
        offset = boot_time() - time.time()
        self._pings.send_signal(signal.SIGINT)
        output, _ = self._pings.communicate(timeout=5)
        return parse_replies(output, offset)

    def _judge(self, rtt: float, replies: tuple[Reply, ...]) -> Trial:
        until = boot_time()
        hosts = (REGISTRY, self._pair.a, self._pair.b)
        crossings = self._net.crossings()
        registry = frozenset(address for address in self._net.plan.outside(REGISTRY))
        observed = Observed(
            asker=self._side(self._asker),
            other=self._side(self._other(self._asker)),
            registry=registry,
            crossings=crossings,
            replies=replies,
            pinged_at=self._pinged_at,
            until=until,
            window=WINDOW,
            rtt=rtt,
        )
        names = {address: host for host in hosts for address in self._net.plan.outside(host)}
        verdict = judge(observed, self._pair.expected)
        return Trial(self._pair, verdict, crossings, names, self._output.getvalue())

    def _forget(self) -> None:
        """What they have on disk; the next trial is with others."""
        for host in (self._pair.a, self._pair.b):
            self._net.file(host, f"{STATE}/{self._group}.json").unlink(missing_ok=True)

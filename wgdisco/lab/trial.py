"""One pair, once: two fresh members join, then want each other, and are watched until connected as they should be."""

import io
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Self

from wgdisco.endpoint import IPAddress
from wgdisco.errors import LocalError
from wgdisco.invitation import JoinLink
from wgdisco.lab.internet import Internet
from wgdisco.lab.mesh import STATE, accept, end_engine, join_words, start_engine
from wgdisco.lab.oracle import Outcome
from wgdisco.lab.packets import Crossing
from wgdisco.lab.timeline import Timeline
from wgdisco.lab.topologies import PORT, REGISTRY, Event, Pair
from wgdisco.lab.verdict import PING_SIZE, At, Observed, Reply, Side, Verdict, judge, parse_replies
from wgdisco.lab.world import HostProcess
from wgdisco.machine import boot_time
from wgdisco.peer.io.state import StateStore
from wgdisco.tunnel.engines import EngineKind

PING_INTERVAL = 0.02
WINDOW = 0.4
_START_TIMEOUT = 60.0  # on an emulated processor
# How long they may look at their NATs before they are let talk
_NAT_PATIENCE = 1.0
# By then the registry has been told of them
_SETTLES = 0.3
PATIENCE = 4.0
# With an engine that does not say what happens, and tries one endpoint after the other
POLLED_PATIENCE = 30.0
# Until it is led back from where it followed the peer, seconds
FOLLOWS_FOR = 1.2
# How long a relayed pair is watched for a better path that theory denies it
_RELAY_SETTLES = 0.8
# How long a pair that something happened to is watched
_RECOVERY = 3.0
_POLLED_RECOVERY = 9.0


@dataclass(slots=True)
class Trial:
    """What became of it, with all that was seen: for the report of one that failed."""

    pair: Pair
    verdict: Verdict
    crossings: list[Crossing]
    names: dict[IPAddress, str]
    log: str


class Members:
    """The two daemons of a pair, and the pings of the one that asks first; a context manager.

    `start`, `watch`, `conclude` in this order; another pair may be started in between, and `close` takes a while.
    """

    def __init__(
        self,
        net: Internet,
        pair: Pair,
        group: str,
        links: tuple[str, str],
        rtt: float,
        engines: tuple[EngineKind, EngineKind],
    ) -> None:
        """They join by `links` and call their network `group`; `rtt` is what they are apart, in seconds.

        Where an engine is EXTERNAL it is `wireguard-go`.
        """
        self._net = net
        self._pair = pair
        self._group = group
        self._links = dict(zip((pair.a, pair.b), links, strict=True))
        self._rtt = rtt
        self._engines = dict(zip((pair.a, pair.b), engines, strict=True))
        self._follows_for = 0.0 if set(engines) == {EngineKind.USERSPACE} else FOLLOWS_FOR
        self._registry_key = JoinLink.from_text(links[0]).registry_key.to_text()
        self._output = io.StringIO()
        self._timeline = Timeline({self._registry_key: REGISTRY}, self._output)
        self._started_at = 0.0
        self._event_at: float | None = None
        self._pings: HostProcess | None = None
        self._asker = pair.a

    def start(self) -> None:
        """Both at the same time."""
        self._started_at = boot_time()
        for host, link in self._links.items():
            if self._engines[host] is EngineKind.EXTERNAL:
                start_engine(self._net, host, self._group)
            words = join_words(link, self._group, f"{self._group}-{host}", self._engines[host])
            self._timeline.follow(host, self._net.warm.start(self._net.hosts[host], words))

    def watch(self, patience: float) -> None:
        """Let them talk, until both say what is expected or as long as `patience` allows. LocalError if one ends."""
        within = _START_TIMEOUT * (1 + 10 * self._net.conditions.loss)  # TCP waits long for what is lost
        if not self._timeline.wait(self._are_registered, within):
            return
        self._timeline.wait(self._know_their_nats, _NAT_PATIENCE)
        self._timeline.wait(lambda: False, _SETTLES)
        names = {host: f"{self._group}-{self._other(host)}" for host in self._links}
        accept(self._net, self._group, names)
        if self._timeline.wait(self._is_asked, _START_TIMEOUT):
            self._start_pings()
            since = boot_time()
            self._timeline.wait(self._is_there, patience)
            self._timeline.wait(lambda: False, self._follows_for)
            if self._pair.expected is Outcome.RELAY:
                self._timeline.wait(lambda: False, since + _RELAY_SETTLES - boot_time())

    def conclude(self) -> Trial:
        """See where pings go now, judge, and tell the daemons to stop."""
        if self._pings is not None:
            self._timeline.wait(lambda: False, WINDOW + 3 * self._rtt)  # what is under way to the relay arrives
            if self._pair.event is not None:
                self._event_at = boot_time()
                self._happen(self._pair.event)
                self._timeline.wait(lambda: False, _POLLED_RECOVERY if self._follows_for else _RECOVERY)
        trial = self._judge(self._stop_pings())
        self._timeline.tell_to_stop()
        return trial

    def close(self) -> None:
        """Wait until they are gone, and forget what they have on disk. May be called again."""
        self._timeline.close()
        for host in self._links:
            self._net.file(host, f"{STATE}/{self._group}.json").unlink(missing_ok=True)
            if self._engines[host] is EngineKind.EXTERNAL:
                end_engine(self._net, host, self._group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _happen(self, event: Event) -> None:
        """To the one that pings: behind a router that changed its address nobody finds who says nothing."""
        match event:
            case Event.ROAMS:
                self._net.change_uplink(self._asker)
            case Event.BOTH_ROAM:
                for host in self._links:
                    self._net.change_uplink(host)
            case Event.REBINDS:
                router = self._net.plan.leaf(self._asker).uplinks[0].router
                assert router is not None
                self._net.change_address(router)

    def _side(self, host: str) -> Side:
        said = tuple(one for one in self._timeline.said if one.host == host)
        return Side(host, self._net.plan.outside(host), said, self._registry_key)

    def _other(self, host: str) -> str:
        return self._pair.b if host == self._pair.a else self._pair.a

    def _are_registered(self) -> bool:
        """Whether both hear the registry, and it has told them of each other."""
        sides = [self._side(host) for host in self._links]
        return all(side.registered_at() is not None and side.has_said("member refused") for side in sides)

    def _know_their_nats(self) -> bool:
        return all(self._side(host).has_said("nat") for host in self._links)

    def _is_asked(self) -> bool:
        """Whether one wants the other."""
        asked = [(at, host) for host in self._links if (at := self._side(host).asked_at()) is not None]
        if asked:
            self._asker = min(asked)[1]
        return bool(asked)

    def _is_there(self) -> bool:
        expected = self._pair.expected.value
        claims = (self._side(host).claims() for host in self._links)
        return all(word is not None and word.value == expected for word in claims)

    def _start_pings(self) -> None:
        state = StateStore(self._net.file(self._other(self._asker), STATE)).load(self._group)
        if state is None:
            raise LocalError(f"{self._other(self._asker)} has no membership on its disk")
        address = state.memory.snapshot.member.addresses[0]
        command = ["ping", "-nD", f"-i{PING_INTERVAL}", f"-s{PING_SIZE}", "-W1", address]
        self._pings = self._net.hosts[self._asker].popen(command, stdout=subprocess.PIPE)

    def _stop_pings(self) -> tuple[Reply, ...]:
        if self._pings is None:
            return ()
        offset = boot_time() - time.time()
        self._pings.send_signal(signal.SIGINT)
        output, _ = self._pings.communicate(timeout=5)
        return parse_replies(output, offset)

    def _judge(self, replies: tuple[Reply, ...]) -> Trial:
        until = boot_time()
        hosts = (REGISTRY, self._pair.a, self._pair.b)
        crossings = self._net.crossings(self._started_at)
        addresses = frozenset(self._net.plan.outside(REGISTRY))
        shared = addresses & frozenset(address for host in self._links for address in self._net.plan.outside(host))
        registry = At(addresses, frozenset((PORT,)) if shared else None)
        observed = Observed(
            asker=self._side(self._asker),
            other=self._side(self._other(self._asker)),
            registry=registry,
            crossings=crossings,
            replies=replies,
            until=until,
            window=WINDOW,
            rtt=self._rtt,
            event_at=self._event_at,
            follows_for=self._follows_for,
        )
        names = {
            address: host if not number else f"{host}/{number + 1}"
            for host in hosts
            for number, address in enumerate(self._net.plan.outside(host))
        }
        may_be_relayed = self._pair.fragile and self._net.conditions.loss > 0
        verdict = judge(observed, self._pair.expected, Outcome.RELAY if may_be_relayed else None)
        return Trial(self._pair, verdict, crossings, names, self._output.getvalue())

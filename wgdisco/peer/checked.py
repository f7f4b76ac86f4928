"""A path to another member: by orders of the registry, over the relay at first, and by checks to the best direct way.

::

    Idle ──wanted or ordered──► Punching ──authenticated──► Live(relay) ──a check answered──► Live(direct)
      ▲                           │   ▲                        │    ▲                            │
      └────────── nobody ─────────┘   └─ nothing comes back ───┴────┴────────────────────────────┘

Whoever wants the peer asks for an order and begins a handshake over the relay. With the order both sides send openers,
then checks and (the initiator) initiations to every candidate. What answers first is used; what answers better takes
over. A path in doubt is asked three times, then given up.
"""

import itertools
from collections.abc import Iterable
from dataclasses import replace

from wgdisco.api import CandidateKind, Origin, PathWord, Reason
from wgdisco.endpoint import Endpoint
from wgdisco.keys import PublicKey
from wgdisco.nat import NatProfile, can_punch
from wgdisco.peer.actions import AskOrder, Initiate, LeaveRelay, PathAction, Ping, Probe, SetPeer
from wgdisco.peer.candidate import Candidate
from wgdisco.peer.check import Pinged, Ponged
from wgdisco.peer.checking import Checking
from wgdisco.peer.doubt import UNHEARD, Doubt, Missing
from wgdisco.peer.path import DEAD_AFTER, Idle, Live, Punching, State, path_word
from wgdisco.peer.punch import (
    BETTER_ROUNDS,
    GIVE_UP_AFTER,
    HOLD,
    ORDER_GAP,
    ORDER_TIMEOUT,
    SCHEDULE,
    Attempt,
    Step,
    retry_pause,
)
from wgdisco.peer.ways import Ways
from wgdisco.tunnel.events import PeerStatus
from wgdisco.tunnel.managed import QUIET_AFTER
from wgdisco.tunnel.messages import REJECT_AFTER_TIME, REKEY_ATTEMPT_TIME

# When the peer speaks over the relay, a direct way that has not answered for so long is taken to be broken
UNHEARD_DIRECT = 0.5
# An initiation over the relay that may yet be answered
RELAY_IN_PROGRESS = 0.05
# What answers at all answers an attempt within that time, but for heavy loss
TRYING_FOR = 1.5


class CheckedPath:
    """See the module's docstring. `relay` is where the registry forwards, None while there is none.

    Where the engine has no managed peers (`managed`) handshakes must not cross: nobody begins over the relay before the
    order says who does; and it follows whatever it hears, so that it has to be led back.
    """

    def __init__(self, key: PublicKey, relay: Endpoint | None, *, managed: bool = True) -> None:
        self.key = key
        self.relay = relay
        self._managed = managed
        self._has_session = False
        self.state: State = Idle()
        self.ways = Ways()
        self._checking = Checking(key, self.ways)
        self.is_online = True
        self.nat: NatProfile | None = None
        self.attempt: Attempt | None = None
        self._asked_at = float("-inf")
        self._is_asked = False
        self._relay_due: float | None = None
        self._relayed_at = float("-inf")
        self._wanted_at = float("-inf")
        self._heard_at = float("-inf")
        self._moved_to: Endpoint | None = None
        self._missing = Missing()
        self._doubt = Doubt()
        self._failures = 0
        self._retry_at: float | None = None
        self._alone_at = float("-inf")
        self._actions: list[PathAction] = []

    # What is told

    def set_candidates(self, told: Iterable[Candidate], nat: NatProfile | None, now: float) -> None:
        """What the registry tells of the peer: what is new is tried at once where a path stands or is tried."""
        fresh, self.nat = self.ways.tell(told), nat
        if self.attempt is not None or isinstance(self.state, Live):
            self._actions += self._checking.ask_told(fresh, now)

    def set_lan(self, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """Where the peer says it is on our own network: asked at once, whatever is in use."""
        fresh = [endpoint for endpoint in endpoints if endpoint not in self.ways.lan]
        self.ways.lan = endpoints
        self._actions += self._checking.ask_told(fresh, now)
        if fresh and isinstance(self.state, Punching) and self.attempt is None:
            self._begin(now, is_initiator=True)

    def zone_said(self, endpoint: Endpoint | None, now: float) -> None:
        """The registry has this endpoint for the peer, or (None) hears it no longer."""
        came_back = endpoint is not None and not self.is_online
        moved = endpoint is not None and self._publish(endpoint)
        self.is_online = endpoint is not None
        if came_back or moved:
            self._alone_at = float("-inf")
            match self.state:
                case Punching():
                    self._ask(now)
                case Live() if endpoint is not None:
                    self._actions += self._checking.ask_told([endpoint], now)
                case _:
                    pass

    def set_relay(self, relay: Endpoint | None) -> None:
        """The registry is elsewhere now."""
        if relay != self.relay:
            was, self.relay = self.relay, relay
            match self.state:
                case Live(endpoint, since) if endpoint == was and relay is not None:
                    self._use(relay, since)
                case _:
                    pass

    def ordered(self, candidates: Iterable[Candidate], nat: NatProfile | None, is_initiator: bool, now: float) -> None:
        """The registry's order: the peer begins now, too."""
        self.ways.tell(candidates)
        self.nat = nat
        self.is_online = True
        self._is_asked = False
        reflexive = [one.endpoint for one in self.ways.told if one.kind is CandidateKind.SERVER_REFLEXIVE]
        if reflexive:
            self._publish(reflexive[0])
        if isinstance(self.state, Idle):
            self.state = Punching(now)
        self._begin(now, is_initiator)

    def refused(self, now: float, is_offline: bool) -> None:
        """No order is to be had: the peer is offline, or (else) the registry does not answer."""
        self._is_asked = False
        if is_offline:
            self.is_online = False
        if not isinstance(self.state, Live):
            self._begin_alone(now)

    def set_last_known(self, endpoint: Endpoint) -> None:
        """Where it was before this start."""
        if self.ways.last_known is None:
            self.ways.last_known = endpoint

    # What happens

    def wanted(self, now: float) -> None:
        """Somebody sends to the peer, and there is no session, or nothing was heard in it for long."""
        self._wanted_at = now
        if not isinstance(self.state, Live):
            self.state = self.state if isinstance(self.state, Punching) else Punching(now)
        self._ask(now)

    def restart(self, now: float) -> None:
        """Shake hands anew, since the other side has forgotten us or we have a new key."""
        if not isinstance(self.state, Idle):
            self.state = Punching(now)
            self._wanted_at = now
            self._ask(now)

    def network_changed(self, now: float) -> None:
        """Our own addresses or routes are others: whoever can hear us there shall, and the rest by an order."""
        self._failures, self._retry_at = 0, None
        self._alone_at = float("-inf")
        self.ways.verified.clear()
        if isinstance(self.state, Live):
            if self.state.endpoint != self.relay:
                self._actions += [Probe(self.key, self.state.endpoint), Ping(self.key, self.state.endpoint)]
            self._asked_at = float("-inf")  # an order from before is for where we were
            self._ask(now)

    def silent(self, heard_at: float | None, now: float) -> bool:
        """Data was sent and nothing came back since `heard_at`: ask whether the path stands.

        Not where data flows one way and a check was answered lately. Whether it is in doubt since now.
        """
        if heard_at is not None:
            self._heard_at = max(self._heard_at, heard_at)
        match self.state:
            case Live(endpoint, _) if endpoint == self.relay:
                patience = self._missing.patience(now)
                if now - self._heard_at >= patience + UNHEARD:
                    self.state = Punching(now)
                    self._wanted_at = now
                if now - self._heard_at >= patience:
                    self._missing.asked()
                    self._ask(now)
            case Live() if self._checking.is_spoken and self._doubt.begin(self._heard_at, now):
                self.handle_timer(now)
                return True
            case _:
                pass
        return False

    def authenticated(self, endpoint: Endpoint, now: float) -> bool:
        """WireGuard heard the peer from `endpoint`; True when that is news."""
        self._heard_at = now
        is_relayed = endpoint == self.relay
        self._missing.heard(now)
        if not is_relayed:
            self.ways.last_known = endpoint
            self._learn(endpoint, now)
        match self.state:
            case Live(current, _) if current == endpoint:
                return False
            case Live(current, since) if is_relayed:
                # the peer cannot hear us where we are, or has not found it yet: see whether it answers there
                if not self._managed:
                    self._actions.append(SetPeer(self.key, current, 0))
                    self._leave_relay()
                answered = self.ways.verified.get(current)
                if now - max(since, float("-inf") if answered is None else answered.at) > UNHEARD_DIRECT:
                    self._use(endpoint, now)
                self._ping(current, now)
                return False
            case Live(current, _) if current != self.relay and endpoint == self._moved_to:
                self._use(endpoint, now)  # the registry saw it move there, and now we hear it: where it was it is not
            case Live(current, _):
                # that it is heard from there does not say that it is reached there
                self._actions.append(self._checking.ask_elsewhere(endpoint, now))
                return False
            case _:
                self._use(endpoint, now)
        best = self.ways.best(now)
        if is_relayed and best is not None:
            self._use(best.endpoint, now)
        elif not is_relayed and endpoint not in self.ways.verified:
            self._actions.append(Ping(self.key, endpoint))
        return True

    def pinged(self, ping: Pinged) -> None:
        """The peer asks from there."""
        self._learn(ping.source, ping.at)
        self._actions += self._checking.asked(ping)

    def ponged(self, pong: Ponged) -> None:
        """The peer answers there: use it, if it is better than what is used."""
        endpoint, now = pong.endpoint, pong.at
        self._checking.answered(pong)
        self._learn(endpoint, now)
        match self.state:
            case Live(current, _) if current == endpoint:
                self._doubt.answered(now)
                self.ways.last_known = endpoint
            case Live(current, _) if current == self.relay:
                self._use(endpoint, now)
            case Live(current, _):
                self._compare(current, now)
            case Punching() if self._has_session and not self._managed:
                self._use(endpoint, now)  # such an engine begins no handshake while it has a session
            case Punching() if self.attempt is not None and self.attempt.is_initiator:
                self._actions.append(Initiate(self.key, (endpoint,)))
            case _:
                pass

    def observe(self, status: PeerStatus, now: float) -> bool:
        """Look at the device's counters; True when the path is another than before."""
        if status.received_at is not None:
            self._heard_at = max(self._heard_at, status.received_at)
        expired = status.handshake_at is None or now - status.handshake_at >= REJECT_AFTER_TIME
        self._has_session = not expired
        since = status.unanswered_since
        match self.state:
            case Live() if expired:
                self.state = Idle()
                return True
            case Live(endpoint, _) if status.endpoint is not None and status.endpoint != endpoint:
                self._device_moved(endpoint, status.endpoint, now)
                return True
            case Live() if since is not None and now - since >= DEAD_AFTER and self._heard_at < since:
                self.state = Punching(now)
                self._wanted_at = now
                self._ask(now)
                return True
            case Punching() if self.attempt is None and not self._is_asked:
                if now - self._wanted_at >= REKEY_ATTEMPT_TIME:
                    self.state = Idle(was_live=self.ways.last_known is not None)
                    return True
                if now - self._asked_at >= GIVE_UP_AFTER:
                    self._ask(now)
            case _:
                pass
        return False

    def handle_timer(self, now: float) -> None:
        """Do what is due; early or repeated calls are harmless."""
        if self._relay_due is not None and now >= self._relay_due:
            self._relay_due = None
            if self.relay is not None and self._needs_session(now):
                self._relayed_at = now
                self._actions.append(Initiate(self.key, (self.relay,)))
        if self._is_asked and now >= self._asked_at + ORDER_TIMEOUT:
            self._is_asked = False
            self._begin_alone(now)
        if self._checking.is_settled(now) and isinstance(self.state, Live):
            self._compare(self.state.endpoint, now, is_final=True)
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            if isinstance(self.state, Live) and now - self._heard_at < QUIET_AFTER:
                self._ask(now)
        self._handle_doubt(now)
        self._handle_attempt(now)

    def get_timer(self) -> float | None:
        """When `handle_timer` has something to do."""
        deadlines = [self._relay_due, self._checking.get_timer(), self._retry_at, self._doubt.get_timer(self.rtt())]
        if self.attempt is not None:
            deadlines.append(self.attempt.get_timer())
        if self._is_asked:
            deadlines.append(self._asked_at + ORDER_TIMEOUT)
        return min((at for at in deadlines if at is not None), default=None)

    def actions(self) -> list[PathAction]:
        """What is to be done; each is returned once."""
        actions, self._actions = self._actions, []
        return actions

    # What there is to see

    @property
    def is_silent(self) -> bool:
        """Never told by silence: nothing keeps these paths open."""
        return False

    def is_trying(self, now: float) -> bool:
        """Whether most of what will answer may yet do so."""
        since = self._asked_at if self._is_asked else None if self.attempt is None else self.attempt.since
        return since is not None and now - since < TRYING_FOR

    @property
    def published(self) -> Endpoint | None:
        """Where the registry last saw it."""
        return self.ways.published

    def candidates(self) -> tuple[Endpoint, ...]:
        """Endpoints to try, the best first."""
        return self.ways.all(but=self.relay)

    def origin(self, endpoint: Endpoint | None) -> Origin | None:
        """Where this endpoint of the peer came from."""
        if endpoint is None:
            return None
        told = endpoint == self.ways.published or self.ways.is_told(endpoint)
        return Origin.ZONE if told or endpoint == self.relay else Origin.PACKET

    def word(self) -> PathWord:
        """The path in one word."""
        return path_word(self.state, is_relayed=isinstance(self.state, Live) and self.state.endpoint == self.relay)

    def reason(self, registry_reachable: bool, own_nat: NatProfile | None = None) -> Reason | None:
        """Why it is neither direct nor lan; None when it is."""
        match self.state:
            case Live(endpoint, _) if endpoint == self.relay:
                if own_nat is not None and self.nat is not None and can_punch(own_nat, self.nat) is False:
                    return Reason.BOTH_PORT_DEPENDENT
                return Reason.NO_UDP_ANSWER
            case Live():
                return None
            case Idle(was_live):
                return Reason.PEER_OFFLINE if was_live or not self.is_online else Reason.NOT_YET_TRIED
            case Punching():
                if not registry_reachable:
                    return Reason.REGISTRY_UNREACHABLE
                return Reason.NO_UDP_ANSWER if self.is_online else Reason.PEER_OFFLINE

    # What follows

    def _direct(self) -> Endpoint | None:
        """The endpoint in use, where that is not the relay."""
        in_use = self.state.endpoint if isinstance(self.state, Live) else None
        return None if in_use == self.relay else in_use

    def _needs_session(self, now: float) -> bool:
        """Whether there is none, or one so long unheard that the relay knows nothing of it."""
        if not isinstance(self.state, Live):
            return True
        return self.state.endpoint == self.relay and now - self._heard_at >= UNHEARD

    def _ask(self, now: float) -> None:
        """Ask for an order, and begin over the relay meanwhile; not more often than ORDER_GAP."""
        if now - self._asked_at < ORDER_GAP:
            return
        self._asked_at, self._is_asked = now, True
        self._actions.append(AskOrder(self.key))
        self._relay_due = now + HOLD if self._managed else None

    def _ping(self, endpoint: Endpoint, now: float) -> None:
        self._actions.append(self._checking.ask(endpoint, now))

    def _publish(self, endpoint: Endpoint) -> bool:
        """The registry sees the peer there; whether that is elsewhere than before."""
        moved = self.ways.published not in (None, endpoint)
        self.ways.published = endpoint
        if moved:
            self._moved_to = endpoint
        return moved

    def _begin(self, now: float, is_initiator: bool) -> None:
        self.attempt = Attempt(now, is_initiator)
        self._retry_at = None
        self.ways.verified.clear()
        self._handle_attempt(now)

    def _begin_alone(self, now: float) -> None:
        """Without an order: the other side may be gone, so not more often than a NAT needs to forget."""
        if self.attempt is None and now >= self._alone_at:
            self._alone_at = now + GIVE_UP_AFTER + retry_pause(1)
            self._begin(now, is_initiator=True)

    def _handle_attempt(self, now: float) -> None:
        while self.attempt is not None and now >= self.attempt.get_timer():
            attempt = self.attempt
            if attempt.step == len(SCHEDULE):
                self._give_up(now)
                return
            self.attempt = replace(attempt, step=attempt.step + 1)
            if attempt.step + 1 < len(SCHEDULE) and now >= attempt.since + SCHEDULE[attempt.step + 1].at + 1.0:
                continue  # what was missed (a suspend) is not made up for
            self._do(SCHEDULE[attempt.step], attempt, now)

    def _do(self, step: Step, attempt: Attempt, now: float) -> None:
        candidates = self.candidates()
        if step.ttl is not None:
            for endpoint in candidates:
                if not endpoint.is_private:
                    self._actions.append(Ping(self.key, endpoint, step.ttl))
            return
        direct = self._direct()
        if direct in self.ways.verified:
            better = itertools.takewhile(lambda endpoint: endpoint != direct, candidates)
            candidates = tuple(endpoint for endpoint in better if endpoint not in self.ways.verified)
            if not candidates or step.round >= BETTER_ROUNDS:
                self.attempt = None
                self._failures = 0
                return
        for endpoint in candidates:
            if endpoint not in self.ways.verified:
                self._ping(endpoint, now)
        if attempt.is_initiator and self._needs_session(now):
            # the relay was tried when the order was asked for, a private address answers checks or is not the peer's
            relay = () if self.relay is None or now - self._relayed_at < RELAY_IN_PROGRESS else (self.relay,)
            near = self.ways.lan if self.relay is not None else candidates
            ways = tuple(endpoint for endpoint in candidates if not endpoint.is_private or endpoint in near)
            if relay or ways:
                self._actions.append(Initiate(self.key, (*relay, *ways)))

    def _give_up(self, now: float) -> None:
        """The attempt found nothing direct."""
        self.attempt = None
        match self.state:
            case Live(endpoint, _) if endpoint == self.relay:
                self._failures += 1
                self._retry_at = now + retry_pause(self._failures)
            case Punching() if now - self._wanted_at >= REKEY_ATTEMPT_TIME:
                # the other side wanted us, and did not come
                self.state = Idle(was_live=self.ways.last_known is not None)
            case Punching() if not self.is_online and self.relay is not None:
                # so that WireGuard's own retries, each 5 s, do not go on knocking where it was
                self._actions.append(SetPeer(self.key, self.relay, 0))
            case _:
                pass

    def _handle_doubt(self, now: float) -> None:
        if not isinstance(self.state, Live) or self.state.endpoint == self.relay:
            self._doubt.end()
            return
        for _ in range(self._doubt.pings_due(now)):
            self._actions.append(Ping(self.key, self.state.endpoint))
        if self._doubt.is_lost(self.rtt(), now):
            self.ways.verified.pop(self.state.endpoint, None)
            self.state = Punching(now)
            self._wanted_at = now
            self._asked_at = float("-inf")
            self._ask(now)

    def rtt(self) -> float:
        """The round trip of the way in use, in seconds; 0 where it is not known."""
        known = self.ways.verified.get(self.state.endpoint) if isinstance(self.state, Live) else None
        return 0.0 if known is None else known.rtt

    def _use(self, endpoint: Endpoint, now: float) -> None:
        """Send there from now on."""
        self.state = Live(endpoint, now)
        self._moved_to = None
        self._doubt.end()
        self._alone_at = float("-inf")
        self._actions.append(SetPeer(self.key, endpoint, 0))
        if endpoint != self.relay:
            self.ways.last_known = endpoint
            self._failures, self._retry_at = 0, None
            self._leave_relay()

    def _leave_relay(self) -> None:
        if not self._managed and self.relay is not None:
            self._actions.append(LeaveRelay(self.key))

    def _device_moved(self, used: Endpoint, endpoint: Endpoint, now: float) -> None:
        """The device followed the peer from where nothing came any more; the relay is left only for what answers."""
        if used == self.relay:
            self._actions.append(SetPeer(self.key, used, 0))
        elif endpoint == self.relay:  # an engine that follows all it hears: what was under way may have led it there
            self._actions.append(SetPeer(self.key, used, 0))
            endpoint = used
        else:
            self.state = Live(endpoint, now)
        self._ping(endpoint, now)

    def _compare(self, current: Endpoint, now: float, is_final: bool = False) -> None:
        match self._checking.compare(current, now, is_final):
            case Endpoint() as better:
                self._use(better, now)
            case Ping() as check:
                self._actions.append(check)

    def _learn(self, endpoint: Endpoint, now: float) -> None:
        if endpoint != self.relay:
            self.ways.learn(endpoint, now)

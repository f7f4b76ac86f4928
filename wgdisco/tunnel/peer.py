"""One remote peer: its handshake, sessions, timers, staged packets and endpoint.

A peer is told things and leaves what follows in `outbox` and `events`, which its device drains. What all peers of a
device share is its `Local`.
"""

from wgdisco.endpoint import Endpoint
from wgdisco.keys import PresharedKey, PublicKey
from wgdisco.tunnel import noise
from wgdisco.tunnel.burst import Burst, Frames, OwnAddress
from wgdisco.tunnel.config import PeerConfig
from wgdisco.tunnel.events import Drop, Event, HandshakeStep, PathSeen, PeerHandshake, PeerSilent, PeerWanted
from wgdisco.tunnel.handshake import Handshake, Pending
from wgdisco.tunnel.lanes import Carried, Lane
from wgdisco.tunnel.local import Local
from wgdisco.tunnel.managed import DOUBT_AFTER, MANAGED_GAP, MAX_FAN_OUT, QUIET_AFTER, Liberties, renewal_lag
from wgdisco.tunnel.messages import (
    INITIATION_SIZE,
    MAX_HANDSHAKE_ATTEMPTS,
    REJECT_AFTER_TIME,
    REKEY_AFTER_TIME,
    REKEY_TIMEOUT,
    RESPONSE_SIZE,
    CookieReply,
    Response,
)
from wgdisco.tunnel.outbox import Outbox
from wgdisco.tunnel.roaming import Roaming
from wgdisco.tunnel.session import Session, SessionSlots
from wgdisco.tunnel.staged import StagedPackets
from wgdisco.tunnel.timers import Timer, Timers

_KEEPALIVE = Frames.of(b"")


class Peer:
    """The state machine of one peer. All times are the device's clock."""

    def __init__(self, local: "Local[Peer]", key: PublicKey) -> None:
        self.key = key
        self.is_running = True  # else it is deaf to handshakes
        self.preshared_key: PresharedKey | None = None
        self.roaming = Roaming(local.relays)
        self.timers = Timers()
        self.outbox = Outbox(local)
        self.events: list[Event] = []
        self.rx_bytes = 0
        self.handshake_at: float | None = None
        self.handshake_unix: float | None = None
        self.received_at: float | None = None
        self.unanswered_since: float | None = None
        self._local = local
        self._handshake = Handshake(key, local.random_bytes)
        self._sessions = SessionSlots()
        self._staged = StagedPackets()
        self._wanted_at = 0.0
        self._liberties: Liberties | None = None  # a plain peer takes none
        self._initiation_sent_at: float | None = None
        self._rekey_tried: Session | None = None
        self._on_lane: Session | None = None
        self._renewal_lag = 0.0
        self.refresh_static()

    @property
    def endpoint(self) -> Endpoint | None:
        """Where its packets go."""
        return self.roaming.endpoint

    @property
    def managed(self) -> bool:
        """Whether it may do what formats.md allows beyond the letter."""
        return self._liberties is not None

    # What we are told

    def refresh_static(self) -> None:
        """Our private key changed (rule H4)."""
        self._handshake.use_key(self._local.private_key)
        self._set_renewal_lag()

    def update(self, config: PeerConfig, now: float) -> None:
        """Take over what is configurable; sessions stay (rule H15)."""
        self.preshared_key = config.preshared_key
        if config.managed != self.managed:
            self._set_managed(config.managed)
        self.set_endpoint(config.endpoint or self.endpoint, config.persistent_keepalive, now)

    def set_endpoint(self, endpoint: Endpoint | None, keepalive: int, now: float) -> None:
        """Set endpoint and keepalive; a keepalive goes out at once when it was off or had nowhere to go (rule T9)."""
        starts = keepalive > 0 and (not self.timers.persistent_keepalive or self.endpoint is None)
        self.roaming.set(endpoint, now)
        self.timers.set_persistent_keepalive(keepalive)
        if starts and endpoint is not None:
            self._send_keepalive(now)

    def send(self, frames: Frames, now: float) -> None:
        """Send packets in the current session, or stage them and begin a handshake."""
        session = self._sessions.current
        if session is not None and session.is_usable(now):
            self._transmit(session, frames, now)
            if self.roaming.is_checked:
                self._doubt(now)
        else:
            self._stage(frames, now)
            self._begin_handshake(now)

    def initiate(self, endpoints: tuple[Endpoint, ...], now: float) -> None:
        """Send an initiation to several endpoints; the same bytes again while it is young and unanswered."""
        if self._initiation_sent_at is not None and now - self._initiation_sent_at < MANAGED_GAP:
            return
        pending = self._handshake.pending
        if pending is None or now - pending.created_at >= REKEY_TIMEOUT:
            pending = self._create_initiation(now)
        if pending is not None:
            self._output_initiation(pending, endpoints[:MAX_FAN_OUT], now)

    def probe(self, endpoint: Endpoint, now: float) -> None:
        """An authenticated keepalive to `endpoint`; the peer's own endpoint stays as it is."""
        session = self._sessions.current
        if session is not None and session.is_usable(now):
            local = self.roaming.local if endpoint == self.endpoint else None
            self.outbox.seal(session, _KEEPALIVE, endpoint, local)
            self.timers.authenticated_packet_sent(now)

    def expire_sending(self) -> None:
        """Our private key changed: nothing more goes out in the old sessions, which still receive (rule H16)."""
        for session in (self._sessions.current, self._sessions.next):
            if session is not None:
                session.receive_only = True
        self.leave_lane()
        self._forget_pending()
        self._handshake.sent_at = None

    def send_staged(self, now: float) -> None:
        """Send what waits, or begin the handshake it needs (rule U11)."""
        if self._staged and not self._flush_staged(now):
            self._begin_handshake(now)

    def resume(self, now: float) -> None:
        """The interface is up, or our first private key is there: what waited for it begins (rule T9)."""
        if self._staged or self.timers.persistent_keepalive:
            self._begin_handshake(now)

    def forget_sessions(self) -> None:
        """Keys and a handshake under way are wiped (rule Z1); the peer, its timers and what is staged stay."""
        self._clear_keys()
        self.timers.keys_cleared()

    def remove(self) -> None:
        """The peer is no more: nothing of it stays that could open anything (rule Z1)."""
        self.stop()
        self._handshake.use_key(None)

    def stop(self) -> None:
        """The interface is down: keys, indices and staged packets go (rule T12)."""
        self._staged.clear()
        self._clear_keys()
        self._handshake.sent_at = self.unanswered_since = None
        self.timers.stop()

    # What the network brings

    def verify_initiation(self, opened: noise.OpenedInitiation) -> noise.ResponderState | None:
        """Check that an initiation in this peer's name is its own."""
        return self._handshake.verify_initiation(opened) if self.is_running else None

    def consume_initiation(
        self, state: noise.ResponderState, message: bytes, source: Endpoint, local: OwnAddress | None, now: float
    ) -> None:
        """Answer a verified initiation, which came to `local` (rules H9 and H10)."""
        why = self._handshake.refuses(state, now)
        if why is not None:
            if why is not Drop.REPLAYED_INITIATION or not self._repeat_response(message, source, local, now):
                self._local.drops[why] += 1
            return
        index = self._local.free_index()
        made = self._handshake.create_response(state, self.preshared_key, index, now)
        if made is None:
            self._local.drops[Drop.BAD_INITIATION] += 1
            return
        session, response = made
        self._local.indices[index] = (self, session)
        for dropped in self._sessions.add_as_responder(session):
            self._free(dropped)
        self._authenticated(INITIATION_SIZE, source, local, now)
        self.timers.session_derived(now)
        self._trace("initiation received, response sent")
        if self._liberties is not None:
            self._liberties.answered(message, response, now)
        self._output_handshake(response, source, local, now)

    def consume_response(
        self, state: noise.InitiatorState, response: Response, source: Endpoint, local: OwnAddress | None, now: float
    ) -> None:
        """Finish our own handshake: the session is ours to use, and a packet in it confirms it to the other side."""
        session = self._handshake.consume_response(state, response, self.preshared_key, now)
        if session is None:
            self._local.drops[Drop.BAD_RESPONSE] += 1
            return
        self._trace("response received")
        self._local.indices[state.index] = (self, session)
        for dropped in self._sessions.add_as_initiator(session):
            self._free(dropped)
        self._authenticated(RESPONSE_SIZE, source, local, now)
        self.timers.session_derived(now)
        self._handshake_complete(source, now)
        if not self._flush_staged(now):
            self._send_keepalive(now)
        if self._liberties is not None:
            self.timers.confirmation_sent(now, self._liberties.confirmation_sent(session))

    def consume_cookie(self, reply: CookieReply, now: float) -> None:
        """Keep a cookie for the next retry; it moves no endpoint and is no sign of life (rules C6 and C7)."""
        if not self._handshake.consume_cookie(reply, now):
            self._local.drops[Drop.BAD_COOKIE] += 1
        else:
            self._trace("cookie received: the next initiation carries it")

    def receive(self, session: Session, datagrams: Burst, source: Endpoint, now: float) -> list[Frames]:
        """Open transport data; the packets in it, keepalives left out. Order of checks: rule D5."""
        if not session.accepts(now):
            self._local.drops[Drop.SESSION_EXPIRED] += datagrams.count
            return []
        local = self._local
        received = session.open(datagrams, local.room, tcp=local.merges_tcp, udp=local.merges_udp)
        local.note_drops(received)
        if not received.rows:
            return []
        confirmed = self._sessions.confirm(session)
        liberties = self._liberties
        if liberties is not None:
            self._sessions.heard = session
        if confirmed is not None:
            for dropped in confirmed:
                self._free(dropped)
        self._authenticated(received.size, source, datagrams.local, now)
        self._note_path(source, now)
        if liberties is not None and session is liberties.unconfirmed:
            liberties.unconfirmed = None
            self.timers.confirmation_seen()
        if confirmed is not None:
            self._handshake_complete(source, now)
            if not self._flush_staged(now) and (self._staged or liberties is not None):
                # The initiator has only our response so far: let it see that data comes through too.
                self._send_keepalive(now)
        self._renew_in_time(now)
        if received.packets:
            self.timers.data_received(now, received.packets)
        return received.frames

    def lane(self, now: float) -> Lane | None:
        """For as long as nothing else happens: what its packets may go by, both ways; None while each may matter."""
        session, liberties = self._sessions.current, self._liberties
        if session is None or not session.is_usable(now) or not self.roaming.is_settled or self._staged:
            return None
        if liberties is not None and liberties.unconfirmed is session:
            return None
        until = session.created_at + (REKEY_AFTER_TIME + self._renewal_lag if session.initiator else REJECT_AFTER_TIME)
        if now >= until:
            return None
        self._on_lane = session
        return Lane(session, until, self.timers.is_armed(Timer.SEND_KEEPALIVE))

    def leave_lane(self) -> None:
        """Something else happens."""
        if self._on_lane is not None:
            self._on_lane.leave_lane()
            self._on_lane = None

    def carried(self, session: Session, what: Carried) -> None:
        """That went by the lane of a session."""
        self.outbox.tx_bytes += what.tx_bytes
        self.rx_bytes += what.rx_bytes
        if what.received_at is not None:
            self.received_at = what.received_at
            self.roaming.heard_again(what.received_at)
            if self._liberties is not None:
                self._sessions.heard = session
        self.timers.carried(what.sent_at, what.received_at, what.waiting_at, what.more)
        if what.unanswered_at is not None:
            if not self.timers.is_armed(Timer.NEW_HANDSHAKE):
                self.timers.data_sent(what.unanswered_at, self._local.jitter())
            if self.roaming.is_checked:
                self._doubt(what.unanswered_at)

    def handle_timer(self, now: float) -> None:
        """Do what is due; early or repeated calls are harmless."""
        for timer in self.timers.expire(now):
            match timer:
                case Timer.RETRANSMIT_HANDSHAKE:
                    self._retransmit(now)
                case Timer.SEND_KEEPALIVE:
                    self._send_keepalive(now)
                    self.timers.keepalive_due(now)
                case Timer.NEW_HANDSHAKE:
                    self._trace("no answer to data: a new handshake begins")
                    self.roaming.local = None  # rule T6
                    self._begin_handshake(now)
                case Timer.ZERO_KEY:
                    self._trace("no new session: keys wiped")
                    self._clear_keys()
                case Timer.PERSISTENT_KEEPALIVE:
                    self._send_keepalive(now)
                case Timer.DOUBT:
                    self.events.append(PeerSilent(self.key, self.received_at, now))

    # What follows from it

    def _set_managed(self, managed: bool) -> None:
        if self._liberties is not None and self._liberties.unconfirmed is not None:
            self.timers.confirmation_seen()  # or the timer would be taken for an initiation's
        self._liberties = Liberties() if managed else None
        self.roaming.is_managed = managed
        self._set_renewal_lag()

    def _set_renewal_lag(self) -> None:
        self._renewal_lag = renewal_lag(self._local.public_key, self.key) if self.managed else 0.0

    def _authenticated(self, size: int, source: Endpoint, local: OwnAddress | None, now: float) -> None:
        """Something authenticated came: the endpoint follows it (rule E1)."""
        self.rx_bytes += size
        self.roaming.heard(source, local, now)
        self.received_at = now
        self.timers.authenticated_packet_received(now)

    def _note_path(self, source: Endpoint, now: float) -> None:
        if self.roaming.is_new_source(source):
            self.events.append(PathSeen(self.key, source, now))

    def _doubt(self, now: float) -> None:
        """Data goes out in a session that stands; whether it arrives is another matter.

        A hole that nothing came through for QUIET_AFTER may have closed: then somebody wants the peer anew. Otherwise
        something should come back within DOUBT_AFTER, or be asked for.
        """
        is_quiet = self.received_at is not None and now - self.received_at >= QUIET_AFTER
        if is_quiet and not self.timers.persistent_keepalive and now - self._wanted_at >= 1.0:
            self._wanted_at = now
            self.events.append(PeerWanted(self.key, now))
        self.timers.doubt(now, DOUBT_AFTER)

    def _handshake_complete(self, source: Endpoint, now: float) -> None:
        self.timers.handshake_complete()
        self.unanswered_since = None
        self.handshake_at = now
        self.handshake_unix = self._local.unix_time()
        self.events.append(PeerHandshake(self.key, source, now))

    def _renew_in_time(self, now: float) -> None:
        """Rule T10 on receiving, in whatever session: the one we send in is renewed, tried once."""
        session = self._sessions.current
        if session is None or session is self._rekey_tried:
            return
        if session.wants_rekey_after_receive(now):
            self._rekey_tried = session
            self._begin_handshake(now)

    def _stage(self, frames: Frames, now: float) -> None:
        if not self._staged or now - self._wanted_at >= REKEY_TIMEOUT:
            self._wanted_at = now
            self.events.append(PeerWanted(self.key, now))
        given_up = self._staged.add(frames, now)
        if given_up:
            self._local.drops[Drop.STAGED_OVERFLOW] += given_up

    def _flush_staged(self, now: float) -> bool:
        """Send what is staged and not too old to matter; whether anything was sent."""
        session = self._sessions.current
        if session is None or not session.is_usable(now):
            return False
        sent = False
        for frames in self._staged.take(now):
            self._transmit(session, frames, now)
            sent = True
        return sent

    def _transmit(self, session: Session, frames: Frames, now: float) -> None:
        if not self.outbox.seal(session, frames, self.endpoint, self.roaming.local):
            return
        if frames is not _KEEPALIVE and not self.timers.is_armed(Timer.NEW_HANDSHAKE):
            self.timers.data_sent(now, self._local.jitter())  # which is a system call
        self.timers.authenticated_packet_sent(now)
        if session.wants_rekey_after_send(now - self._renewal_lag):
            self._begin_handshake(now)

    def _send_keepalive(self, now: float) -> None:
        session = self._sessions.current
        if session is not None and session.is_usable(now):
            self._transmit(session, _KEEPALIVE, now)
        else:
            self._begin_handshake(now)

    def _confirm_again(self, liberties: Liberties, now: float) -> None:
        session = self._sessions.current
        if session is liberties.unconfirmed and session is not None and session.is_usable(now):
            self._transmit(session, _KEEPALIVE, now)
        pause = liberties.confirmation_repeated()
        if pause is not None:
            self.timers.confirmation_sent(now, pause)

    def _retransmit(self, now: float) -> None:
        if self._liberties is not None and self._liberties.unconfirmed is not None:
            self._confirm_again(self._liberties, now)
            return
        if self.endpoint is None:
            self.unanswered_since = None  # who initiated to several endpoints decides about the next attempt
            return
        if self.timers.attempts > MAX_HANDSHAKE_ATTEMPTS:
            self._trace(f"no response to {self.timers.attempts + 1} initiations: given up")
            self._staged.clear()
            self.unanswered_since = None
            self.timers.handshake_given_up(now)
            return
        self.timers.attempts += 1
        self.roaming.local = None  # rule T4
        self._begin_handshake(now, retry=True)

    def _begin_handshake(self, now: float, retry: bool = False) -> None:
        """Send an initiation to the endpoint, at most one in 5 s (rule H17)."""
        if not retry:
            self.timers.attempts = 0
        if self.endpoint is None or not self._handshake.is_possible:
            return
        sent_at = self._handshake.sent_at
        if sent_at is not None and now - sent_at < REKEY_TIMEOUT:
            self.timers.handshake_held_back(sent_at, self._local.jitter())
            return
        pending = self._create_initiation(now)
        if pending is not None:
            self._output_initiation(pending, (self.endpoint,), now)

    def _create_initiation(self, now: float) -> Pending | None:
        local = self._local
        if not local.is_up or not self._handshake.is_possible:
            return None
        self._forget_pending()
        if self._liberties is not None:
            self._liberties.unconfirmed = None
        pending = self._handshake.create_initiation(local.free_index(), local.handshake_time(), now)
        if pending is None:
            return None
        local.indices[pending.state.index] = (self, pending.state)
        if self.unanswered_since is None:
            self.unanswered_since = now
        self.timers.handshake_initiated(now, local.jitter())
        return pending

    def _output_initiation(self, pending: Pending, endpoints: tuple[Endpoint, ...], now: float) -> None:
        self._initiation_sent_at = now
        self._trace("initiation sent")
        for endpoint in endpoints:
            local = self.roaming.local if endpoint == self.endpoint else None
            self._output_handshake(pending.message, endpoint, local, now)

    def _repeat_response(self, message: bytes, source: Endpoint, local: OwnAddress | None, now: float) -> bool:
        """Whether this was an initiation said again, and our response is too."""
        response = None if self._liberties is None else self._liberties.response_to(message, now)
        if response is None:
            return False
        self._handshake.sent_at = now
        self._output_handshake(response, source, local, now)
        return True

    def _trace(self, what: str) -> None:
        if self._local.traces:
            self.events.append(HandshakeStep(self.key, what))

    def _output_handshake(self, message: bytes, endpoint: Endpoint, local: OwnAddress | None, now: float) -> None:
        self.outbox.put_handshake(message, endpoint, local)
        self.timers.authenticated_packet_sent(now)

    def _forget_pending(self) -> None:
        index = self._handshake.forget_pending()
        if index is not None:
            self._local.indices.pop(index, None)

    def _free(self, session: Session) -> None:
        self._local.indices.pop(session.index, None)
        session.close()

    def _clear_keys(self) -> None:
        self._forget_pending()
        if self._liberties is not None:
            self._liberties.clear()
        self._rekey_tried = None
        for session in self._sessions.clear():
            self._free(session)

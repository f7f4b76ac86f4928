"""Our own engine as a Backend: the device's core between a TUN interface and a pair of UDP sockets, in this process."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import SuspendWatch
from wgdisco.tunnel.burst import Burst
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.device import Device
from wgdisco.tunnel.events import DeviceGone, DeviceStatus, Event
from wgdisco.tunnel.frames import Frames
from wgdisco.tunnel.io.backend import Capabilities
from wgdisco.tunnel.io.beside import BesideSockets
from wgdisco.tunnel.io.icmp import BehindNat
from wgdisco.tunnel.io.lane_loop import LaneLoop
from wgdisco.tunnel.io.lanes import Lanes, can_have_lanes
from wgdisco.tunnel.io.link_state import LinkEvent, watch
from wgdisco.tunnel.io.segments import limit_segments
from wgdisco.tunnel.io.tun import InterfaceGoneError, Tun
from wgdisco.tunnel.io.udp import A_CALL, UdpSockets
from wgdisco.tunnel.messages import DEFAULT_MTU
from wgdisco.tunnel.offloads import ALL, Offloads

LOG = logging.getLogger(__name__)

CALLS_A_TURN = 8
ENOUGH = 1 << 16  # bytes of one call that no other is to follow in the same turn
HANDSHAKES_A_TURN = 8


class Engine:
    """A device on `interface`. Make it with `open`, inside a running loop."""

    capabilities = Capabilities(
        initiate_many=True,
        managed=True,
        probe_via=True,
        raw_send=True,
        raw_receive=True,
        ttl=True,
        event_latency=0.0,
    )

    def __init__(
        self,
        tun: Tun,
        udp: UdpSockets | BesideSockets,
        mtu: int,
        handshake_time: Callable[[], float] = time.time,
        *,
        relays: bool = False,
        traces: bool = False,
    ) -> None:
        self.interface = tun.name
        self._tun = tun
        self._udp = udp
        self._device = Device(os.urandom, time.time, handshake_time, relays=relays, traces=traces)
        self._device.set_mtu(mtu)
        self._device.set_merging(tcp=tun.takes_tcp, udp=tun.takes_udp)
        self._device.set_listen_port(udp.port)
        limit_segments(tun, mtu)
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self._handshakes: asyncio.Handle | None = None
        self._is_up = True
        self._suspensions = SuspendWatch()
        self._behind_nat = BehindNat(tun)
        self._closed = False
        self._offloads = ALL
        self._lanes = self._make_lanes()
        self._loop.add_reader(tun.fd, self._tun_readable)
        self._loop.add_reader(udp.routes_fd, self._routes_changed)
        self._listen()

    @classmethod
    async def open(
        cls,
        interface: str,
        mtu: int = DEFAULT_MTU,
        listen_port: int = 0,
        handshake_time: Callable[[], float] = time.time,
        *,
        relays: bool = False,
        traces: bool = False,
        tun_fd: int | None = None,
        offloads: Offloads = ALL,
        beside: bool = False,
    ) -> "Engine":
        """Create the interface and the sockets; LocalError when the machine does not let us.

        `handshake_time` is what the timestamps of initiations are made of. `tun_fd` is an open TUN interface to use
        instead, whatever its name. `offloads` are used as far as the kernel has them. `beside` another WireGuard of the
        same key, which has the port, it goes on until `take_port`.
        """
        tun = Tun.open(interface, offloads) if tun_fd is None else Tun.adopt(tun_fd, offloads)
        try:
            udp = BesideSockets.open(listen_port) if beside else _sockets(listen_port, offloads)
            engine = cls(tun, udp, mtu, handshake_time, relays=relays, traces=traces)
            engine._offloads = offloads
            return engine
        except BaseException:
            tun.close()
            raise

    # Backend

    def apply(self, config: DeviceConfig) -> None:
        """Make the device as `config` says; another port is bound before anything else is changed. 0 keeps the port."""
        if config.listen_port:
            self.set_listen_port(config.listen_port)
        self.set_fwmark(config.fwmark)
        self._device.apply(replace(config, listen_port=self._udp.port), self.now())
        self.settle()

    def set_listen_port(self, port: int) -> None:
        """Listen on `port`, or for 0 on another that is free; LocalError when it is taken. Sessions survive (E5)."""
        if port == self._udp.port and (self._udp.fds or not self._is_up):
            return
        self._bind(port)
        self._device.set_listen_port(self._udp.port)

    def hear_beside(self) -> None:
        """Of one that was opened `beside` another: it answers from now on, and did not before."""
        if isinstance(self._udp, BesideSockets):
            self._udp.hear()
            self._listen()

    def take_port(self) -> bool:
        """Have the port that another WireGuard had until now; False while it has it. No datagram is missed."""
        before = self._udp
        if not isinstance(before, BesideSockets):
            return True
        try:
            udp = _sockets(before.port, self._offloads)
            udp.set_fwmark(before.fwmark)
        except LocalError:
            return False
        self._unlisten()
        self._loop.remove_reader(before.routes_fd)
        self._udp = udp
        self._loop.add_reader(udp.routes_fd, self._routes_changed)
        self._listen()
        now = self.now()
        for datagrams, source in before.rest():  # what came twice is a replay
            self._device.receive(datagrams, source, now)
        before.close()
        self._after_packets(now)
        return True

    def set_fwmark(self, mark: int) -> None:
        """Mark what is sent (rule E4); LocalError when that is not permitted."""
        self._udp.set_fwmark(mark)
        self._device.set_fwmark(mark)
        self._leave_lanes()

    @property
    def device(self) -> Device:
        """The core, for whoever changes it piece by piece; `settle` after telling it anything."""
        self._leave_lanes()
        return self._device

    def now(self) -> float:
        """The device's clock. The first look at it after a suspension wipes what was agreed before (rule T11)."""
        now, suspended = self._suspensions.look()
        if suspended:
            LOG.info("the machine was suspended: new handshakes", extra={"fields": {"seconds": round(suspended)}})
            self._device.forget_sessions()
            self._disarm()  # it waits by the other clock
        return now

    def settle(self) -> None:
        """Carry out what the core has to send, and arm its next deadline."""
        self._leave_lanes()
        self._settle()

    def _settle(self) -> None:
        for datagrams, endpoint in self._device.datagrams_to_send():
            self._udp.send(datagrams, endpoint)
        try:
            for frames in self._device.packets_to_deliver():
                self._tun.write(frames)
            for error in self._device.errors_to_deliver():
                if not self._behind_nat.tell(error):
                    self._tun.write(Frames.of(error))
        except InterfaceGoneError as error:
            self._gone(error)
            return
        for event in self._device.events():
            self._events.put_nowait(event)
        deadline = self._device.get_timer()
        if deadline == self._timer_at:
            return
        self._disarm()
        if deadline is not None:
            delay = max(0.0, deadline - self.now())
            self._timer, self._timer_at = self._loop.call_later(delay, self._timer_fired), deadline

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Set a peer's endpoint and persistent keepalive in one step."""
        self._device.set_peer(key, endpoint, keepalive, self.now())
        self._settle()

    def set_relays(self, endpoints: frozenset[Endpoint]) -> None:
        """Who forwards for managed peers."""
        self._device.set_relays(endpoints)
        self._leave_lanes()

    def initiate(self, key: PublicKey, endpoints: tuple[Endpoint, ...]) -> None:
        """Send an initiation to each endpoint."""
        self._device.initiate(key, endpoints, self.now())
        self._settle()

    def probe(self, key: PublicKey, endpoint: Endpoint) -> None:
        """Send an authenticated keepalive to `endpoint`."""
        self._device.probe(key, endpoint, self.now())
        self._settle()

    def send_raw(self, data: bytes, endpoint: Endpoint, ttl: int | None = None) -> None:
        """Send a datagram from the device's port."""
        self._udp.send_raw(data, endpoint, ttl)

    def send_burst(self, data: bytes, row: int, endpoint: Endpoint) -> None:
        """Send datagrams of `row` bytes each, the last of what is left, from the device's port."""
        self._udp.send(Burst(data, row), endpoint)

    def status(self) -> DeviceStatus:
        """The device now, with the port it really listens on."""
        return self._device.status()

    def set_up(self, up: bool) -> None:
        """The interface comes up, or goes down: then there is no socket and no session (rule T12).

        Raises LocalError when somebody else took the port meanwhile; the next `apply` with another one mends it.
        """
        if up == self._is_up:
            return
        self._is_up = up
        self._device.set_up(up, self.now())
        if up:
            self._bind(self._udp.port)
        else:
            self._unlisten()
            self._udp.unbind()
        self.settle()

    def set_mtu(self, mtu: int) -> None:
        """The interface has another MTU, in bytes; packets are padded up to it and no further (rule D4)."""
        self._device.set_mtu(mtu)
        limit_segments(self._tun, mtu)
        self._leave_lanes()

    def set_route_mtu(self, network: IPNetwork, mtu: int | None) -> None:
        """A route into the interface has an MTU of its own, or None any more; that bounds padding likewise."""
        self._device.set_route_mtu(network, mtu)
        self._leave_lanes()

    async def watch_link(self, tell: Callable[[LinkEvent], None]) -> None:
        """Tell what happens to the interface from now on, wherever it is moved; `link_state.watch`."""
        await watch(self._tun, tell)

    async def events(self) -> AsyncIterator[Event]:
        """Events in order, to one consumer; ends after DeviceGone or close()."""
        while (event := await self._events.get()) is not None:
            yield event
            if isinstance(event, DeviceGone):
                return

    async def close(self) -> None:
        """Close the sockets and the interface, which is deleted with all its addresses and routes."""
        if self._closed:
            return
        self._closed = True
        for handle in (self._timer, self._handshakes):
            if handle is not None:
                handle.cancel()
        self._unlisten()
        self._end_lanes()
        self._loop.remove_reader(self._tun.fd)
        self._loop.remove_reader(self._udp.routes_fd)
        self._udp.close()
        self._behind_nat.close()
        self._tun.close()
        self._events.put_nowait(None)

    # The loop's callbacks

    def _bind(self, port: int) -> None:
        """Listen on `port`; while the interface is down, from when it comes up."""
        self._unlisten()
        try:
            self._udp.rebind(port)
            if not self._is_up:
                self._udp.unbind()  # free as far as can be told
        finally:
            self._listen()

    def _routes_changed(self) -> None:
        self._udp.routes_changed()
        self._leave_lanes()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timer_at = None

    def _listen(self) -> None:
        for fd in self._udp.fds:
            self._loop.add_reader(fd, self._udp_readable, fd)
        if self._lanes is not None and isinstance(self._udp, UdpSockets):
            self._lanes.use(self._udp)

    def _unlisten(self) -> None:
        if self._lanes is not None:
            self._lanes.use(None)
        for fd in self._udp.fds:
            self._loop.remove_reader(fd)

    def _udp_readable(self, fd: int) -> None:
        now = self.now()
        for _ in range(CALLS_A_TURN):
            arrived = self._udp.receive(fd)
            for datagrams, source in arrived:
                self._device.receive(datagrams, source, now)
            if len(arrived) < A_CALL or sum(len(datagrams.data) for datagrams, _ in arrived) > ENOUGH:
                break
        self._after_packets(now)

    def _after_packets(self, now: float) -> None:
        if self._handshakes is None:
            self._consume_handshakes()
        else:
            self._settle()
        if self._lanes is not None:
            self._lanes.give(now)

    def _consume_handshakes(self) -> None:
        """Take some out of the queue, then leave them alone for as long as that took.

        So they never get more than half of the time: in a flood the sockets are still read, and what is more than we
        can do piles up in the device's queue, whose length says that we are under load, and not unseen in the kernel's.
        """
        self._handshakes = None
        if self._device.has_handshakes:
            began = self._loop.time()
            self._device.handle_handshakes(self.now(), HANDSHAKES_A_TURN)
            self._handshakes = self._loop.call_later(self._loop.time() - began, self._consume_handshakes)
        self._settle()

    def _tun_readable(self) -> None:
        try:
            waiting = self._tun.read()
        except InterfaceGoneError as error:
            self._gone(error)
            return
        now = self.now()
        for frames in waiting:
            self._device.send(frames, now)
        self._after_packets(now)

    def _timer_fired(self) -> None:
        self._timer = self._timer_at = None
        self._device.handle_timer(self.now())
        self._settle()

    # Lanes

    def _make_lanes(self) -> Lanes | None:
        """Lanes for our peers, where the loop can let packets take them; one engine a loop."""
        loop, tun = self._loop, self._tun
        if not isinstance(loop, LaneLoop) or not can_have_lanes() or not tun.has_headers or loop.waits_in.lanes:
            return None
        lanes = loop.waits_in.lanes = Lanes(self._device, tun)
        loop.waits_in.carried = self._carried
        loop.waits_in.slept = lambda: self._suspensions.limit
        return lanes

    def _leave_lanes(self) -> None:
        if self._lanes is not None:
            self._lanes.clear()

    def _end_lanes(self) -> None:
        if self._lanes is not None:
            assert isinstance(self._loop, LaneLoop)
            self._loop.waits_in.lanes = self._lanes = None

    def _carried(self) -> None:
        """Packets took lanes while the loop waited, or were left."""
        assert self._lanes is not None
        self._lanes.tell()
        self._loop.call_soon(self._finish_lanes)

    def _finish_lanes(self) -> None:
        if self._lanes is None:
            return
        now = self.now()
        try:
            more = self._lanes.finish(now)
        except InterfaceGoneError as error:
            self._gone(error)
            return
        if more is None:
            self._after_packets(now)
        else:
            self._udp_readable(more)

    def _gone(self, error: InterfaceGoneError) -> None:
        self._loop.remove_reader(self._tun.fd)
        self._unlisten()
        self._events.put_nowait(DeviceGone(str(error)))


def _sockets(port: int, offloads: Offloads) -> UdpSockets:
    return UdpSockets.open(port, udp_gso=offloads.udp_gso, udp_gro=offloads.udp_gro)

"""Looks at a device that tells nothing, in a thread of its own: a plain loop, so that nobody waits for the engine.

What is to be done to the device is done there too, in order. A packet filter on its port says when to look early,
where that is permitted.
"""

import logging
import os
import queue
import select
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.machine import boot_time
from wgdisco.tunnel.config import DeviceConfig
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.io.raw import Tap
from wgdisco.tunnel.looks import Looks
from wgdisco.tunnel.raw import handshake_filter

LOG = logging.getLogger(__name__)

# Few hints are as good as many: the kernel drops what is more, so that a flood costs nobody anything
_HINTS = 8
_HINTS_BUFFER = 1


class EngineClient(Protocol):
    """An interface that is up, driven by calls that wait; LocalError when it is gone or refuses."""

    interface: str

    @property
    def renews(self) -> bool:
        """Whether a peer's endpoint and keepalive are changed by adding it anew, which ends its session."""

    def change(self, config: DeviceConfig, gone: Iterable[PublicKey] = ()) -> None:
        """Make it as `config` says but for peers it does not name, of which those `gone` go."""

    def set_peer(self, key: PublicKey, endpoint: Endpoint | None, keepalive: int) -> None:
        """Endpoint (None: as it is) and keepalive in one step."""

    def status(self) -> DeviceStatus:
        """The device now; a peer that is as it was when it was last asked for may be the same object."""

    def close(self) -> None:
        """Let go of it."""


class Looker(threading.Thread):
    """`told` gets each look, and the number of the last thing done before it; `gone` why there are no more.

    Both are called in the thread. `port` is the device's at first.
    """

    def __init__(
        self,
        client: EngineClient,
        port: int,
        told: Callable[[DeviceStatus, int], None],
        gone: Callable[[str], None],
    ) -> None:
        super().__init__(name="wireguard", daemon=True)
        self._client = client
        self._told = told
        self._gone = gone
        self._looks = Looks(boot_time())
        self._to_do: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._asked = self._done = 0
        self._is_closing = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._port = port
        self._taps = {version: tap for version in (4, 6) if (tap := _tap(port, version)) is not None}
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._listen()

    def do(self, work: Callable[[], None]) -> int:
        """Have it done in the thread, after all that was asked for before; its number. What is refused is logged."""
        self._asked += 1
        if not self._is_closing:
            self._to_do.put(work)
            os.eventfd_write(self._wake, 1)
        return self._asked

    def expect(self) -> None:
        """A handshake is being begun: look more often for a while."""
        self.do(lambda: self._looks.expect(boot_time()))

    def look(self) -> None:
        """Look now. In the thread only; LocalError when the device is gone."""
        now, used = boot_time(), time.thread_time()
        status = self._client.status()
        if status.listen_port != self._port:
            self._port = status.listen_port
            for version, tap in self._taps.items():
                tap.set_filter(handshake_filter(self._port, version))
        self._told(status, self._done)
        self._looks.looked(now, time.thread_time() - used)
        self._listen()

    def close(self) -> None:
        """Do what is still to be done, and end; waits for that."""
        self._is_closing = True
        os.eventfd_write(self._wake, 1)
        if self.ident is not None:
            self.join()
        os.close(self._wake)
        for tap in self._taps.values():
            tap.close()

    def run(self) -> None:
        """The thread."""
        try:
            while not self._is_closing:
                self._wait(self._looks.get_timer() - boot_time())
                self._work()
                if boot_time() >= self._looks.get_timer():
                    self.look()
            self._work()
        except (LocalError, OSError) as error:
            self._gone(str(error))

    def _wait(self, seconds: float) -> None:
        ready = self._poll.poll(max(0.0, seconds) * 1000)
        for fd, _ in ready:
            if fd == self._wake:
                os.eventfd_read(self._wake)
                continue
            # It is heard again after the look that it leads to
            self._poll.unregister(fd)
            for tap in self._taps.values():
                if tap.fileno() == fd and tap.receive(_HINTS):
                    self._looks.hinted(boot_time())

    def _work(self) -> None:
        with suppress(queue.Empty):
            while True:
                work = self._to_do.get_nowait()
                try:
                    work()
                except LocalError as error:
                    LOG.warning("%s", error)
                self._done += 1

    def _listen(self) -> None:
        for tap in self._taps.values():
            self._poll.register(tap.fileno(), select.POLLIN)


def _tap(port: int, version: int) -> Tap | None:
    return Tap.open(version, handshake_filter(port, version), _HINTS_BUFFER)

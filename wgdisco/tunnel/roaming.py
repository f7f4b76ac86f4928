"""Where a peer's packets go: the endpoint, and what moves it.

A peer is wherever its last authenticated packet came from (rule E1). Where there is a relay, somebody checks the paths
to managed peers and decides; by itself the endpoint then moves only when there is none, or when what is in use has been
silent for SILENT_FOR: that the peer is heard from elsewhere does not say that it is reached there. What came over the
relay moves nothing that is there.
"""

from wgdisco.endpoint import Endpoint
from wgdisco.tunnel.burst import OwnAddress

SILENT_FOR = 1.0


class Roaming:
    """`endpoint` is where to send; `relays`, shared by all peers of a device, where a relay forwards from.

    `local` is the address of ours to send from: the one that what came from there was sent to (rule E3).
    """

    __slots__ = ("_heard_at", "_seen_from", "endpoint", "is_managed", "local", "relays")

    def __init__(self, relays: set[Endpoint]) -> None:
        self.endpoint: Endpoint | None = None
        self.local: OwnAddress | None = None
        self.is_managed = False
        self.relays = relays
        self._heard_at = float("-inf")
        self._seen_from: Endpoint | None = None

    @property
    def is_checked(self) -> bool:
        """Whether somebody checks the paths to this peer."""
        return self.is_managed and bool(self.relays)

    def set(self, endpoint: Endpoint | None, now: float) -> None:
        """Somebody decides: send there, at least for as long as an answer may take."""
        if endpoint != self.endpoint:
            self.endpoint = endpoint
            self.local = None
            self._heard_at = now

    def heard(self, source: Endpoint, local: OwnAddress | None, now: float) -> None:
        """Something authenticated came from `source`, to `local`."""
        if source is self.endpoint or source == self.endpoint or self._moves_to(source, now):
            self.endpoint = source
            self.local = local
            self._heard_at = now

    def heard_again(self, now: float) -> None:
        """Something authenticated came from the endpoint, to where the last one from there came."""
        self._heard_at = now

    @property
    def is_settled(self) -> bool:
        """Whether the last data came from where we send to."""
        return self.endpoint is not None and self._seen_from == self.endpoint

    def is_new_source(self, source: Endpoint) -> bool:
        """Whether transport data comes from elsewhere than the data before."""
        seen_from, self._seen_from = self._seen_from, source
        return source is not seen_from and source != seen_from  # asked of every burst, and mostly it is the very same

    def _moves_to(self, source: Endpoint, now: float) -> bool:
        if self.endpoint is None or not self.is_checked:
            return True
        if source in self.relays:
            return False
        return now - self._heard_at >= SILENT_FOR

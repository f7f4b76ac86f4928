"""Who beyond the members is answered by a registry of its own members, and where."""

from dataclasses import dataclass

from wgdisco.dnssd.secondaries import Secondaries
from wgdisco.endpoint import Endpoint, IPAddress

DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class PublicDns:
    """Where strangers are answered, if anywhere, and the zone's secondaries, if there are any.

    Both tell of the members `published`, or of all when `is_full`.
    """

    listen: Endpoint | None = None
    published: frozenset[str] = frozenset()
    is_full: bool = False
    secondaries: Secondaries | None = None

    def covers(self, address: IPAddress) -> bool:
        """Whether strangers are answered at all addresses, and no other socket can have the DNS port of `address`."""
        listen = self.listen
        is_same = listen is not None and (listen.address.version, listen.port) == (address.version, DNS_PORT)
        return is_same and listen is not None and listen.address.is_unspecified

"""MTUs of single routes into the interface, below its own: padding must not pass them either (rule D4)."""

from wgdisco.endpoint import IPNetwork


class RouteMtus:
    """Networks and the MTU of the route to each; the longest prefix that has one counts."""

    def __init__(self) -> None:
        self._routes: list[tuple[IPNetwork, int]] = []  # few, longest prefix first

    def set(self, network: IPNetwork, mtu: int | None) -> None:
        """The route to `network` has this MTU, in bytes; None takes it away."""
        routes = [route for route in self._routes if route[0] != network]
        if mtu is not None:
            routes.append((network, mtu))
        self._routes = sorted(routes, key=lambda route: -route[0].prefixlen)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._routes)

    def clear(self) -> None:
        """There are no routes any more."""
        self._routes = []

    def limit(self, packet: bytes | memoryview, mtu: int) -> int:
        """The MTU on the way of an IP packet: `mtu`, the interface's, or less."""
        if not self._routes or len(packet) < 20:
            return mtu
        version = packet[0] >> 4
        if version == 6 and len(packet) < 40:
            return mtu
        address = int.from_bytes(packet[16:20] if version == 4 else packet[24:40], "big")
        for network, limit in self._routes:
            bits = network.max_prefixlen - network.prefixlen
            if network.version == version and address >> bits == int(network.network_address) >> bits:
                return min(mtu, limit)
        return mtu

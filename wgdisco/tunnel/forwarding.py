"""Which sysctls forwarding takes, and in which order.

IPv4 forwards by the interface a packet came in on: the tunnel's own switch is enough between peers, and it goes with
the interface. IPv6 knows one switch for all. Turning that on makes a host deaf to router advertisements and drops the
routes it has from them, unless accept_ra is 2 first (Documentation/networking/ip-sysctl).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

ALL_IPV6 = "ipv6/conf/all/forwarding"


@dataclass(frozen=True, slots=True)
class DefaultRoute:
    """A default route: IP `version`, its interface, and whether a router advertisement made it."""

    version: int
    interface: str
    advertised: bool


def forwarding_settings(
    interface: str,
    routes: Sequence[DefaultRoute],
    uplink: bool,
    through: Iterable[str] = (),
    versions: Collection[int] = (4, 6),
) -> dict[str, str]:
    """Paths below /proc/sys/net and what they must hold, in order, for these IP versions.

    With `uplink` packets also come back in by the default routes' interfaces, and always by those named in `through`.
    """
    settings: dict[str, str] = {}
    if 4 in versions:
        uplinks = (route.interface for route in routes if uplink and route.version == 4)
        settings |= {f"ipv4/conf/{name}/forwarding": "1" for name in (interface, *uplinks, *through)}
    if 6 in versions:
        settings |= {f"ipv6/conf/{route.interface}/accept_ra": "2" for route in routes if route.advertised}
        settings[ALL_IPV6] = "1"
    return settings


def settings_to_write(wanted: Mapping[str, str], present: Mapping[str, str]) -> dict[str, str]:
    """The part of `wanted` that is to be changed. What this kernel has not (IPv6 off) is left out.

    accept_ra is raised only where forwarding is off and the kernel itself listens (1): 0 means that somebody else does.
    """
    return {
        path: value
        for path, value in wanted.items()
        if path in present
        and present[path] != value
        and not (path.endswith("/accept_ra") and (present[path] != "1" or present.get(ALL_IPV6) == "1"))
    }


def settings_to_restore(changed: Mapping[str, str]) -> dict[str, str]:
    """How to go back: `changed` has what each held before; forwarding goes off before accept_ra goes down."""
    return dict(reversed(list(changed.items())))


def uplinks(routes: Sequence[DefaultRoute], interface: str) -> dict[int, tuple[str, ...]]:
    """The default routes' interfaces by IP version, but for `interface` itself."""
    found: dict[int, dict[str, None]] = {}
    for route in routes:
        if route.interface != interface:
            found.setdefault(route.version, {})[route.interface] = None
    return {version: tuple(names) for version, names in found.items()}

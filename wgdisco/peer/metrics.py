"""What a member counts: its paths, and how long they took to come about."""

from collections import Counter
from collections.abc import Collection

from wgdisco.api import PathWord, Reason, StatusReport
from wgdisco.keys import PublicKey
from wgdisco.metrics import Family, Histogram, Kind, Metric, slug
from wgdisco.peer.news import Checked, News, Ordered, PathChanged
from wgdisco.tunnel.events import DeviceStatus
from wgdisco.tunnel.metrics import DROPS, DeviceCounts, about, device_drops

PATHS = Metric("wgdisco_paths", Kind.GAUGE, "Peers by what their path is now; the registry is none of them.", ("path",))
NOT_DIRECT = Metric(
    "wgdisco_paths_not_direct", Kind.GAUGE, "Peers whose path is neither direct nor lan, by why.", ("reason",)
)
CHANGES = Metric("wgdisco_path_changes_total", Kind.COUNTER, "Paths that became something else, by what.", ("path",))
ORDERS = Metric("wgdisco_punch_orders_total", Kind.COUNTER, "Orders to punch that were heard from the registry.")
PUNCHES = Metric(
    "wgdisco_punch_seconds",
    Kind.HISTOGRAM,
    "From an order heard to a path verified, by the path that came of it.",
    ("path",),
)
FAILURES = Metric("wgdisco_punch_failures_total", Kind.COUNTER, "Orders of which no path came, not even by the relay.")
REACHED = Metric("wgdisco_registry_reached", Kind.GAUGE, "Whether the registry answers (1) or not (0).")
METRICS = (PATHS, NOT_DIRECT, CHANGES, ORDERS, PUNCHES, FAILURES, REACHED)

BUCKETS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
# What has not led to a direct path by then has led to the relay, or to nothing
GIVEN_UP_AFTER = 10.0
_DIRECT = (PathWord.DIRECT, PathWord.LAN)
_REACHED = (*_DIRECT, PathWord.RELAY)


class Punches:
    """How long punching took, of orders that are heard and what follows on them."""

    def __init__(self) -> None:
        self.orders = 0
        self.failures = 0
        self.changes: Counter[PathWord] = Counter()
        self._seconds = {path: Histogram(BUCKETS) for path in _REACHED}
        self._begun: dict[PublicKey, float] = {}
        self._paths: dict[PublicKey, tuple[PathWord, float]] = {}

    def tell(self, news: News) -> None:
        """Something is new about a path."""
        match news:
            case Ordered(key, _, _, at):
                self.orders += 1
                self._begun.setdefault(key, at)
            case PathChanged(key, path, _, _, at):
                before, since = self._paths.get(key, (None, at))
                self._paths[key] = path, since if before is path else at
                self.changes[path] += before is not path
                if path in _DIRECT:
                    self._reached(key, path, at)
            case Checked(key, _, _, _, at):
                path, _ = self._paths.get(key, (PathWord.IDLE, at))
                if path in _DIRECT:
                    self._reached(key, path, at)
            case _:
                pass

    def settle(self, now: float) -> None:
        """End what has taken too long."""
        late = [key for key, begun in self._begun.items() if now - begun >= GIVEN_UP_AFTER]
        for key in late:
            path, since = self._paths.get(key, (PathWord.IDLE, now))
            if path in _REACHED:
                self._reached(key, path, since)
            else:
                del self._begun[key]
                self.failures += 1

    def keep(self, keys: frozenset[PublicKey]) -> None:
        """There are no other peers any more."""
        for known in (self._begun, self._paths):
            for key in [key for key in known if key not in keys]:
                del known[key]

    def families(self) -> list[Family]:
        """All of it."""
        return [
            CHANGES.by({path.value: self.changes[path] for path in PathWord}),
            ORDERS.of(self.orders),
            PUNCHES.by({path.value: seconds.buckets() for path, seconds in self._seconds.items()}),
            FAILURES.of(self.failures),
        ]

    def _reached(self, key: PublicKey, path: PathWord, at: float) -> None:
        begun = self._begun.pop(key, None)
        if begun is not None:
            self._seconds[path].observe(max(0.0, at - begun))  # by the relay it may have been reached before


def families(
    report: StatusReport,
    status: DeviceStatus,
    device: DeviceCounts,
    punches: Punches,
    registries: Collection[PublicKey],
    *,
    is_reached: bool,
) -> list[Family]:
    """All that a member tells; `is_reached`: a registry answers."""
    keys = {key.to_text() for key in registries}
    members = [peer for peer in report.peers if peer.public_key not in keys and peer.allowed_ips]
    paths, reasons = Counter(peer.path for peer in members), Counter(peer.reason for peer in members)
    return [
        *about(report.version, report.engine, report.interface, report.role, report.zone),
        *device.families(status),
        DROPS.by_all(device_drops(status)),
        PATHS.by({path.value: paths[path.value] for path in PathWord}),
        NOT_DIRECT.by({slug(reason.value): reasons[reason.value] for reason in Reason}),
        *punches.families(),
        REACHED.of(is_reached),
    ]

"""What a member keeps on disk: /var/lib/wgdisco/NETWORK.json, for root and the daemons' user alone.

A file is written under another name, forced to disk and renamed: it is there whole, or as it was before.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from wgdisco.api import SCHEMA
from wgdisco.endpoint import Endpoint, IPNetwork
from wgdisco.errors import ConfigError, LocalError
from wgdisco.invitation import check_registry
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.machine import hand_over, make_state_directory
from wgdisco.names import check_network_name
from wgdisco.peer.interfaces import MdnsPolicy
from wgdisco.peer.records import parse_snapshot
from wgdisco.peer.roster import OFFLINE_TRUST, Accept, Memory
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.firewall import Mode
from wgdisco.tunnel.host_dns import DnsMode
from wgdisco.tunnel.offloads import ALL, Offloads

DIRECTORY = Path("/var/lib/wgdisco")
MAX_SIZE = 16 << 20


@dataclass(frozen=True, slots=True)
class MemberState:
    """One membership. `registries` are HOST:PORT; `link` tells which invitation it came from (`invitation.link_id`).

    `next_private_key` is announced and not yet in use; `endpoints` are where peers last were; `listen_port` 0 is any.
    `receipt` is what the registry gave us to keep. For `offline_trust` seconds members are trusted without a registry.
    `offers` are subnets that we say are behind us, and everything goes to the member `exit_name`.
    `metrics` is where Prometheus may ask.
    `zone` is the network's as it was when we joined: no other's names are asked of its registry.
    `met` are the ids of networks where another member was met.
    Timestamps of our handshakes are below `handshake_time` (unix time), or were when it was kept.
    """

    name: str
    private_key: PrivateKey = field(repr=False)
    preshared_key: PresharedKey = field(repr=False)
    registries: tuple[str, ...]
    registry_key: PublicKey
    link: str
    memory: Memory
    accept: Accept = Accept.ALL
    block_incoming: bool = False
    firewall: Mode = Mode.NONE
    mdns: MdnsPolicy = field(default=MdnsPolicy())
    met: tuple[str, ...] = ()
    offloads: Offloads = ALL
    engine: EngineKind = EngineKind.USERSPACE
    host_dns: DnsMode = DnsMode.AUTO
    zone: str = ""
    offers: tuple[IPNetwork, ...] = ()
    exit_name: str | None = None
    metrics: Endpoint | None = None
    listen_port: int = 0
    next_private_key: PrivateKey | None = field(default=None, repr=False)
    endpoints: Mapping[PublicKey, Endpoint] = field(default_factory=dict)
    receipt: str = ""
    offline_trust: float = OFFLINE_TRUST
    handshake_time: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The file's object, secrets included."""
        next_key = self.next_private_key
        return {
            "schema": SCHEMA,
            "name": self.name,
            "private_key": self.private_key.to_text(),
            "next_private_key": None if next_key is None else next_key.to_text(),
            "preshared_key": self.preshared_key.to_text(),
            "registries": list(self.registries),
            "registry_key": self.registry_key.to_text(),
            "link": self.link,
            "accept_peers": self.accept.value,
            "block_incoming": self.block_incoming,
            "firewall": self.firewall.value,
            "mdns": asdict(self.mdns),
            "met": list(self.met),
            "offload": self.offloads.to_text(),
            "engine": self.engine.value,
            "host_dns": self.host_dns.value,
            "zone": self.zone,
            "offers": [str(network) for network in self.offers],
            "exit": self.exit_name,
            "metrics": None if self.metrics is None else self.metrics.to_text(),
            "listen_port": self.listen_port,
            "handshake_time": self.handshake_time,
            "confirmed_at": self.memory.confirmed_at,
            "epoch": self.memory.epoch,
            "fresh": self.memory.is_fresh,
            "snapshot": {"schema": SCHEMA, **asdict(self.memory.snapshot)},
            "pins": {name: key.to_text() for name, key in self.memory.pins.items()},
            "announced": {old.to_text(): new.to_text() for old, new in self.memory.announced.items()},
            "endpoints": {key.to_text(): endpoint.to_text() for key, endpoint in self.endpoints.items()},
            "receipt": self.receipt,
            "offline_trust": self.offline_trust,
        }

    @classmethod
    def from_json(cls, data: Any) -> "MemberState":
        """ValueError, KeyError, TypeError or AttributeError for an object that is not as `to_json` makes it."""
        if data["schema"] != SCHEMA:
            raise ValueError("it was written by another version of wgdisco")
        next_key = data["next_private_key"]
        memory = Memory(
            parse_snapshot(data["snapshot"]),
            float(data["confirmed_at"]),
            int(data["epoch"]),
            {name: PublicKey.from_text(key) for name, key in data["pins"].items()},
            {PublicKey.from_text(old): PublicKey.from_text(new) for old, new in data["announced"].items()},
            bool(data["fresh"]),
        )
        return cls(
            name=str(data["name"]),
            private_key=PrivateKey.from_text(data["private_key"]),
            preshared_key=PresharedKey.from_text(data["preshared_key"]),
            registries=tuple(check_registry(registry) for registry in data["registries"]),
            registry_key=PublicKey.from_text(data["registry_key"]),
            link=str(data["link"]),
            memory=memory,
            accept=Accept(data["accept_peers"]),
            block_incoming=bool(data["block_incoming"]),
            firewall=Mode(data.get("firewall", "none")),
            mdns=_mdns_policy(data.get("mdns", {})),
            met=tuple(str(network) for network in data.get("met", [])),
            offloads=Offloads.from_text(str(data.get("offload", "all"))),
            engine=EngineKind(data.get("engine", "userspace")),
            host_dns=DnsMode(data.get("host_dns", "auto")),
            zone=str(data.get("zone", data["snapshot"]["network"]["zone"])),
            offers=tuple(ip_network(network) for network in data.get("offers", [])),
            exit_name=None if data.get("exit") is None else str(data["exit"]),
            metrics=None if data.get("metrics") is None else Endpoint.from_text(data["metrics"]),
            listen_port=int(data["listen_port"]),
            next_private_key=None if next_key is None else PrivateKey.from_text(next_key),
            endpoints={PublicKey.from_text(k): Endpoint.from_text(e) for k, e in data["endpoints"].items()},
            # files of older versions have neither
            receipt=str(data.get("receipt", "")),
            offline_trust=float(data.get("offline_trust", OFFLINE_TRUST)),
            handshake_time=float(data.get("handshake_time", 0.0)),
        )


def _mdns_policy(data: Any) -> MdnsPolicy:
    not_on = tuple(str(interface) for interface in data.get("not_on", []))
    return MdnsPolicy(bool(data.get("everywhere")), bool(data.get("nowhere")), not_on)


class StateStore:
    """All memberships of this host. Every method raises LocalError, in one line, for what the disk does."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory

    def names(self) -> list[str]:
        """Networks this host is a member of, in order."""
        try:
            found = [Path(name) for name in os.listdir(self.directory)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _unreadable(self.directory, error) from error
        return sorted(path.stem for path in found if path.suffix == ".json" and not path.name.startswith("."))

    def load(self, name: str) -> MemberState | None:
        """The membership in network `name`; None when there is none."""
        check_network_name(name)
        data = self._read(self._path(name))
        if data is None:
            return None
        try:
            state = MemberState.from_json(data)
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise self._damaged(self._path(name)) from error
        return replace(state, name=name)

    def by_link(self, link: str) -> MemberState | None:
        """The membership that came from this invitation."""
        states = (self.load(name) for name in self.names())
        return next((state for state in states if state is not None and state.link == link), None)

    def save(self, state: MemberState) -> None:
        """Keep the membership; returns when it is on disk."""
        self._write(self._path(state.name), state.to_json())

    def forget(self, name: str) -> None:
        """Forget the membership; without one, nothing."""
        self._remove(self._path(name))

    def enrolment_key(self, link: str, fresh: PrivateKey) -> PrivateKey:
        """The key an enrolment under this invitation goes on with: `fresh`, unless one was begun before.

        The registry answers the same key again with the same member, so that a lost reply costs nothing.
        """
        path = self._enrolment_path(link)
        data = self._read(path)
        if data is not None:
            try:
                return PrivateKey.from_text(data["private_key"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise self._damaged(path) from error
        self._write(path, {"schema": SCHEMA, "private_key": fresh.to_text()})
        return fresh

    def enrolment_done(self, link: str) -> None:
        """The key is kept elsewhere now."""
        self._remove(self._enrolment_path(link))

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def _enrolment_path(self, link: str) -> Path:
        return self.directory / f".enrol-{link}.json"

    def _damaged(self, path: Path) -> LocalError:
        return LocalError(f"{path} is damaged: put a copy of it back, or `wgdisco leave {path.stem}` and join anew")

    def _read(self, path: Path) -> Any:
        try:
            with path.open("rb") as file:
                text = file.read(MAX_SIZE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path, error) from error
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            # The text holds keys: no cause that might quote it.
            raise self._damaged(path) from None

    def _write(self, path: Path, data: Any) -> None:
        try:
            make_state_directory(self.directory)
            temporary = path.with_name(f".{path.name}.new")
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(data, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            hand_over(temporary)
            temporary.rename(path)
            self._sync_directory()
        except OSError as error:
            raise LocalError(f"cannot write {path}: {error.strerror}") from error

    def _remove(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            if self.directory.is_dir():
                self._sync_directory()
        except OSError as error:
            raise LocalError(f"cannot remove {path}: {error.strerror}") from error

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> LocalError:
    if isinstance(error, PermissionError):
        return LocalError(f"no access to {path}: use sudo")
    return LocalError(f"cannot read {path}: {error.strerror}")

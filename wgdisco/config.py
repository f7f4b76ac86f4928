"""What a command is told: flags win over environment (`WGDISCO_*`), environment over `/etc/wgdisco/NAME.toml`.

This module alone reads files and environment. A wg-quick `.conf` holds keys and peers; the TOML file everything else,
and may name the `.conf`. Every mistake is a ConfigError that names the file, line, flag or variable.
"""

import socket
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from wgdisco.arguments import metrics_endpoint
from wgdisco.dnssd.names import ZoneNames
from wgdisco.dnssd.secondaries import Secondaries, TsigKey
from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.errors import ConfigError
from wgdisco.names import check_member_name
from wgdisco.tunnel.conf import TunnelConf, parse_conf
from wgdisco.tunnel.engines import EngineKind
from wgdisco.tunnel.host_dns import DnsMode
from wgdisco.tunnel.io.external import SOCKETS
from wgdisco.tunnel.io.resolver import parse_retries, resolve_endpoints, service_port
from wgdisco.tunnel.io.tun import check_name
from wgdisco.tunnel.offloads import ALL, Offloads

ETC = Path("/etc/wgdisco")
DNS_PORT = 53
PUBLIC_ZONES = ("published", "full")
_VARIABLES = ("conf", "zone", "dns", "interface", "offload", "engine", "host_dns", "secondary", "tsig_key", "metrics")
_KEYS = frozenset({*_VARIABLES, "self", "wgsd_exact"})
# A key in base64
_KEY_TEXT_SIZE = 44
_LINK_MAX_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """What both daemons need: the interface, its `.conf`, the zone, and where its DNS server is or shall be."""

    interface: str
    conf: TunnelConf
    zone: ZoneNames
    dns: Endpoint
    offloads: Offloads
    engine: EngineKind
    host_dns: DnsMode
    metrics: Endpoint | None


@dataclass(frozen=True, slots=True)
class AttachSettings:
    """An interface that is up, run by another engine than ours, which has its keys and peers."""

    interface: str
    engine: EngineKind
    zone: ZoneNames
    dns: Endpoint
    metrics: Endpoint | None


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The registry's: `publish_self` puts its own key in the zone, at `self_endpoint` or where it was asked.

    Without a `conf` the interface is up, and taken as it is; `engine` is never `AUTO`.
    """

    interface: str
    conf: TunnelConf | None
    engine: EngineKind
    zone: ZoneNames
    dns: Endpoint
    offloads: Offloads
    host_dns: DnsMode
    exact: bool
    publish_self: bool
    self_endpoint: Endpoint | None
    secondaries: Secondaries | None
    metrics: Endpoint | None


@dataclass(frozen=True, slots=True)
class PublicDns:
    """Where strangers are answered, and about whom: the members `published`, or about all when `is_full`.

    The zone's secondaries are told of the same.
    """

    listen: Endpoint | None
    published: frozenset[str]
    is_full: bool
    secondaries: Secondaries | None


@dataclass(frozen=True, slots=True)
class _Told:
    """A setting, and for messages where it was said: a flag, a variable, or a file and the name in it."""

    value: Any
    where: str


def load_join(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings | AttachSettings:
    """Settings of `wgdisco join`."""
    told = _merge(flags, environment)
    engine = _engine(told.get("engine"))
    if "conf" in told or engine is EngineKind.USERSPACE:
        return _load(told, environment)
    return AttachSettings(_interface(told).value, _found_engine(told), _zone(told), _server(told), _metrics(told))


def load_registry(flags: Mapping[str, Any], environment: Mapping[str, str]) -> RegistrySettings:
    """Settings of `wgdisco registry run`."""
    told = _merge(flags, environment)
    interface = _interface(told).value
    conf = _conf(told, environment) if "conf" in told or _engine(told.get("engine")) is EngineKind.USERSPACE else None
    own = told.get("self", _Told(False, "--self"))
    if not isinstance(own.value, (bool, str)):
        raise ConfigError(f"{own.where}: write true, or the registry's own ADDRESS:PORT in quotes")
    endpoint = _endpoint(own, None) if isinstance(own.value, str) and own.value else None
    exact = told.get("wgsd_exact", _Told(False, "--wgsd-exact"))
    if not isinstance(exact.value, bool):
        raise ConfigError(f"{exact.where}: write true or false")
    for flag in ("publish", "public_zone"):
        if flags.get(flag):
            raise ConfigError(f"--{flag.replace('_', '-')}: with --conf, --dns tells all of the zone to whoever asks")
    return RegistrySettings(
        interface,
        conf,
        _found_engine(told) if conf is None else _engine(told.get("engine")) or EngineKind.USERSPACE,
        _zone(told),
        _server(told),
        _offloads(told.get("offload")),
        _host_dns(told.get("host_dns")),
        exact.value,
        own.value is not False,
        endpoint,
        _secondaries(told),
        _metrics(told),
    )


def is_managed(flags: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether `wgdisco registry run` is of its own store: nothing names a `.conf` or a TOML file."""
    return all(not flags.get(name) and not environment.get(f"WGDISCO_{name.upper()}") for name in ("conf", "interface"))


def load_public_dns(flags: Mapping[str, Any], environment: Mapping[str, str]) -> PublicDns:
    """Where a registry of its own store is to answer strangers, if anywhere, and about whom."""
    where = flags.get("dns") or environment.get("WGDISCO_DNS")
    published = flags.get("publish") or environment.get("WGDISCO_PUBLISH", "").split()
    told = flags.get("public_zone") or environment.get("WGDISCO_PUBLIC_ZONE") or "published"
    secondaries = _secondaries(_said(flags, environment))
    if told not in PUBLIC_ZONES:
        raise ConfigError(f"WGDISCO_PUBLIC_ZONE: {told!r} is neither of {', '.join(PUBLIC_ZONES)}")
    for name in published:
        check_member_name(name)
    if where is None and secondaries is None and (published or told != "published"):
        raise ConfigError(
            "--publish and --public-zone say what is told to strangers: give where with --dns ADDRESS:PORT, or"
            " --secondary ADDRESS"
        )
    source = "--dns" if flags.get("dns") else "WGDISCO_DNS"
    listen = None if where is None else _endpoint(_Told(str(where), source), DNS_PORT)
    is_full = told == "full"
    if secondaries is not None:
        secondaries = replace(secondaries, is_full=is_full)
    return PublicDns(listen, frozenset(published), is_full, secondaries)


def parse_endpoint(flag: str, text: str, default_port: int) -> Endpoint:
    """ADDRESS or ADDRESS:PORT; ConfigError, naming the flag, for anything else."""
    return _endpoint(_Told(text, flag), default_port)


def load_offloads(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Offloads:
    """What the interface of a registry of its own store may use."""
    if flags.get("offload") is not None:
        return _offloads(_Told(flags["offload"], "--offload"))
    text = environment.get("WGDISCO_OFFLOAD")
    return _offloads(_Told(text, "WGDISCO_OFFLOAD") if text else None)


def load_engine(flags: Mapping[str, Any], environment: Mapping[str, str]) -> EngineKind | None:
    """Whose engine a member by a join link, or a registry of its own store, is to use; None where nothing is said."""
    if flags.get("engine") is not None:
        return _engine(_Told(flags["engine"], "--engine"))
    text = environment.get("WGDISCO_ENGINE")
    return _engine(_Told(text, "WGDISCO_ENGINE")) if text else None


def load_host_dns(flags: Mapping[str, Any], environment: Mapping[str, str]) -> DnsMode | None:
    """How the host's resolver is told of name servers inside the tunnel; None where nothing is said."""
    if flags.get("host_dns") is not None:
        return _host_dns(_Told(flags["host_dns"], "--host-dns"))
    text = environment.get("WGDISCO_HOST_DNS")
    return _host_dns(_Told(text, "WGDISCO_HOST_DNS")) if text else None


def load_metrics(flags: Mapping[str, Any], environment: Mapping[str, str], kept: Endpoint | None) -> Endpoint | None:
    """Where Prometheus may ask a member by a join link, or a registry of its own store; `kept` if nothing is said."""
    return _metrics(_said(flags, environment), kept)


def load_interface(flags: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """The name of the interface that is meant, before anything is looked up."""
    return str(_merge(flags, environment)["interface"].value)


def _merge(flags: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, _Told]:
    told = _said(flags, environment)
    interface = _interface(told)
    path = ETC / f"{interface.value}.toml"
    for name, value in _read_toml(path).items():
        told.setdefault(name, _Told(value, f"{path}: {name}"))
    told.setdefault("interface", interface)
    return told


def _said(flags: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, _Told]:
    told = {name: _Told(value, f"--{name.replace('_', '-')}") for name, value in flags.items() if value is not None}
    for name in _VARIABLES:
        variable = f"WGDISCO_{name.upper()}"
        if environment.get(variable):
            told.setdefault(name, _Told(environment[variable], variable))
    return told


def _interface(told: Mapping[str, _Told]) -> _Told:
    """The interface's name, which is that of the TOML file too: as told, or the stem of the `.conf`."""
    if "interface" in told:
        interface = told["interface"]
    elif "conf" in told:
        conf = told["conf"]
        interface = _Told(Path(conf.value).stem, f"{conf.where} {conf.value!r}")
    else:
        raise ConfigError("which network? give --conf FILE, or --interface NAME with a /etc/wgdisco/NAME.toml")
    if not isinstance(interface.value, str):
        raise ConfigError(f"{interface.where}: write it as text")
    try:
        check_name(interface.value)
    except ConfigError as error:
        raise ConfigError(f"{interface.where}: {error}; give --interface NAME") from error
    return interface


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("not a text file", str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not TOML: {error}", str(path)) from error
    unknown = sorted(set(values) - _KEYS)
    if unknown:
        # Shown only where it can be no key that was pasted.
        name = repr(unknown[0]) if len(unknown[0]) < _KEY_TEXT_SIZE - 1 else "there"
        raise ConfigError(f"unknown setting {name}; known are {', '.join(sorted(_KEYS))}", str(path))
    return values


def _load(told: Mapping[str, _Told], environment: Mapping[str, str]) -> Settings:
    _text(told, "conf", "alice.conf")
    names, server = _zone(told), _server(told)
    interface = _interface(told).value
    engine = _engine(told.get("engine")) or EngineKind.USERSPACE
    offloads, host_dns = _offloads(told.get("offload")), _host_dns(told.get("host_dns"))
    conf = _conf(told, environment)
    return Settings(interface, conf, names, server, offloads, engine, host_dns, _metrics(told))


def _conf(told: Mapping[str, _Told], environment: Mapping[str, str]) -> TunnelConf:
    path = _text(told, "conf", "alice.conf").value
    return read_conf(path, parse_retries(environment.get("WG_ENDPOINT_RESOLUTION_RETRIES")))


def _zone(told: Mapping[str, _Told]) -> ZoneNames:
    zone = _text(told, "zone", "example.com.")
    try:
        return ZoneNames.from_text(zone.value)
    except ValueError as error:
        raise ConfigError(f"{zone.where}: {error}") from error


def _server(told: Mapping[str, _Told]) -> Endpoint:
    return _endpoint(_text(told, "dns", "198.51.100.1:53"), DNS_PORT)


def _secondaries(told: Mapping[str, _Told]) -> Secondaries | None:
    """By flag or in a file one or a list, in the environment with spaces between; each an address that is their own."""
    if "secondary" not in told:
        if "tsig_key" in told:
            raise ConfigError(f"{told['tsig_key'].where}: it is for secondaries: name them with --secondary ADDRESS")
        return None
    value, where = told["secondary"].value, told["secondary"].where
    texts = value.split() if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{where}: write an address, or a list of them")
    endpoints = tuple(_endpoint(_Told(text, where), DNS_PORT) for text in texts)
    return Secondaries(endpoints, _tsig_key(told["tsig_key"]) if "tsig_key" in told else None)


def _tsig_key(told: _Told) -> TsigKey:
    if not isinstance(told.value, str):
        raise ConfigError(f"{told.where}: write the name of a file")
    try:
        return TsigKey.from_text(Path(told.value).read_text())
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", told.value) from error
    except ValueError as error:
        raise ConfigError(f"not a TSIG key: {error}", told.value) from error


def _engine(told: _Told | None) -> EngineKind | None:
    if told is None:
        return None
    try:
        return EngineKind(told.value)
    except ValueError:
        words = ", ".join(engine.value for engine in EngineKind)
        raise ConfigError(f"{told.where}: there is no such engine; there are {words}") from None


def _host_dns(told: _Told | None) -> DnsMode:
    if told is None:
        return DnsMode.AUTO
    try:
        return DnsMode(told.value)
    except ValueError:
        words = ", ".join(mode.value for mode in DnsMode)
        raise ConfigError(f"{told.where}: write one of {words}") from None


def _metrics(told: Mapping[str, _Told], kept: Endpoint | None = None) -> Endpoint | None:
    found = told.get("metrics")
    return kept if found is None else metrics_endpoint(found.where, str(found.value))


def _found_engine(told: Mapping[str, _Told]) -> EngineKind:
    """Whose an interface is that is up; KERNEL or EXTERNAL."""
    engine = _engine(told.get("engine"))
    if engine not in (None, EngineKind.AUTO):
        return engine
    interface = _interface(told).value
    if interface not in (name for _, name in socket.if_nameindex()):
        raise ConfigError(
            f"--conf is missing, and there is no interface {interface} to take as it is: give --conf FILE, or bring the"
            " interface up"
        )
    return EngineKind.EXTERNAL if (SOCKETS / f"{interface}.sock").exists() else EngineKind.KERNEL


def _offloads(told: _Told | None) -> Offloads:
    if told is None:
        return ALL
    if not isinstance(told.value, str):
        raise ConfigError(f'{told.where}: write it as text, for example "none"')
    try:
        return Offloads.from_text(told.value)
    except ConfigError as error:
        raise ConfigError(f"{told.where}: {error}") from error


def _text(told: Mapping[str, _Told], name: str, example: str) -> _Told:
    found = told.get(name)
    if found is None:
        raise ConfigError(f"--{name} is missing: for example --{name} {example}")
    if not isinstance(found.value, str) or not found.value or not found.value.isprintable():
        raise ConfigError(f'{found.where}: write it as text, for example "{example}"')
    return found


def read_link(text: str | None, environment: Mapping[str, str]) -> str | None:
    """A join link: `text` itself, `-` for standard input, `@FILE`; else WGDISCO_LINK_FILE's or systemd's credential."""
    if text == "-":
        return sys.stdin.readline(_LINK_MAX_SIZE)
    if text is not None and not text.startswith("@"):
        return text
    if text is not None:
        path = Path(text[1:])
    elif environment.get("WGDISCO_LINK_FILE"):
        path = Path(environment["WGDISCO_LINK_FILE"])
    elif not (path := Path(environment.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "link").exists():
        return None
    try:
        return path.read_text()[:_LINK_MAX_SIZE]
    except UnicodeDecodeError as error:
        raise ConfigError("not a join link", str(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", str(path)) from error


def read_conf(path: str, retries: float) -> TunnelConf:
    """Read the wg-quick file of a daemon, which has to have a private key, and look up the endpoints given by name."""
    try:
        # As `wg`, which takes any bytes in a comment
        text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", path) from error
    conf = parse_conf(text, path, service_port)
    if conf.device.private_key is None:
        raise ConfigError("it has no PrivateKey under [Interface]: make one with `wgdisco genkey`", path)
    return resolve_endpoints(conf, path, retries)


def _endpoint(told: _Told, default_port: int | None) -> Endpoint:
    if default_port is not None:
        bracketed = told.value.startswith("[") and told.value.endswith("]")
        with suppress(ValueError):
            return Endpoint(parse_address(told.value[1:-1] if bracketed else told.value), default_port)
    try:
        return Endpoint.from_text(told.value)
    except ValueError as error:
        raise ConfigError(f"{told.where}: {told.value!r} is not ADDRESS:PORT or [IPV6]:PORT") from error

"""What a command is told: flags win over environment (`WGDISCO_*`), environment over `/etc/wgdisco/NAME.toml`.

This module alone reads files and environment. A wg-quick `.conf` holds keys and peers; the TOML file everything else,
and may name the `.conf`. Every mistake is a ConfigError that names the file, line, flag or variable.
"""

import re
import socket
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from wgdisco.dnssd.names import ZoneNames
from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.errors import ConfigError
from wgdisco.keys import PublicKey
from wgdisco.tunnel.conf import TunnelConf, parse_conf

ETC = Path("/etc/wgdisco")
DNS_PORT = 53
_INTERFACE_NAME = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")
_LINK_MAX_SIZE = 4096
_KEYS = frozenset({"conf", "zone", "dns", "interface", "self", "wgsd_exact"})


@dataclass(frozen=True, slots=True)
class Settings:
    """What both daemons need: the interface, its `.conf`, the zone, and where its DNS server is or shall be."""

    interface: str
    conf: TunnelConf
    zone: ZoneNames
    dns: Endpoint


@dataclass(frozen=True, slots=True)
class RegistrySettings(Settings):
    """The registry's: `publish_self` puts its own key in the zone, at `self_endpoint` or where it was asked."""

    exact: bool
    publish_self: bool
    self_endpoint: Endpoint | None


def load_join(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Settings of `wgdisco join`."""
    return _load(_merge(flags, environment))


def load_registry(flags: Mapping[str, Any], environment: Mapping[str, str]) -> RegistrySettings:
    """Settings of `wgdisco registry run`."""
    told = _merge(flags, environment)
    base = _load(told)
    own = told.get("self")
    if own is not None and not isinstance(own, (bool, str)):
        raise ConfigError("self: write true, or the registry's own ADDRESS:PORT")
    endpoint = _endpoint("--self", own, None) if isinstance(own, str) and own else None
    exact = told.get("wgsd_exact", False)
    if not isinstance(exact, bool):
        raise ConfigError("wgsd_exact: write true or false")
    return RegistrySettings(
        base.interface, base.conf, base.zone, base.dns, exact, own is not None and own is not False, endpoint
    )


def is_managed(flags: Mapping[str, Any], environment: Mapping[str, str]) -> bool:
    """Whether `wgdisco registry run` is of its own store: nothing names a `.conf` or a TOML file."""
    return all(not flags.get(name) and not environment.get(f"WGDISCO_{name.upper()}") for name in ("conf", "interface"))


def load_dns(flags: Mapping[str, Any], environment: Mapping[str, str]) -> Endpoint | None:
    """Where a registry of its own store is to serve its zone, if not inside the tunnel alone."""
    text = flags.get("dns") or environment.get("WGDISCO_DNS")
    return None if not text else _endpoint("--dns", str(text), DNS_PORT)


def _merge(flags: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    told: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    for name in _KEYS - {"self", "wgsd_exact"}:
        variable = environment.get(f"WGDISCO_{name.upper()}")
        if variable:
            told.setdefault(name, variable)
    name = told.get("interface") or (Path(str(told["conf"])).stem if "conf" in told else "")
    if not name:
        raise ConfigError("which network? give --conf FILE, or --interface NAME with a /etc/wgdisco/NAME.toml")
    for key, value in _read_toml(ETC / f"{name}.toml").items():
        told.setdefault(key, value)
    told.setdefault("interface", name)
    return told


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"not TOML: {error}", str(path)) from error
    unknown = sorted(set(values) - _KEYS)
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(_KEYS))}", str(path))
    return values


def _load(told: Mapping[str, Any]) -> Settings:
    for name, example in (("conf", "alice.conf"), ("zone", "example.com."), ("dns", "198.51.100.1:53")):
        if not isinstance(told.get(name), str):
            raise ConfigError(f"--{name} is missing: for example --{name} {example}")
    interface = str(told["interface"])
    if not _INTERFACE_NAME.fullmatch(interface) or interface in {".", ".."}:
        raise ConfigError(
            f"{interface!r} cannot name an interface (1 to 15 letters, digits or _=+.-): give --interface NAME"
        )
    try:
        zone = ZoneNames.from_text(told["zone"])
    except ValueError as error:
        raise ConfigError(f"--zone: {error}") from error
    return Settings(interface, read_conf(told["conf"]), zone, _endpoint("--dns", told["dns"], DNS_PORT))


def read_link(text: str | None, environment: Mapping[str, str]) -> str | None:
    """A join link: `text` itself, `-` for standard input, `@FILE`; else systemd's credential `link`, else None."""
    if text == "-":
        return sys.stdin.readline(_LINK_MAX_SIZE)
    if text is not None and not text.startswith("@"):
        return text
    if text is not None:
        path = Path(text[1:])
    elif "CREDENTIALS_DIRECTORY" in environment and (Path(environment["CREDENTIALS_DIRECTORY"]) / "link").exists():
        path = Path(environment["CREDENTIALS_DIRECTORY"]) / "link"
    else:
        return None
    try:
        return path.read_text()[:_LINK_MAX_SIZE]
    except UnicodeDecodeError as error:
        raise ConfigError("not a join link", str(path)) from error
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", str(path)) from error


def read_conf(path: str) -> TunnelConf:
    """Read a wg-quick file, and look up the endpoints it gives by name."""
    try:
        text = Path(path).read_text()
    except UnicodeDecodeError as error:
        raise ConfigError("not a text file", path) from error
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", path) from error
    return resolve_endpoints(parse_conf(text, path))


def resolve_endpoints(conf: TunnelConf) -> TunnelConf:
    """Fill in the endpoints that the `.conf` gives by host name."""
    found: dict[PublicKey, Endpoint] = {}
    for key, (host, port) in conf.endpoint_names.items():
        try:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise ConfigError(f"endpoint {host}:{port} of peer {key}: {error.strerror or error}") from error
        found[key] = Endpoint(parse_address(str(answers[0][4][0])), port)
    return conf.with_endpoints(found)


def _endpoint(flag: str, text: str, default_port: int | None) -> Endpoint:
    try:
        if default_port is not None:
            try:
                return Endpoint(ip_address(text), default_port)
            except ValueError:
                pass
        return Endpoint.from_text(text)
    except ValueError as error:
        raise ConfigError(f"{flag}: {text!r} is not ADDRESS:PORT") from error

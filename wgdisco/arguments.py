"""Values as a person writes them: times, and endpoints. Each mistake is a ConfigError that says where it was written."""

import re
from ipaddress import IPv4Address

from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.errors import ConfigError
from wgdisco.invitation import check_registry

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,6})([smhd])")


def parse_duration(flag: str, text: str) -> float:
    """A time like 30m, 24h or 7d, in seconds; ConfigError, naming the flag, for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None or not int(match[1]):
        raise ConfigError(f"{flag}: {text!r} is not a time: write 30m, 24h or 7d")
    return float(int(match[1]) * SECONDS[match[2]])


def registry_endpoint(text: str, port: int, flag: str = "--endpoint") -> str:
    """HOST, HOST:PORT, an IPv6 address with or without brackets, as HOST:PORT."""
    try:
        address = parse_address(text.removeprefix("[").removesuffix("]"))
        text = f"[{address}]" if address.version == 6 else str(address)
    except ValueError:
        pass
    whole = text if re.fullmatch(r"(\[[^]]*\]|[^:]*):[0-9]+", text) else f"{text}:{port}"
    try:
        return check_registry(whole)
    except ValueError as error:
        raise ConfigError(f"{flag}: {text!r} is not HOST[:PORT]") from error


def metrics_endpoint(where: str, text: str) -> Endpoint | None:
    """PORT on the loopback, ADDRESS:PORT, or `none`: beyond this host nobody asks unless it is plainly written."""
    if text == "none":
        return None
    try:
        if text.isascii() and text.isdigit():
            return Endpoint(IPv4Address("127.0.0.1"), int(text))
        return Endpoint.from_text(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {text!r} is not PORT, ADDRESS:PORT or none") from error

"""Endpoints as a person writes them; each mistake is a ConfigError that says where it was written."""

import re
from ipaddress import IPv4Address

from wgdisco.endpoint import Endpoint, parse_address
from wgdisco.errors import ConfigError
from wgdisco.invitation import check_registry


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

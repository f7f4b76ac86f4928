"""The classic name of a NAT (RFC 3489 section 10.1, "Port Restricted Cone" and the like), by the package `stun`.

The decision tree and the names are the package's. Its codec is not used: it gets XOR-MAPPED-ADDRESS wrong, knows no
IPv6 and no signatures, and breaks on padding. It asks one thing after another and waits for what never comes: this is
for people who ask, not for the path to a peer. It has a socket of its own.
"""

import asyncio
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from stun import ChangedAddressValue, Client, Header, MappedAddressValue, MessageType, NatType

from wgdisco.api import StunRecord
from wgdisco.endpoint import Endpoint
from wgdisco.stun import Kind, Message

TIMEOUT = 5.0
_NAMES = frozenset(
    {
        NatType.UDPBlocked,
        NatType.OpenInternet,
        NatType.SymmetricFirewall,
        NatType.SymmetricNAT,
        NatType.FullConeNAT,
        NatType.RestrictedNAT,
        NatType.PortRestrictedNAT,
    }
)
# Longer than any round trip a classic client would have counted with; each question is asked twice
_WAIT = 0.5
_RETRIES = 1


class _Asker(Client):  # type: ignore[misc]
    """The package's client with our codec: what it wants to ask is signed, what comes is checked."""

    def __init__(self, record: StunRecord, opened: socket.socket) -> None:
        address, port = opened.getsockname()[:2]
        super().__init__(host=address, port=port)
        self.retries = _RETRIES
        self._record = record
        self._socket = opened
        self._transaction_id = b""

    async def send(self, data: bytes, destination: tuple[str, int], source: object = None) -> bool:
        asked = Message.parse(data)
        self._transaction_id = asked.transaction_id
        request = Message(Kind.REQUEST, asked.transaction_id, username=self._record.username, change=asked.change)
        with suppress(OSError):
            self._socket.sendto(request.pack(self._record.password), destination)
            return True
        return False

    async def receive(self) -> tuple[bytes | None, tuple[str, int] | None]:
        with suppress(TimeoutError):
            async with asyncio.timeout(_WAIT):
                while True:
                    data, source = await asyncio.get_running_loop().sock_recvfrom(self._socket, 2048)
                    if self._is_answer(data):
                        return data, source
        return None, None

    def _is_answer(self, data: bytes) -> bool:
        with suppress(ValueError):
            message = Message.parse(data)
            return message.transaction_id == self._transaction_id and message.verify(self._record.password)
        return False

    def parse_data(self, data: bytes, context: MutableMapping[str, Any]) -> bool:
        message = Message.parse(data)
        if message.kind is not Kind.SUCCESS or message.mapped is None:
            return False
        context["MAPPED-ADDRESS"] = _value(MappedAddressValue, message.mapped)
        if message.other is not None:
            context["CHANGED-ADDRESS"] = _value(ChangedAddressValue, message.other)
        context["head"] = Header.new(MessageType.BIND_RESPONSE, 0, context["trans_id"])
        return True


async def classic_name(record: StunRecord) -> str | None:
    """What the NAT was called in RFC 3489, over IPv4; None when it cannot be told, as with one address to ask.

    Takes TIMEOUT at most.
    """
    servers = [one for one in map(Endpoint.from_text, record.endpoints) if one.address.version == 4]
    if len({server.address for server in servers}) < 2:
        return None
    address, port = str(servers[0].address), servers[0].port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        try:
            opened.bind((_source(address), 0))
            async with asyncio.timeout(TIMEOUT):
                found = await _Asker(record, opened).get_nat_type(address, port)
        except (OSError, TimeoutError):
            return None
    name = found.get("NAT")
    return name if name in _NAMES else None


def _source(address: str) -> str:
    """Where packets to `address` leave from: what the package compares the reflexive address with."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])


def _value(kind: type[Any], endpoint: Endpoint) -> Any:
    family = 1 if endpoint.address.version == 4 else 2
    return kind(data=b"", ip=str(endpoint.address), port=endpoint.port, family=family)

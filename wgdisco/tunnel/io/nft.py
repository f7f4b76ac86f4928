"""Our table in the kernel: loaded by `nft -f -` in one transaction, taken out at the end.

A crash leaves the table behind, which does no harm: it speaks of our interface only; the next start replaces it, and
`leftovers.py` takes it out.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wgdisco.errors import LocalError
from wgdisco.tunnel.io.programs import execute
from wgdisco.tunnel.nft import remove_table


async def run_nft(*arguments: str, text: str = "") -> str:
    """Run nft with `text` as its input; its output. LocalError says what it did not like, or that there is none."""
    try:
        code, output, complaint = await execute(("nft", *arguments), text)
    except FileNotFoundError:
        raise LocalError("there is no nft here: install the package nftables") from None
    if code:
        lines = complaint.splitlines()
        said = next((line for line in lines if "Error: " in line), lines[0] if lines else "no reason given")
        if "not permitted" in said:
            raise LocalError("no permission to set nft rules: run as root, or with the capability CAP_NET_ADMIN")
        raise LocalError(f"nft refused our rules: {said.strip()}")
    return output


async def list_ruleset() -> list[dict[str, Any]]:
    """All that nft knows, as its JSON objects, iptables-nft's tables included. LocalError as `run_nft`."""
    objects: list[dict[str, Any]] = json.loads(await run_nft("-j", "list", "ruleset"))["nftables"]
    return objects


class Table:
    """The table of one interface. Changes come one after the other; the same text again costs nothing."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._loaded: str | None = None
        self._lock = asyncio.Lock()

    async def load(self, text: str) -> None:
        """Replace the table by what `text` says (`HubRules.to_text`, `block_incoming_rules`)."""
        async with self._lock:
            if text != self._loaded:
                await run_nft("-f", "-", text=text)
                self._loaded = text

    async def remove(self) -> None:
        """Take the table out, if there is one."""
        async with self._lock:
            await run_nft("-f", "-", text=remove_table(self.interface))
            self._loaded = None


@asynccontextmanager
async def nft_table(interface: str, text: str) -> AsyncIterator[Table]:
    """A table that stands from here to the end of the block, whatever ends it."""
    table = Table(interface)
    try:
        await table.load(text)
        yield table
    finally:
        await asyncio.shield(table.remove())

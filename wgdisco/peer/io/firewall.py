"""`--block-incoming`: nothing new comes in from members. An nft table of our own, there while the daemon is."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from wgdisco.errors import LocalError

LOG = logging.getLogger(__name__)


@asynccontextmanager
async def incoming_blocked(interface: str, blocked: bool) -> AsyncIterator[None]:
    """Drop new connections that come in on `interface`, and answers of none; LocalError when nft refuses."""
    if not blocked:
        yield
        return
    table = f"wgdisco-block-{interface}"
    rules = "".join(
        f"add chain inet {table} {hook} {{ type filter hook {hook} priority -10; }}\n"
        f'add rule inet {table} {hook} iifname "{interface}" ct state new,invalid drop\n'
        for hook in ("input", "forward")
    )
    # A table that a killed daemon left is replaced in the same transaction.
    await _nft(f"add table inet {table}\ndelete table inet {table}\nadd table inet {table}\n{rules}")
    try:
        yield
    finally:
        try:
            await _nft(f"delete table inet {table}\n")
        except LocalError as error:
            LOG.warning("%s", error)


async def _nft(rules: str) -> None:
    try:
        process = await asyncio.create_subprocess_exec(
            "nft", "-f", "-", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    except FileNotFoundError as error:
        raise LocalError("--block-incoming needs nft: install the package nftables") from error
    _, complaint = await process.communicate(rules.encode())
    if process.returncode != 0:
        lines = complaint.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise LocalError(f"nft refuses the rules of --block-incoming: {lines[0]}")

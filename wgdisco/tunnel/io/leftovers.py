"""What a daemon that was killed left on this host, undone: by the next one as it starts, and by verbs.

Each part keeps in /run what it is about to do (`policy.py`, `forwarding.py`, `host_dns.py`), or marks what it makes:
nft tables and rules of the firewall by name, the kernel's interface by our key.
"""

import re
import socket
from contextlib import suppress
from pathlib import Path

from wgdisco.errors import LocalError
from wgdisco.keys import PublicKey
from wgdisco.tunnel.firewall import Need
from wgdisco.tunnel.io import control, uapi
from wgdisco.tunnel.io.driven import remove_left
from wgdisco.tunnel.io.firewall import close_firewall
from wgdisco.tunnel.io.forwarding import Forwarding
from wgdisco.tunnel.io.host_dns import take_back_left
from wgdisco.tunnel.io.nft import Table
from wgdisco.tunnel.io.policy import Policy


async def take_back(interface: str, own_key: PublicKey | None = None, need: Need | None = None) -> None:
    """Have this host as it was before `interface`, of which no daemon runs; without anything left this does nothing.

    The kernel's interface goes if it has `own_key`. With `need` the firewall is closed, but for what outlasts a reboot.
    LocalError when routing cannot be put back, once all else is; another call tries again.
    """
    try:
        await Policy(interface).close()
    finally:
        await take_back_left(interface)
        await Forwarding(interface).restore()
        with suppress(LocalError):  # without nft there is no table, and without root none of ours
            await Table(interface).remove()
        if need is not None:
            with suppress(LocalError):
                await close_firewall(need, permanent=False)
        if own_key is not None:
            remove_left(interface, own_key)
        for path in _kept(interface):
            if path.suffix == ".new":
                _unlink(path)
        for path in (control.socket_path(interface), uapi.DIRECTORY / f"{interface}.sock"):
            _remove_stale(path)


def is_left(interface: str) -> bool:
    """Whether a daemon of `interface` has, or had when it was killed, something in /run."""
    return bool(_kept(interface))


def _kept(interface: str) -> list[Path]:
    ours = re.compile(re.escape(interface) + r"\.[a-z]+(\.new)?")
    with suppress(OSError):
        return [path for path in control.DIRECTORY.iterdir() if ours.fullmatch(path.name)]
    return []


def _remove_stale(path: Path) -> None:
    """Take away a socket on which nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            _unlink(path)
        except OSError:
            pass  # there is none, or its owner is busy


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()

"""Who holds a UDP port, for the message that says it is taken."""

from pathlib import Path

_PROC = Path("/proc")


def port_owner(port: int) -> str | None:
    """`name (pid N)` of a process in this network namespace whose UDP socket is bound to `port`; None if not found.

    Sockets of the kernel (a WireGuard interface) and, without root, of other users have no process to show.
    """
    inodes = _bound_inodes(port)
    if not inodes:
        return None
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in _PROC.iterdir():
        if process.name.isdigit() and _holds(process, links):
            return f"{_command(process)} (pid {process.name})"
    return None


def _bound_inodes(port: int) -> set[str]:
    """Inodes of the UDP sockets bound to `port`, from proc_net_udp(5): column 1 is local, column 9 the inode."""
    suffix = f":{port:04X}"
    inodes: set[str] = set()
    for table in ("net/udp", "net/udp6"):
        try:
            lines = (_PROC / table).read_text().splitlines()[1:]
        except OSError:
            continue  # no IPv6, or no /proc
        rows = (line.split() for line in lines)
        inodes.update(row[9] for row in rows if len(row) > 9 and row[1].endswith(suffix))
    return inodes


def _holds(process: Path, links: set[str]) -> bool:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:
        return False  # it ended, or it is not ours to look into
    return any(_link(descriptor) in links for descriptor in descriptors)


def _link(descriptor: Path) -> str | None:
    try:
        return str(descriptor.readlink())
    except OSError:
        return None  # closed meanwhile


def _command(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a process"

"""The command `wgdisco-tunnel [-f|--foreground] IFACE`: a drop-in for `wireguard-go IFACE`."""

import argparse
from collections.abc import Sequence

from wgdisco.tunnel.io import daemon


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code (errors.py)."""
    parser = argparse.ArgumentParser(
        prog=daemon.PROGRAM,
        description="A WireGuard interface run by this program. Configure it with wg, or let wg-quick start it: "
        f"WG_QUICK_USERSPACE_IMPLEMENTATION={daemon.PROGRAM}",
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    parser.add_argument("interface", metavar="IFACE", help="the interface to make")
    options = parser.parse_args(arguments)
    return daemon.run(options.interface) if options.foreground else daemon.run_in_background(options.interface)

"""The command `wgdisco-tunnel [-f|--foreground] IFACE`: a drop-in for `wireguard-go IFACE`."""

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence

from wgdisco import logs
from wgdisco.errors import ConfigError
from wgdisco.process import program_version
from wgdisco.tunnel import burst
from wgdisco.tunnel.io import daemon
from wgdisco.tunnel.offloads import Offloads

# LOG_LEVEL; whatever else it says is "error"
_LEVELS = {"verbose": logging.DEBUG, "debug": logging.DEBUG, "silent": logging.CRITICAL + 1}


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog=daemon.PROGRAM,
        description="A WireGuard interface run by this program, in the place of wireguard-go. It makes the interface"
        " and its configuration socket, goes to the background, and leaves the rest to wg, or to wg-quick, which"
        f" starts it with WG_QUICK_USERSPACE_IMPLEMENTATION={daemon.PROGRAM}. It ends on SIGINT, SIGTERM, and when"
        " the interface or the socket's file is deleted.",
    )
    parser.add_argument("-f", "--foreground", action="store_true", help="stay in the foreground")
    version = f"{daemon.PROGRAM} {program_version()} (engine: {burst.implementation()})"
    parser.add_argument("--version", action="version", version=version)
    parser.add_argument(
        "--offload",
        metavar="NAMES",
        default=os.environ.get("WGDISCO_OFFLOAD") or "all",
        help="what the kernel may do for many packets at once: of tso,uso,udp_gso,udp_gro those to use; all (default),"
        " or none",
    )
    parser.add_argument("interface", metavar="IFACE", help="the interface to make")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code (errors.py)."""
    options = build_parser().parse_args(arguments)
    level = _LEVELS.get(os.environ.get("LOG_LEVEL", ""), logging.ERROR)
    logs.configure("text")
    logging.getLogger("wgdisco").setLevel(level)
    try:
        start = daemon.Start(
            options.interface,
            _descriptor(os.environ, "WG_TUN_FD"),
            _descriptor(os.environ, "WG_UAPI_FD"),
            keeps_log="LOG_LEVEL" in os.environ and level <= logging.CRITICAL,
            offloads=Offloads.from_text(options.offload),
        )
    except ConfigError as error:
        print(f"{daemon.PROGRAM}: {error}", file=sys.stderr)
        return error.exit_code
    is_foreground = options.foreground or os.environ.get("WG_PROCESS_FOREGROUND") == "1"
    return daemon.run(start) if is_foreground else daemon.run_in_background(start)


def _descriptor(environment: Mapping[str, str], name: str) -> int | None:
    """An open descriptor that the environment names; ConfigError for what is none."""
    text = environment.get(name, "")
    if not text:
        return None
    try:
        fd = int(text)
        os.fstat(fd)
    except (ValueError, OSError):
        raise ConfigError(f"{name}={text} is no open descriptor") from None
    return fd

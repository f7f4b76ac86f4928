"""The member as a systemd unit, `wgdisco-join@NETWORK`; where systemd does not run, none of this applies."""

import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from wgdisco.errors import LocalError
from wgdisco.machine import DAEMON_USER

_RUNNING = Path("/run/systemd/system")
_UNITS = Path("/etc/systemd/system")
_UNIT = """\
# Written by `wgdisco join`; `wgdisco leave {network}` removes it.
[Unit]
Description=wgdisco member of {network}
Documentation=man:wgdisco(1)
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={command} join --network {network} --foreground
Restart=on-failure
RestartSec=2
# 2: the configuration is wrong, and stays so
RestartPreventExitStatus=2
# the nft that takes our rules out is not to be stopped with us
KillMode=mixed

User=wgdisco
AmbientCapabilities=CAP_NET_ADMIN
CapabilityBoundingSet=CAP_NET_ADMIN
RuntimeDirectory=wgdisco
# the sockets in it are for root and the group wgdisco
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
StateDirectory=wgdisco
StateDirectoryMode=0700
UMask=0077
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateMounts=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""


def has_systemd() -> bool:
    """Whether systemd runs this machine."""
    return _RUNNING.is_dir()


def unit_name(network: str) -> str:
    """The network's unit."""
    return f"wgdisco-join@{network}.service"


def unit_text(network: str, command: str) -> str:
    """The unit of a member that `command` runs."""
    return _UNIT.format(network=network, command=command)


def start(network: str) -> None:
    """Install the unit, have it start with the machine, and start it. LocalError when systemd refuses."""
    _make_user()
    command = str(Path(sys.argv[0]).resolve())
    if not Path(command).is_file() or command.endswith("__main__.py"):
        command = f"{sys.executable} -m wgdisco"
    text = unit_text(network, command)
    path = _UNITS / unit_name(network)
    try:
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            path.chmod(0o644)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from error
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", unit_name(network))


def stop(network: str) -> None:
    """Stop the unit, and have it stay down."""
    if (_UNITS / unit_name(network)).exists():
        _systemctl("disable", "--now", unit_name(network))


def remove(network: str) -> None:
    """Stop the unit and take it away."""
    stop(network)
    path = _UNITS / unit_name(network)
    if path.exists():
        path.unlink()
        _systemctl("daemon-reload")


def _make_user() -> None:
    """Have the user that the unit names: `make install` makes it, other ways to install do not."""
    try:
        pwd.getpwnam(DAEMON_USER)
    except KeyError:
        text = f'u {DAEMON_USER} - "wgdisco daemons" /var/lib/wgdisco\n'
        _run("systemd-sysusers", "-", text=text)


def _systemctl(*arguments: str) -> None:
    _run("systemctl", *arguments)


def _run(*command: str, text: str = "") -> None:
    if shutil.which(command[0]) is None:
        raise LocalError(f"there is no {command[0]} here: run `wgdisco join` with --foreground")
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise LocalError(f"{' '.join(command)}: {lines[0]}")

"""The member as a systemd unit, `wgdisco-join@NETWORK`; where systemd does not run, none of this applies."""

from pathlib import Path

from wgdisco import systemd
from wgdisco.tunnel.engines import EngineKind

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
# systemd-resolved and resolvconf take name servers from root alone
ExecStartPost=-+{command} host-dns {network}
ExecStopPost=-+{command} host-dns --undo {network}
Restart=on-failure
RestartSec=2
# 2: the configuration is wrong, and stays so
RestartPreventExitStatus=2
# the nft that takes our rules out is not to be stopped with us
KillMode=mixed

User=wgdisco
AmbientCapabilities={capabilities}
CapabilityBoundingSet={capabilities}
RuntimeDirectory=wgdisco
# the sockets in it are for root and the group wgdisco
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
# wg looks for sockets there and nowhere else; root's own stay root's
ExecStartPre=+install -d -m 1775 -g wgdisco /run/wireguard
ReadWritePaths=-/run/wireguard
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
# but for the network's: what leads out of here by another member, or in to what is offered
ReadWritePaths=/proc/sys/net
ProtectProc=invisible
ProtectSystem=strict
RestrictAddressFamilies={families}
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


def unit_name(network: str) -> str:
    """The network's unit."""
    return f"wgdisco-join@{network}.service"


def unit_text(network: str, command: str, engine: EngineKind = EngineKind.USERSPACE) -> str:
    """The unit of a member that `command` runs.

    Beside an `engine` that is not ours it may have packet and raw sockets, for checks and openers on that one's port.
    """
    is_ours = engine is EngineKind.USERSPACE
    capabilities = "CAP_NET_ADMIN" if is_ours else "CAP_NET_ADMIN CAP_NET_RAW"
    families = "AF_UNIX AF_INET AF_INET6 AF_NETLINK" + ("" if is_ours else " AF_PACKET")
    return _UNIT.format(network=network, command=command, capabilities=capabilities, families=families)


def start(network: str, engine: EngineKind) -> None:
    """Install the unit, have it start with the machine, and start it. LocalError when systemd refuses."""
    systemd.write_unit(_path(network), unit_text(network, systemd.program(), engine))
    systemd.systemctl("enable", "--now", unit_name(network))


def stop(network: str) -> None:
    """Stop the unit, and have it stay down."""
    if _path(network).exists():
        systemd.systemctl("disable", "--now", unit_name(network))


def remove(network: str) -> None:
    """Stop the unit and take it away."""
    stop(network)
    systemd.remove_unit(_path(network))


def _path(network: str) -> Path:
    return Path("/") / systemd.UNITS / unit_name(network)

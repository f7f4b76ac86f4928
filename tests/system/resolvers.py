"""Real resolvers on a lab's host, over files of its own: nothing of this machine's changes.

systemd-resolved and avahi run with a bus of their own; openresolv is a program that writes /etc/resolv.conf. All are
Debian's, unpacked by `scripts/peers resolvers avahi`.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.network import await_

RESOLVERS = Path(__file__).parents[2] / ".peers" / "resolvers"
AVAHI = RESOLVERS.with_name("avahi")

# Argument: the directory of what was unpacked.
_FILES = """
ip address add 172.31.0.53/32 dev lo
mkdir -p /run/over/upper /run/over/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/over/upper,workdir=/run/over/work /etc
rm -f /etc/resolv.conf /etc/resolvconf.conf
printf 'hosts: files dns\\n' >/etc/nsswitch.conf
printf 'nameserver 172.31.0.53\\n' >/etc/resolv.conf
mount -t tmpfs -o mode=755 tmpfs /usr/local/sbin
"""
_OPENRESOLV = """
mount -t overlay overlay -o lowerdir="$1/openresolv/lib:$(realpath /lib)" "$(realpath /lib)"
cp "$1/openresolv/sbin/resolvconf" /usr/local/sbin/
: >/etc/resolvconf.conf
echo nameserver 172.31.0.53 | resolvconf -a eth0.dhcp
"""
_RESOLVED = """
cp "$1/systemd-resolved/usr/bin/resolvectl" /usr/local/sbin/
ln -s resolvectl /usr/local/sbin/resolvconf
grep -q ^systemd-resolve: /etc/passwd || echo 'systemd-resolve:x:990:990::/:/usr/sbin/nologin' >>/etc/passwd
grep -q ^systemd-resolve: /etc/group || echo 'systemd-resolve:x:990:' >>/etc/group
printf '[Resolve]\\nDNS=172.31.0.53\\nFallbackDNS=\\nLLMNR=no\\nMulticastDNS=no\\n' >/etc/systemd/resolved.conf
mkdir -p /run/systemd
"""
_BUS = """
mkdir -p /run/dbus
cat >/run/bus.conf <<X
<busconfig><type>system</type><listen>unix:path=/run/dbus/system_bus_socket</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow receive_sender="*"/></policy>
</busconfig>
X
dbus-daemon --config-file=/run/bus.conf --nofork --nopidfile &
until [ -S /run/dbus/system_bus_socket ]; do sleep 0.02; done
"""
_RESOLVED += _BUS
_RESOLVED += """
ln -sf /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
exec "$1/systemd-resolved/lib/systemd/systemd-resolved"
"""

# Arguments: the directory of what was unpacked, the name server.
_AVAHI = """
echo "nameserver $2" >/etc/resolv.conf
mkdir -p /run/avahi-daemon
cat >/run/avahi.conf <<X
[server]
use-ipv6=no
[wide-area]
enable-wide-area=yes
[publish]
disable-publishing=yes
X
export LD_LIBRARY_PATH="$(echo "$1"/usr/lib/*-linux-gnu*)"
exec "$1/usr/sbin/avahi-daemon" -f /run/avahi.conf --no-drop-root --no-rlimits --no-chroot
"""


def give_usual(host):
    """Files of its own, and the usual name server alone."""
    if os.geteuid() != 0:
        pytest.skip("a resolver needs files of its own in /etc: run as root")
    host.run(["sh", "-ec", _FILES])


def give_openresolv(host):
    """Have openresolv write the host's /etc/resolv.conf."""
    _check()
    host.run(["sh", "-ec", _FILES + _OPENRESOLV, "sh", str(RESOLVERS)])


def give_resolved(host):
    """Have the host ask systemd-resolved, which runs until the lab ends."""
    _check_resolved()
    host.run(["sh", "-ec", _FILES])
    process = host.popen(
        ["sh", "-ec", _RESOLVED, "sh", str(RESOLVERS)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    answers = ["resolvectl", "status"]
    await_(lambda: process.poll() is not None or host.run(answers, check=False).returncode == 0, "systemd-resolved")
    assert process.returncode is None, "systemd-resolved has ended"


def give_resolved_to_machine(booted):
    """The same for one that a systemd runs."""
    _check_resolved()
    booted.run("sh", "-ec", _FILES)
    resolvers = "/opt/wgdisco/source/.peers/resolvers"
    booted.run("systemd-run", "--quiet", "--unit=resolved", "sh", "-ec", _RESOLVED, "sh", resolvers)
    answers = ("/usr/local/sbin/resolvectl", "status")
    await_(lambda: booted.run(*answers, check=False).returncode == 0, "systemd-resolved")


def give_avahi(host, server):
    """Have avahi there ask `server` for what is not on its LAN; returns a function that runs one of its programs."""
    if not AVAHI.exists():
        pytest.skip("`scripts/peers avahi` has not unpacked it")
    _check_bus("avahi")
    host.run(["sh", "-ec", _FILES])
    process = host.popen(
        ["sh", "-ec", _BUS + _AVAHI, "sh", str(AVAHI), server], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    libraries = next(AVAHI.glob("usr/lib/*-linux-gnu*"))

    def run(program, *words):
        command = ["env", f"LD_LIBRARY_PATH={libraries}", str(AVAHI / "usr/bin" / program), *words]
        return host.run(command, check=False).stdout

    started = "/run/avahi-daemon/socket"
    await_(
        lambda: process.poll() is not None or host.run(["test", "-S", started], check=False).returncode == 0, "avahi"
    )
    assert process.returncode is None, "avahi-daemon has ended"
    return run


def _check_resolved():
    _check()
    _check_bus("systemd-resolved")


def _check_bus(program):
    if os.geteuid() != 0:
        pytest.skip("a resolver needs files of its own in /etc: run as root")
    if shutil.which("dbus-daemon") is None:
        pytest.skip(f"{program} needs a bus: the package dbus-daemon")


def _check():
    if os.geteuid() != 0:
        pytest.skip("a resolver needs files of its own in /etc: run as root")
    if not RESOLVERS.exists():
        pytest.skip("`scripts/peers resolvers` has not unpacked them")

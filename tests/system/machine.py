"""A machine in a lab: a host on which a systemd of its own is the first process, as on a VPS, over a copy of this one.

Its files are this machine's under an overlay, so that nothing here changes; its network is the host's. What is
installed is this checkout, under /opt/wgdisco and /usr/local/bin/wgdisco as `make install` has it.
"""

import os
import secrets
import subprocess
import sys
import sysconfig
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.system.network import await_

ROOT = Path(__file__).parents[2]
SYSTEMD = Path("/usr/lib/systemd/systemd")

# Arguments: a cgroup of its own, this checkout, its Python packages, its interpreter.
_BOOT = """
mkdir "$1"
echo 0 >"$1/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --uts --ipc --cgroup sh -ec '
    mount --make-rshared /  # systemd mounts credentials from a namespace beside
    mount -t tmpfs tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
    cd /mnt/root
    rm -rf var/lib/wgdisco etc/wgdisco etc/fstab opt/wgdisco usr/local/bin/wgdisco
    sed -i /^wgdisco:/d etc/passwd etc/group
    for empty in etc/systemd/system usr/lib/systemd/system/sysinit.target.wants \\
        usr/lib/systemd/system/sockets.target.wants usr/lib/systemd/system-generators; do
        mount -t tmpfs -o mode=755 tmpfs $empty
    done
    ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket usr/lib/systemd/system/sockets.target.wants/
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    mount -t cgroup2 none sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in null zero full random urandom tty; do
        touch dev/$device
        mount --bind /dev/$device dev/$device
    done
    mkdir dev/net dev/shm
    mknod -m 666 dev/net/tun c 10 200
    mount -t tmpfs tmpfs dev/shm
    ln -s /proc/self/fd dev/fd
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=1777 tmpfs tmp
    mkdir -p opt/wgdisco/source opt/wgdisco/packages
    mount --bind "$1" opt/wgdisco/source
    mount --bind "$2" opt/wgdisco/packages
    printf "%s\\n" "#!$3 -P" "import sys" "sys.path[:0] = [\\"/opt/wgdisco/source\\", \\"/opt/wgdisco/packages\\"]" \\
        "from wgdisco.__main__ import main" "sys.exit(main())" >usr/local/bin/wgdisco
    chmod 755 usr/local/bin/wgdisco
    exec env -i container=lab PATH=/usr/local/bin:/usr/sbin:/usr/bin chroot . /usr/lib/systemd/systemd \\
        --system --unit=basic.target --log-target=console --log-level=warning --show-status=no
' boot "$2" "$3" "$4"
"""


class Machine:
    """A systemd that has booted on `host`. Make it with `machine`."""

    def __init__(self, host, pid):
        self.host = host
        self._enter = [
            "nsenter", f"--target={pid}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root",
            "env", "-i", "-C", "/", "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
        ]  # fmt: skip

    def run(self, *command, check=True, text=None):
        """Run it as root of the machine."""
        done = subprocess.run(
            [*self._enter, *command], input=text, capture_output=True, encoding="utf-8", timeout=60, check=False
        )
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done

    def journal(self, unit):
        """What the unit said, for messages."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}", check=False).stdout


@contextmanager
def machine(host):
    """Boot a systemd on a lab's host, or skip where that cannot be; it ends with the block."""
    cgroup = _cgroups() / f"wgdisco-lab-{secrets.token_hex(4)}"
    packages, python = sysconfig.get_path("purelib"), os.path.realpath(sys.executable)
    process = host.popen(
        ["sh", "-ec", _BOOT, "boot", str(cgroup), str(ROOT), packages, python],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        pid = _first_process(process)
        booted = Machine(host, pid)
        await_(lambda: booted.run("systemctl", "is-system-running", check=False).stdout == "running\n", "systemd", 20)
        yield booted
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        _remove(cgroup)


def _cgroups():
    """Where the unified hierarchy is mounted; skips where it is not, or no systemd is."""
    if os.geteuid() != 0 or not SYSTEMD.exists():
        pytest.skip("booting a systemd takes root, and the package systemd")
    found = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup2 rw" in line]
    if not found:
        pytest.skip("no cgroup2 is mounted here that could be written to")
    (own,) = [line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::")]
    return Path(found[0], own.lstrip("/"))


def _first_process(process):
    """The systemd that `process` leads to: nsenter, what it entered, and below that unshare's child."""

    def found():
        if process.poll() is not None:
            pytest.skip(f"no systemd can be booted here: {process.stdout.read().strip()}")
        return next((pid for pid in descendants(process.pid) if _name(pid) == "systemd"), None)

    return await_(found, "systemd to start")


def zone_server(pid):
    """The process of the zone's server below `pid`, a registry's."""
    (found,) = (
        child
        for child in descendants(pid)
        if b"wgdisco.dnssd.io.zone_server" in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
    )
    return found


def descendants(pid):
    with suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            yield int(child)
            yield from descendants(int(child))


def _name(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return None


def _remove(cgroup):
    """Cgroups go once their processes have."""

    def gone():
        for directory in sorted(cgroup.rglob("*"), reverse=True):
            if directory.is_dir():
                with suppress(OSError):
                    directory.rmdir()
        with suppress(OSError):
            cgroup.rmdir()
        return not cgroup.exists()

    await_(gone, f"{cgroup} to be empty")

"""The namespaces a lab lives in, and the processes run in them. Nothing outlives the process that made them.

::

    this process ──pipe──► unshare ──► cat      first process of a PID and a mount namespace (and of a user
                                        │       namespace, unless we are root); ends when the pipe closes
                                        ├─ sleep    holds the network and mount namespaces of one host
                                        ├─ sleep    of another host …
                                        └─ whatever `Host.run` and `Host.popen` start

The kernel closes the pipe whatever way this process ends, SIGKILL included, and ends a PID namespace with its first
process. The hosts' namespaces have no names, so they go with the processes in them; /run/netns is never touched.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from wgdisco.errors import LocalError

TUN_PATH = Path("/dev/net/tun")
_TOOLS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "ip": "iproute2",
    "nft": "nftables",
    "ping": "iputils-ping",
}
# How a holder is found again, by us and by `wgdisco lab exec`: in its environment, so that no file is left behind.
_LAB_VARIABLE = b"WGDISCO_LAB"
_SEEN_TIMEOUT = 2.0
_HOST_VARIABLE = b"WGDISCO_LAB_HOST"

# Arguments are the hosts' names. Where there is no /var/lib/wgdisco to mount on, /var/lib becomes a tmpfs of links to
# what it held: the real directory must not change. Each holder prints a letter once it stands and then closes its
# output, so the substitution ends when all have stood or failed.
_FIRST_PROCESS = """
mount -t tmpfs -o mode=755 tmpfs /run
if [ ! -d /var/lib/wgdisco ]; then
    mkdir -p /run/lib/wgdisco /run/lib/.real
    mount --rbind /var/lib /run/lib/.real
    cd /run/lib
    ln -s .real/* .
    mount --rbind /run/lib /var/lib
    cd /
fi
if [ -d /etc/wgdisco ]; then mount -t tmpfs tmpfs /etc/wgdisco; fi  # nobody's real settings
standing=$(for host; do
    WGDISCO_LAB_HOST=$host unshare --net --mount sh -ec '
        mount -t tmpfs -o mode=755 tmpfs /run
        mount -t tmpfs -o mode=700 tmpfs /var/lib/wgdisco
        printf x
        exec sleep infinity >/dev/null 2>&1
    ' </dev/null &
done)
[ ${#standing} -eq $# ]
echo stands
trap "" CHLD  # orphans are reaped by the kernel
exec cat >/dev/null 2>&1
"""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that holds a host's namespaces; `pid` as seen here, `inner_pid` as seen in the lab."""

    lab: str
    host: str
    pid: int
    inner_pid: int
    started: int


def find_holders(lab: str | None = None) -> list[Holder]:
    """Holders of the lab with that identifier, or of every lab whose processes we may look at; oldest first."""
    holders = []
    for directory in Path("/proc").glob("[0-9]*"):
        # ProcessLookupError and FileNotFoundError: it has just ended. PermissionError: someone else's.
        with contextlib.suppress(OSError):
            variables = dict(
                entry.split(b"=", 1) for entry in (directory / "environ").read_bytes().split(b"\0") if b"=" in entry
            )
            if _HOST_VARIABLE not in variables or lab not in (None, variables[_LAB_VARIABLE].decode()):
                continue
            status = (directory / "status").read_text()
            inner_pid = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1]
            started = (directory / "stat").read_text().rpartition(")")[2].split()[19]
            holders.append(
                Holder(
                    lab=variables[_LAB_VARIABLE].decode(),
                    host=variables[_HOST_VARIABLE].decode(),
                    pid=int(directory.name),
                    inner_pid=int(inner_pid),
                    started=int(started),
                )
            )
    return sorted(holders, key=lambda holder: (holder.started, holder.pid))


def enter_command(pid: int) -> list[str]:
    """The command line that runs what follows it in the namespaces of process `pid`."""
    command = ["nsenter", "--target", str(pid), "--pid", "--net", "--mount"]
    if os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino:
        command += ["--user", "--preserve-credentials"]
    return command


def environment() -> dict[str, str]:
    """The environment of everything run in a lab: this one, with /sbin in the path and this very package importable.

    Without `WGDISCO_*`, which would configure the lab's daemons.
    """
    package_parent = str(Path(__file__).parents[2])
    python_path = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    path = os.pathsep.join([os.environ.get("PATH", "/usr/bin:/bin"), "/usr/sbin", "/sbin"])
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WGDISCO_")}
    return {**kept, "PATH": path, "PYTHONPATH": os.pathsep.join(python_path)}


class HostProcess(subprocess.Popen[str]):
    """A process in a host. What we wait for is the nsenter around it; signals go to the process itself."""

    def send_signal(self, sig: int) -> None:
        """Send `sig` to the process in the host; nothing if it has ended."""
        if self.poll() is not None:
            return
        children = _children(self.pid)
        if not children:  # nsenter has not forked yet
            super().send_signal(sig)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, sig)

    def stop(self, timeout: float = 5.0) -> int:
        """End it with SIGTERM, after `timeout` seconds with SIGKILL; returns its exit status as Popen gives it."""
        self.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()


@dataclass(frozen=True, slots=True)
class Host:
    """One host of a lab: its own network namespace, and its own tmpfs on /run and /var/lib/wgdisco."""

    name: str
    pid: int
    inner_pid: int
    _environment: dict[str, str] = field(repr=False)
    _started: list[HostProcess] = field(repr=False)

    def popen(
        self,
        command: Sequence[str],
        *,
        stdin: int | IO[str] | None = subprocess.DEVNULL,
        stdout: int | IO[str] | None = None,
        stderr: int | IO[str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> HostProcess:
        """Start `command` in this host, as root of the lab; Ctrl-C on the terminal does not reach it."""
        process = HostProcess(
            [*enter_command(self.pid), "--", *command],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**self._environment, **(env or {})},
            encoding="utf-8",
            errors="backslashreplace",
            process_group=0,
        )
        self._started[:] = [*(other for other in self._started if other.returncode is None), process]
        return process

    def run(
        self, command: Sequence[str], *, text: str | None = None, timeout: float = 30.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` with `text` as its standard input and wait for it.

        Raises LocalError with its complaint on failure (unless not `check`), subprocess.TimeoutExpired after `timeout`
        seconds.
        """
        stdin = subprocess.DEVNULL if text is None else subprocess.PIPE
        with self.popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            try:
                stdout, stderr = process.communicate(text, timeout)
            except BaseException:
                process.kill()
                raise
        if check and process.returncode != 0:
            raise LocalError(f"{self.name}: {' '.join(command)}: {_complaint(stderr) or 'failed'}")
        return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)

    def write_file(self, path: str, text: str) -> None:
        """Write a file only root may read, making its directory; inside /run nobody outside this host sees it."""
        self.run(["sh", "-ec", 'umask 077; mkdir -p "${0%/*}"; cat >"$0"', path], text=text)


class World:
    """A set of hosts with nothing between them, that ends with `close()` or with this process."""

    def __init__(self, names: Sequence[str]) -> None:
        """Make the hosts; LocalError says what to do where that is not allowed."""
        check_machine()
        self.lab = secrets.token_hex(8)
        self._started: list[HostProcess] = []
        variables = environment()
        command = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc"]
        if os.geteuid() != 0:
            command += ["--user", "--map-root-user"]
        self._first = subprocess.Popen(
            [*command, "sh", "-ec", _FIRST_PROCESS, "wgdisco-lab", *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**variables, _LAB_VARIABLE.decode(): self.lab},
            encoding="utf-8",
            start_new_session=True,
        )
        try:
            self.hosts = self._stand(names, variables)
        except BaseException:
            self.close()
            raise

    def _stand(self, names: Sequence[str], variables: dict[str, str]) -> dict[str, Host]:
        """The hosts, once all stand."""
        assert self._first.stdout is not None
        assert self._first.stderr is not None
        if not self._first.stdout.readline():
            raise LocalError(_refusal(_complaint(self._first.stderr.read())))
        holders = find_holders(self.lab)
        deadline = time.monotonic() + _SEEN_TIMEOUT
        while {holder.host for holder in holders} != set(names) and time.monotonic() < deadline:
            time.sleep(0.01)  # a holder in the middle of its exec shows no environment for a moment
            holders = find_holders(self.lab)
        hosts = {
            holder.host: Host(holder.host, holder.pid, holder.inner_pid, variables, self._started) for holder in holders
        }
        if set(hosts) != set(names):
            raise LocalError("cannot see the lab's own processes in /proc: mount it without hidepid")
        return hosts

    def close(self) -> None:
        """End every process of the lab; returns when they are gone. May be called again."""
        with self._first:  # closes the pipes and waits
            pass
        for process in self._started:
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def check_machine() -> None:
    """LocalError, saying what to do, if a tool or the TUN device is missing. What `unshare` may do only it can say."""
    path = environment()["PATH"]
    missing = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool, path=path) is None})
    if missing:
        raise LocalError(f"the lab needs more Debian packages: apt-get install {' '.join(missing)}")
    try:
        os.close(os.open(TUN_PATH, os.O_RDWR))
    except PermissionError:
        raise LocalError(f"cannot open {TUN_PATH}: run this with sudo") from None
    except OSError as error:
        raise LocalError(f"cannot open {TUN_PATH} ({error.strerror}): load it with `sudo modprobe tun`") from None


def _refusal(reason: str) -> str:
    reason = reason or "no reason given"
    if os.geteuid() == 0:
        return f"the lab needs namespaces, which this system refuses ({reason}): run it where root has CAP_SYS_ADMIN"
    return f"the lab needs namespaces, which this system refuses an ordinary user ({reason}): run this with sudo"


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _complaint(stderr: str) -> str:
    """The line that matters: the first that says error, as ip and nft print; else the last, as most others do."""
    lines = stderr.strip().splitlines() or [""]
    return next((line for line in lines if "Error: " in line), lines[-1]).strip()

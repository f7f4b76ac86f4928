"""What shells ask of the machine: its clock, whether it slept, who holds a port, whose files and memory are whose."""

import ctypes
import os
import pwd
import resource
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from wgdisco.errors import LocalError

# Whom systemd runs the daemons as; `make install` makes it. By hand they run as root, and own the same files.
DAEMON_USER = "wgdisco"
_PROC = Path("/proc")
# sys/prctl.h, linux/capability.h, sys/mman.h
_PR_SET_DUMPABLE = 4
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE = 47, 2
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_CAP_IPC_LOCK = 14
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
# What a daemon with a few peers needs, and to spare; and what no registry needs more of
FILES, MOST_FILES = 128, 65536
# So much longer than it meant to wait, in seconds, a loop is late only when it could not run: the machine slept.
OVERSLEPT = 5.0
# A suspension shorter than this, in seconds, is none; the two clocks are read one after the other.
SUSPENDED = 1.0


def boot_time() -> float:
    """The clock everything is driven by: seconds since boot, time asleep included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def guard_memory() -> None:
    """Keep this process's memory, which has keys in it, out of core dumps and swap, and from others of the same user.

    Swapping is prevented with the capability CAP_IPC_LOCK only: without it, and with a limit, what is allocated later
    could fail. What is locked is what is used: it costs no memory.
    """
    libc = ctypes.CDLL(None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY or has_capability(_CAP_IPC_LOCK):
        libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)


def give_back_memory() -> None:
    """Let the system have what loading the program has left free in the C library's heap, where that can tell."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def allow_files() -> None:
    """Have as many files open as this process may; LocalError where that is too few for any daemon."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY:
        hard = MOST_FILES
    if hard < FILES:
        raise LocalError(f"{hard} open files are too few: allow {FILES}, with `ulimit -Hn` or a unit's LimitNOFILE=")
    wanted = min(hard, MOST_FILES)
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def take_capabilities() -> None:
    """Have in effect what the file of this program permits, and hand it on to programs we start (capabilities(7)).

    Nothing for root, who has all and hands all on; where the kernel refuses, what needs them will say so.
    """
    if os.geteuid() == 0:
        return
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable of the first 32, then of the others
    if libc.capget(header, sets):
        return
    for half in (0, 3):
        sets[half] = sets[half + 2] = sets[half + 1]
    if libc.capset(header, sets):
        return
    for number in range(64):
        if sets[1 if number < 32 else 4] >> number % 32 & 1:
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)


def has_capability(number: int) -> bool:
    """Whether this process has it in effect: capabilities(7), the bit in /proc/self/status."""
    status = (_PROC / "self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> number & 1)


class SuspendWatch:
    """Tells whether the machine was suspended: only then the boot-time clock gets ahead of the one that stands still.

    A process that was merely stopped, or a clock that was set, is none.
    """

    def __init__(self, clock: Callable[[], float] = boot_time, awake: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._awake = awake
        self._slept = clock() - awake()

    @property
    def limit(self) -> float:
        """How far, in seconds, `clock` may be ahead of `awake` before a look at it tells of a suspension."""
        return self._slept + SUSPENDED

    def look(self) -> tuple[float, float]:
        """What `clock` says, and how many seconds of the time since the last look the machine was suspended."""
        now = self._clock()
        slept = now - self._awake()
        if slept < self.limit:
            return now, 0.0
        before, self._slept = self._slept, slept
        return now, slept - before


class SleepWatch(selectors.EpollSelector):
    """A selector for an event loop that is told first, before any packet is looked at, that the machine has slept.

    `woke` is called then. `clock` goes on while the machine sleeps, what a selector waits by does not.
    """

    def __init__(self, clock: Callable[[], float] = boot_time) -> None:
        super().__init__()
        self.woke: Callable[[], None] = lambda: None
        self._clock = clock
        self._awake_at = clock()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As every selector's; a loop that waits without a timeout cannot tell."""
        before = self._awake_at
        ready = self._wait(timeout)
        self._awake_at = self._clock()
        if timeout is not None and self._awake_at - before >= max(0.0, timeout) + OVERSLEPT:
            self.woke()
        return ready

    def _wait(self, timeout: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(timeout)


def has_ipv6() -> bool:
    """Whether interfaces made from now on speak IPv6."""
    try:
        return (_PROC / "sys/net/ipv6/conf/default/disable_ipv6").read_text().strip() == "0"
    except OSError:
        return False


def port_owner(port: int, kind: str = "udp") -> str | None:
    """`name (pid N)` of a process in this network namespace whose "udp" or "tcp" socket is bound to `port`.

    None if not found: sockets of the kernel (a WireGuard interface) and, without root, those of other users have no
    process to show.
    """
    inodes = _bound_inodes(port, kind)
    if not inodes:
        return None
    links = {f"socket:[{inode}]" for inode in inodes}
    for process in _PROC.iterdir():
        if process.name.isdigit() and _holds(process, links):
            return f"{_command(process)} (pid {process.name})"
    return None


def port_in_use(port: int, kind: str = "udp") -> bool:
    """Whether a socket in this network namespace is bound to `port`, whoever's it is."""
    return bool(_bound_inodes(port, kind))


def interface_exists(name: str) -> bool:
    """Whether this network namespace has an interface of that name."""
    return any(one == name for _, one in socket.if_nameindex())


def make_state_directory(directory: Path) -> None:
    """Have a directory that only the daemons' user, where there is one, and root can look into. OSError as mkdir."""
    try:
        directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        return
    if os.geteuid() == 0:
        with suppress(KeyError):
            user = pwd.getpwnam(DAEMON_USER)
            os.chown(directory, user.pw_uid, user.pw_gid, follow_symlinks=False)


def hand_over(path: Path) -> None:
    """Give a file that root has just made to the owner of the directory it is in: what a verb stores, a daemon reads.

    Anybody else owns what he makes anyway.
    """
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _bound_inodes(port: int, kind: str) -> set[str]:
    """Inodes of the sockets bound to `port`; connections made from it do not count.

    From proc_net_udp(5): columns 1 and 2 are local and remote address, column 9 the inode.
    """
    suffix = f":{port:04X}"
    inodes: set[str] = set()
    for table in (kind, f"{kind}6"):
        try:
            lines = (_PROC / "net" / table).read_text().splitlines()[1:]
        except OSError:
            continue  # no IPv6, or no /proc
        rows = [row for row in (line.split() for line in lines) if len(row) > 9]
        inodes.update(row[9] for row in rows if row[1].endswith(suffix) and row[2].endswith(":0000"))
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

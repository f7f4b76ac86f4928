"""Whether the machine slept, told by a clock that goes on meanwhile."""

import os
import subprocess
import sys

import pytest

from wgdisco.machine import OVERSLEPT, SUSPENDED, SleepWatch, SuspendWatch


class Clock:
    """Reads on demand; each `select` reads it once."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def watched():
    clock = Clock()
    watch = SleepWatch(clock)
    woken = []
    watch.woke = lambda: woken.append(clock.now)
    yield clock, watch, woken
    watch.close()


def test_a_jump_of_the_clock_is_waking(watched):
    clock, watch, woken = watched
    watch.select(0)
    clock.now += OVERSLEPT
    watch.select(0)
    assert woken == [clock.now]
    watch.select(0)
    assert len(woken) == 1


def test_it_is_told_before_what_arrived_meanwhile(watched):
    clock, watch, _ = watched
    reader, writer = os.pipe()
    watch.register(reader, 1)
    os.write(writer, b"x")
    clock.now += 3600
    seen = []
    watch.woke = lambda: seen.append("woke")
    seen += [key.fd for key, _ in watch.select(30)]
    assert seen == ["woke", reader]
    for end in (reader, writer):
        os.close(end)


def test_a_late_turn_or_a_long_wait_is_none(watched):
    clock, watch, woken = watched
    clock.now += OVERSLEPT - 0.1
    watch.select(0)
    reader, writer = os.pipe()
    watch.register(reader, 1)
    os.write(writer, b"x")
    clock.now += 20
    watch.select(16)
    watch.select(None)
    clock.now += 100
    watch.select(None)
    assert woken == []
    for end in (reader, writer):
        os.close(end)


def test_only_time_that_the_other_clock_did_not_see_is_a_suspension():
    clock, awake = Clock(), Clock()
    awake.now = 300.0  # suspended before we began: no matter
    watch = SuspendWatch(clock, awake)
    assert watch.look() == (1000.0, 0.0)
    for passed in (0.5, 3600.0):  # busy, or stopped
        clock.now += passed
        awake.now += passed
        assert watch.look() == (clock.now, 0.0)
    clock.now += SUSPENDED - 0.01
    assert watch.look() == (clock.now, 0.0)
    clock.now += 600.01
    awake.now += 5
    assert watch.look() == (clock.now, pytest.approx(600.0 + SUSPENDED - 5))
    assert watch.look() == (clock.now, 0.0)
    awake.now += 2  # stopped between the two readings
    assert watch.look() == (clock.now, 0.0)
    clock.now += 2
    assert watch.look() == (clock.now, 0.0)


GUARDED = """
import ctypes, resource
from wgdisco.machine import guard_memory
guard_memory()
locked = next(line for line in open("/proc/self/status") if line.startswith("VmLck:"))
print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE), int(locked.split()[1]) > 0)
bytearray(300_000_000)  # what is allocated later may be more than could be locked
"""


@pytest.mark.rule("Z1")
@pytest.mark.parametrize("may_lock", [True, False])
def test_memory_with_keys_is_not_dumped_and_where_that_is_allowed_not_swapped(may_lock):
    if may_lock and os.geteuid() != 0:
        pytest.skip("locking memory without a limit needs root")
    limit = [] if may_lock else ["prlimit", f"--memlock={8 << 20}:{8 << 20}"]
    less = [] if may_lock or os.geteuid() != 0 else ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]
    done = subprocess.run([*limit, *less, sys.executable, "-c", GUARDED], capture_output=True, text=True, check=True)
    assert done.stdout == f"0 (0, 0) {may_lock}\n"


FEW_FILES = """
import resource
from wgdisco.machine import allow_files
allow_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_as_many_files_may_be_open_as_are_allowed_and_too_few_are_one_line():
    def run(limit, *command):
        return subprocess.run(
            ["prlimit", f"--nofile={limit}", sys.executable, *command], capture_output=True, text=True, check=False
        )

    assert run("64:4096", "-c", FEW_FILES).stdout == "(4096, 4096)\n"
    assert run("4096:4096", "-c", FEW_FILES).stdout == "(4096, 4096)\n"
    done = run("40:127", "-c", FEW_FILES)
    said = "127 open files are too few: allow 128, with `ulimit -Hn` or a unit's LimitNOFILE="
    assert f"LocalError: {said}" in done.stderr


PERMITTED = """
import ctypes, os, subprocess
from wgdisco.machine import take_capabilities
libc = ctypes.CDLL(None)
libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS: permitted, and not in effect
os.setuid(65534)
take_capabilities()
print(subprocess.run(["cat", "/proc/self/status"], check=True, capture_output=True, text=True).stdout)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_what_the_programs_file_permits_is_in_effect_and_goes_to_programs_it_starts():
    told = subprocess.run([sys.executable, "-c", PERMITTED], check=True, capture_output=True, text=True).stdout
    sets = dict(line.split(":\t") for line in told.splitlines() if line.startswith("Cap"))
    assert int(sets["CapEff"], 16) >> 12 & 1  # CAP_NET_ADMIN
    assert sets["CapEff"] == sets["CapAmb"] == sets["CapPrm"]

"""Kernel WireGuard on a kernel that has it: Debian's own, in qemu (scripts/kernel-vm)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CANNOT = 125


def in_kernel_vm(*command, seconds):
    """Run it there; what it printed. Skips where there is no such machine to be had."""
    ran = subprocess.run(
        [ROOT / "scripts/kernel-vm", "--seconds", str(seconds), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds + 120,
    )
    if ran.returncode == CANNOT:
        pytest.skip(ran.stderr.strip())
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]
    return ran.stdout


@pytest.mark.soak
def test_set_and_dump():
    """`wg` and we agree on what there is: prefixes and peers over many messages, ours and what was there."""
    told = in_kernel_vm(sys.executable, "-m", "tests.system.kernel_device", "5000", "200", seconds=240)
    assert "the kernel agrees" in told


@pytest.mark.soak
def test_set_and_dump_at_size():
    told = in_kernel_vm(sys.executable, "-m", "tests.system.kernel_device", "100000", "5000", seconds=900)
    assert "the kernel agrees" in told


def test_demo_with_kernel_devices_at_all_three_hosts():
    engines = [f"--engine={host}=kernel" for host in ("registry", "alice", "bob")]
    demo = ["-m", "wgdisco", "lab", "demo", "-o", "json", "--timeout", "120", *engines]
    report = json.loads(in_kernel_vm(sys.executable, *demo, seconds=300).splitlines()[-1])
    assert (report["direct"], report["registry_saw_payload"]) == (True, False), report


@pytest.mark.soak
def test_members_by_link_on_the_kernel_s_engine():
    """On one side, on the other and on both: direct by order, checks and relay."""
    assert "3 passed" in run_the_kernels("tests/system/test_engines.py", 1800)


@pytest.mark.soak
@pytest.mark.parametrize("engines", ["kernel,kernel", "kernel,userspace", "userspace,kernel"])
def test_punching_across_nat_types_on_the_kernel_s_engine(engines):
    types = ["--types", "port-restricted,eim-other-port,symmetric-random"]
    told = in_kernel_vm(
        sys.executable,
        "-m",
        "wgdisco",
        "lab",
        "matrix",
        "--failures",
        "/tmp/f",
        *types,
        "--engines",
        engines,
        seconds=1800,
    )
    print(told)
    assert "as theory says   6 of 6" in told


@pytest.mark.soak
def test_routes_and_policy_routing_on_the_kernel_s_engine():
    """All of test_full_tunnel.py, its counts of kills left out, with the kernel's devices at all three hosts."""
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "tests/system/test_full_tunnel.py"]
    told = in_kernel_vm("env", "LAB_ENGINE=kernel", sys.executable, *tests, seconds=1800)
    print(told)
    assert " passed" in told


@pytest.mark.soak
def test_roaming_on_the_kernel_s_engine():
    roams = ["--topologies", "T5", "--types", "port-restricted", "--engines", "kernel,kernel", "--failures", "/tmp/f"]
    told = in_kernel_vm(sys.executable, "-m", "wgdisco", "lab", "matrix", *roams, seconds=1800)
    print(told)
    assert "as theory says   3 of 3" in told


@pytest.mark.soak
def test_the_kernels_device_looked_at():
    """Sessions, checks and STUN by raw sockets beside it, a peer that moves and one that does not."""
    assert "3 passed" in run_the_kernels("tests/tunnel/io/test_polled.py", 400)


@pytest.mark.soak
def test_join_on_the_kernels_interfaces():
    """The registry and two members behind NATs, all of it in the machine that has such a kernel."""
    assert "2 passed" in run_the_kernels("tests/system/test_external.py", 900)


@pytest.mark.soak
def test_a_registry_on_the_kernels_interface():
    """The same with a registry on the kernel's interface, and with all three; members by link, direct and relayed."""
    assert "4 passed" in run_the_kernels("tests/system/test_registry_engines.py", 1500)


def run_the_kernels(where, seconds):
    """Those tests of that file which are for such a kernel."""
    tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", "the_kernel", where]
    return in_kernel_vm(sys.executable, *tests, seconds=seconds)

"""What people install: a wheel with and without a compiler, the source archive; by `make soak` the packages of `make
wheel` and `make deb`, the latter in a bare chroot.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.system.network import await_
from tests.system.tunnel.bed import TUNNEL, Bed, introduce

ROOT = Path(__file__).parents[1]
PACKAGED = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE", "share", "wgdisco")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The checkout without what was built in it."""
    copy = tmp_path_factory.mktemp("package") / "source"
    copy.mkdir()
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        else:
            shutil.copy(ROOT / name, copy)
    return copy


def wheel(source: Path, where: Path, **environment: str) -> Path:
    """Build one of a directory or archive, without the network."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel"]
    options = ["--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, *options, str(source), "-w", str(where)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = where.iterdir()
    return built


def installed(built: Path, where: Path) -> list[str]:
    """Have the wheel's package in `where`; the beginning of a program that uses it, and what else is in .venv."""
    with zipfile.ZipFile(built) as archive:
        archive.extractall(where)
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(where)!r}); "]


def says(program: list[str], arguments: str) -> str:
    run = f"sys.argv = {arguments!r}.split(); from wgdisco.__main__ import main; raise SystemExit(main())"
    command = [*program[:-1], program[-1] + run]
    return subprocess.run(command, cwd="/", check=True, capture_output=True, text=True).stdout.strip()


def holds_compiled(built: Path) -> bool:
    return any("/_native." in name and name.endswith(".so") for name in zipfile.ZipFile(built).namelist())


@pytest.mark.usefixtures("needs_lab")
def test_without_a_compiler_the_reference_runs(source, tmp_path):
    built = wheel(source, tmp_path / "wheel", CC="false")
    assert not holds_compiled(built)
    program = installed(built, tmp_path / "installed")
    assert says(program, "wgdisco version").endswith(" (engine: reference)")
    program[-1] += "import wgdisco.tunnel.burst as burst; assert burst.compiled is None; " + TUNNEL[2]
    with Bed("n1", "n2") as bed:
        bed.veth("n1", "cable", "n2", "cable")
        for number in (1, 2):
            bed.address(f"n{number}", "cable", f"10.0.0.{number}/24")
        wg1, wg2 = bed.tunnel("wg1", "n1", program=program), bed.tunnel("wg2", "n2")
        introduce(wg1, wg2)
        wg1.set("peer", wg2.public, "endpoint", "10.0.0.2:2")
        await_(lambda: bed.ping("n1", "192.168.241.2"), "the tunnel")


def test_the_source_archive_makes_a_compiled_wheel_for_every_later_python(source, tmp_path):
    build = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    command = [sys.executable, "-c", build, str(tmp_path)]
    printed = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True).stdout
    archive = tmp_path / printed.split()[-1]
    with tarfile.open(archive) as content:
        names = {Path(name).name for name in content.getnames()}
    assert {"_burst.c", "_burst_io.c", "_lanes.c", "_burst.h", "_lanes.h", "_burst_build.py", "setup.py"} <= names
    built = wheel(archive, tmp_path / "wheel")
    assert holds_compiled(built)
    with zipfile.ZipFile(built) as content:
        assert any(name.endswith(".data/data/share/man/man1/wgdisco-join.1") for name in content.namelist())
    assert "-cp311-abi3-linux_" in built.name
    with zipfile.ZipFile(built) as content:
        assert not [name for name in content.namelist() if name.endswith((".c", ".h"))]
    program = installed(built, tmp_path / "installed")
    assert says(program, "wgdisco version").endswith(" (engine: compiled)")


# The packages themselves


def packaged(*command: str) -> Path:
    """Run one of our scripts; the last package that it names."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ROOT / done.stderr.splitlines()[-1]


@pytest.mark.soak
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_wheels_for_manylinux_use_the_libcrypto_there_is(machine, tmp_path):
    if machine != os.uname().machine:
        for tool in (f"{machine}-linux-gnu-gcc", "mmdebstrap"):
            if shutil.which(tool) is None:
                pytest.skip(f"needs {tool}")
    built = packaged("scripts/wheel", machine)
    assert f"-cp311-abi3-manylinux2014_{machine}.manylinux_2_17_{machine}" in built.name
    with zipfile.ZipFile(built) as archive:
        module = archive.extract("wgdisco/tunnel/_native.abi3.so", tmp_path)
        assert not [name for name in archive.namelist() if "libcrypto" in name]
    header = subprocess.run(["readelf", "-dh", module], check=True, capture_output=True, text=True).stdout
    assert "[libcrypto.so.3]" in header
    assert {"x86_64": "X86-64", "aarch64": "AArch64"}[machine] in header


IN_CHROOT = """
set -e
mount --bind "$1" "$1"
mount -t proc proc "$1/proc"
mount -t sysfs sysfs "$1/sys"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/run"
list() { chroot "$1" find / -xdev -not -path '/proc/*' -not -path /var/log/dpkg.log -not -name '*-' | sort; }
list "$1" >"$2/before"
chroot "$1" dpkg -i /wgdisco.deb >/dev/null
chroot "$1" wgdisco version
chroot "$1" wgdisco-tunnel --version
chroot "$1" /usr/lib/wgdisco/bin/python -c 'import wgdisco.tunnel._native
print(*{line.split()[-1] for line in open("/proc/self/maps") if "libcrypto" in line})'
chroot "$1" stat -c %U:%a /var/lib/wgdisco
unshare --net chroot "$1" sh -c 'wgdisco-tunnel wg0 && echo /run/wireguard/* && rm /run/wireguard/wg0.sock'
chroot "$1" test -e /usr/lib/systemd/system/wgdisco-registry.service -a -e /usr/share/man/man1/wgdisco-join.1.gz
chroot "$1" test -e /usr/share/bash-completion/completions/wgdisco -a -e /usr/share/zsh/vendor-completions/_wgdisco
chroot "$1" dpkg --purge wgdisco >/dev/null
list "$1" >"$2/after"
chroot "$1" sh -c 'getent passwd wgdisco' || echo no user
"""


@pytest.mark.soak
def test_the_deb_runs_in_a_bare_chroot_and_leaves_nothing(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a chroot")
    for tool in ("mmdebstrap", "dpkg-shlibdeps"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}")
    package = packaged("scripts/deb")
    field = subprocess.run(["dpkg-deb", "-f", str(package), "Depends"], check=True, capture_output=True, text=True)
    needed = {one.split()[0] for one in field.stdout.split(",")}
    assert needed & {"libssl3", "libssl3t64"}
    names = (line.partition("=") for line in Path("/etc/os-release").read_text().splitlines())
    release = {name: value.strip('"') for name, _, value in names}["VERSION_CODENAME"]
    bare = tmp_path / "bare"
    bootstrap = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(sorted(needed))}"]
    subprocess.run([*bootstrap, release, str(bare)], check=True)
    shutil.copy(package, bare / "wgdisco.deb")
    command = ["unshare", "--mount", "sh", "-c", IN_CHROOT, "sh", str(bare), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    version = package.name.split("_")[1]
    assert done.stdout.splitlines() == [
        f"wgdisco {version} (engine: compiled)",
        f"wgdisco-tunnel {version} (engine: compiled)",
        f"/usr/lib/{os.uname().machine}-linux-gnu/libcrypto.so.3",
        "wgdisco:700",
        "/run/wireguard/wg0.sock",
        "no user",
    ]
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()

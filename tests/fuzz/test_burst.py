"""`_burst.c` and `_lanes.c` under address and undefined-behaviour sanitizers: no bytes make them leave their buffers.

Inputs are those of `tests/fuzz/corpus` (found by coverage, see the soak), some made here, and changes of both.
"""

import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tunnel.traffic import ACK, PSH, TCP, UDP, Packet, plain_frame

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "wgdisco/tunnel"
CORPUS = HERE / "corpus"
C = ("_burst.c", "_burst_io.c", "_lanes.c")
SANITIZERS = "address,undefined"
SECONDS = 7.5  # for each of the two
SOAK_SECONDS = 1800
OPEN, WILD_SPANS, REFUSE, FORGE, SHUFFLE, CUT, TIGHT = (1 << bit for bit in range(7))


def as_input(switches: int, parts: list[bytes], parameters: bytes = b"\x8c\x05\x40\x02\0\0\0\x03") -> bytes:
    return bytes([switches]) + parameters + b"".join(struct.pack("<H", len(part)) + part for part in parts)


def seeds() -> Iterator[bytes]:
    """Inputs that reach every part of it."""
    for version in (4, 6):
        for protocol in (TCP, UDP):
            for options in (b"", bytes(12)) if protocol == TCP else (b"",):
                first = Packet(bytes(100), version, protocol, options=options)
                for size in (1, 33, 100, 1000):
                    yield as_input(0, [first.large(size)])
                    yield as_input(TIGHT, [first.large(size), first.unfinished(), plain_frame(first.pack()), bytes(10)])
                run = [
                    replace(first, sequence=100 * n, identification=n, flags=ACK | PSH * (n == 5)).pack()
                    for n in range(6)
                ]
                for switches in (0, REFUSE, FORGE, SHUFFLE, CUT, WILD_SPANS):
                    yield as_input(OPEN | switches, run)
                    yield as_input(OPEN | switches, [run[0], b"", *run[1:3], run[2][:50], *run[3:]], bytes(range(8)))
                yield as_input(OPEN, run, bytes([*range(7), 0x0F]))
    yield as_input(WILD_SPANS, [bytes(60)])


def lane_seeds() -> Iterator[bytes]:
    """Frames of the interface, datagrams as they are, and such as are sealed (which is which: bits of two bytes)."""
    for version in (4, 6):
        first = Packet(bytes(100), version, TCP)
        run = [replace(first, sequence=100 * n, identification=n, flags=ACK).pack() for n in range(6)]
        for switches in (0, *(1 << bit for bit in range(7))):
            for frame in (first.large(33), first.large(1000), first.unfinished(), plain_frame(first.pack())):
                yield as_input(switches, [frame] * 3, b"\x8c\x05\0\0\0\0\0\0")
            yield as_input(switches, [run[0], b"", *run[1:]], b"\x8c\x05\0\0\0\0\xff\0")
            yield as_input(switches, run, b"\x8c\x05\0\0\0\0\xff\1")
            yield as_input(switches, [plain_frame(run[0]), *run[1:], bytes(60)], b"\x8c\x05\1\0\0\0\xfe\0")


SEEDS = {"burst": seeds, "lanes": lane_seeds}


def build(harness: str, compiler: str, target: Path, *more: str) -> None:
    """Compile harness and code under test together."""
    command = [compiler, "-g", "-O1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all", "-DFUZZING", *more]
    command += ["-I", SOURCES, HERE / f"{harness}_harness.c", *(SOURCES / source for source in C)]
    command += ["-lcrypto", "-o", target]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


def write_seeds(harness: str, directory: Path) -> list[Path]:
    files = []
    for number, seed in enumerate(SEEDS[harness]()):
        files.append(directory / f"seed{number:03}")
        files[-1].write_bytes(seed)
    return files


@pytest.mark.parametrize("harness", SEEDS)
def test_burst_under_sanitizers(harness, tmp_path):
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("needs gcc or clang")
    build(harness, compiler, tmp_path / "harness", f"-fsanitize={SANITIZERS}", "-DSTANDALONE")
    files = write_seeds(harness, tmp_path) + sorted((CORPUS / harness).iterdir())
    ran = subprocess.run(
        [tmp_path / "harness", "1", str(SECONDS), *files], capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == 0, ran.stderr
    count, _, changed, _ = ran.stdout.split()
    assert int(count) == len(files)
    assert int(changed) > 1000


@pytest.mark.soak
@pytest.mark.parametrize("harness", SEEDS)
def test_burst_guided_by_coverage(harness, tmp_path):
    """libFuzzer for half an hour. What it finds worth keeping goes into the corpus by hand: -merge=1."""
    clang = shutil.which("clang")
    if clang is None:
        pytest.skip("needs clang with libFuzzer: apt-get install clang libclang-rt-14-dev")
    build(harness, clang, tmp_path / "fuzzer", f"-fsanitize=fuzzer,{SANITIZERS}")
    found = tmp_path / "found"
    seeded = tmp_path / "seeds"
    found.mkdir()
    seeded.mkdir()
    write_seeds(harness, seeded)
    ran = subprocess.run(
        [
            tmp_path / "fuzzer",
            f"-max_total_time={SOAK_SECONDS}",
            "-max_len=8000",
            "-seed=1",
            found,
            seeded,
            CORPUS / harness,
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-4000:]

"""Fuzzing guided by coverage: atheris, in a process of its own, on one module's `one_input`.

What it needs of a module is `one_input(data)`, which takes any bytes and raises when something is wrong.
`tests/fuzz/corpus/NAME.txt` has inputs, one a line in base64: those after a comment are there for what it says, because
they once failed or go where the fuzzer does not find; the others reach the most in the fewest bytes.

    python -m tests.fuzz.coverage fuzz tests.fuzz.test_conf DIRECTORY [libFuzzer's options]
    python -m tests.fuzz.coverage minimise tests.fuzz.test_conf DIRECTORY

The first fuzzes by hand, from the corpus and from what is in the directory, where it leaves what it finds; the second
makes a new corpus of both.
"""

import base64
import importlib
import importlib.util
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

CORPUS = Path(__file__).parent / "corpus"
SHORT, LONG = 15, 600  # seconds
OPTIONS = ["-max_len=2048", "-len_control=0", "-timeout=30", "-rss_limit_mb=700"]

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason=f"atheris is not installed: it has no wheel for Python {sys.version.split()[0]} on this machine",
)


class Reader:
    """Bytes of the fuzzer taken apart; what is beyond their end is zeros."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Exactly `size` bytes."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken.ljust(size, b"\0")

    def number(self, below: int) -> int:
        """A number from 0 up to, and without, `below`."""
        size = (max(below - 1, 1).bit_length() + 7) // 8
        return int.from_bytes(self.take(size), "little") % below

    def some(self, most: int) -> bytes:
        """Up to `most` bytes, their number before them; never more than there are."""
        size = min(self.number(most + 1), max(0, len(self._data) - self._at))
        return self.take(size)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(max(0, len(self._data) - self._at))


def corpus(module: str) -> list[bytes]:
    """The committed inputs."""
    lines = _file(module).read_text().splitlines()
    return [base64.b64decode(line, validate=True) for line in lines if not line.startswith("#")]


def replay(module: str, one_input: Callable[[bytes], None]) -> None:
    """All committed inputs, without atheris."""
    inputs = corpus(module)
    assert inputs
    for data in inputs:
        try:
            one_input(data)
        except BaseException as error:
            error.add_note(f"the input is {data!r}")
            raise


def fuzz(module: str, seconds: int, directory: Path) -> None:
    """Fuzz for so long, beginning with the corpus. Fails with the fuzzer's own words, and the input."""
    found = directory / "found"
    found.mkdir()
    options = [f"-max_total_time={seconds}", "-seed=1", f"-artifact_prefix={directory}/"]
    command = [sys.executable, "-m", "tests.fuzz.coverage", "fuzz", module, str(found), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
    if done.returncode:
        made = "".join(f"\n{file.name}: {file.read_bytes()!r}" for file in directory.glob("*-*"))
        pytest.fail(f"{done.stdout[-6000:]}{done.stderr[-6000:]}{made}", pytrace=False)
    assert "\tDONE " in done.stderr, done.stderr


def _file(module: str) -> Path:
    return CORPUS / f"{module.rpartition('test_')[2]}.txt"


def _unpack(module: str, directory: Path) -> None:
    for number, data in enumerate(corpus(module)):
        (directory / f"corpus-{number:04}").write_bytes(data)


def _minimise(module: str, directory: Path) -> None:
    """Leave of corpus and directory what is needed to reach all that they reach; what has a comment stays."""
    kept = [pair for pair in pairwise(["", *_file(module).read_text().splitlines()]) if pair[0].startswith("#")]
    named = {base64.b64decode(line) for _, line in kept}
    with tempfile.TemporaryDirectory() as scratch:
        old, new, again = (Path(scratch) / name for name in ("old", "new", "again"))
        old.mkdir()
        new.mkdir()
        _unpack(module, old)
        for number, data in enumerate(sorted(named)):
            (new / str(number)).write_bytes(data)
        # libFuzzer runs itself anew, by its first argument alone.
        run = shlex.join([sys.executable, "-m", "tests.fuzz.coverage", "run", module])
        again.write_text(f'#!/bin/sh\nexec {run} "$0" "$@"\n')
        again.chmod(0o700)
        subprocess.run([again, "-merge=1", "-use_counters=0", *OPTIONS, new, old, directory], check=True)
        least = sorted({file.read_bytes() for file in new.iterdir()} - named, key=lambda data: (len(data), data))
    lines = [*(line for pair in kept for line in pair), *(base64.b64encode(data).decode() for data in least)]
    _file(module).write_text("".join(f"{line}\n" for line in lines))


def _run(module_name: str, arguments: list[str]) -> None:
    """Fuzz in this process, which ends with it."""
    import atheris  # noqa: PLC0415 - not on every machine

    with atheris.instrument_imports(include=["wgdisco"]):
        module = importlib.import_module(module_name)

    def one_input(data: bytes) -> None:
        try:
            module.one_input(data)
        except BaseException:
            print(f"the input is {data!r}", flush=True)
            raise

    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


def main(verb: str, module: str, first: str, *options: str) -> None:
    """One of the commands above; `run` is for libFuzzer itself, which wants to know how to run itself again."""
    if verb == "minimise":
        _minimise(module, Path(first))
    elif verb == "fuzz":
        _unpack(module, Path(first))
        _run(module, ["fuzz", *OPTIONS, *options, first])
    else:
        _run(module, [first, *options])


if __name__ == "__main__":
    main(*sys.argv[1:])

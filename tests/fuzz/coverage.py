"""Fuzzing guided by coverage: atheris, in a process of its own, on one module's `one_input`.

`python -m tests.fuzz.coverage tests.fuzz.test_conf [libFuzzer's options]` fuzzes by hand. What it needs of a module is
`one_input(data)`, which takes any bytes and raises when something is wrong. `tests/fuzz/corpus/NAME` has the inputs
that reach the most in the fewest bytes; what once made it fail is there too, named `regression-*`.
"""

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CORPUS = Path(__file__).parent / "corpus"
SHORT, LONG = 15, 600  # seconds

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


def corpus(name: str) -> Iterator[bytes]:
    """The committed inputs, each as it stands."""
    files = sorted((CORPUS / name).iterdir())
    assert files
    for file in files:
        yield file.read_bytes()


def replay(module: str, one_input: Callable[[bytes], None]) -> None:
    """All committed inputs, without atheris: a failure shows in which one."""
    for data in corpus(_name(module)):
        one_input(data)


def fuzz(module: str, seconds: int, new: Path) -> None:
    """Fuzz for so long, beginning with the corpus; what is found goes to `new`. Fails with the fuzzer's own words."""
    found = new / "found"
    found.mkdir()
    options = [
        f"-max_total_time={seconds}",
        "-seed=1",
        "-max_len=2048",
        "-len_control=0",
        "-timeout=20",
        "-rss_limit_mb=700",
    ]
    command = [sys.executable, "-m", "tests.fuzz.coverage", module, *options, f"-artifact_prefix={new}/"]
    done = subprocess.run(
        [*command, found, CORPUS / _name(module)], capture_output=True, text=True, timeout=seconds + 120, check=False
    )
    if done.returncode:
        made = "".join(f"\n{file.name}: {file.read_bytes()!r}" for file in new.glob("*-*"))
        pytest.fail(f"{done.stdout[-6000:]}{done.stderr[-6000:]}{made}", pytrace=False)
    assert "DONE" in done.stderr, done.stderr


def _name(module: str) -> str:
    return module.rpartition("test_")[2]


def main(arguments: list[str]) -> None:
    """Fuzz; returns only by ending the process."""
    import atheris  # noqa: PLC0415 - not on every machine

    with atheris.instrument_imports(include=["wgdisco"]):
        module = importlib.import_module(arguments[1])
    atheris.Setup([arguments[0], *arguments[2:]], module.one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)

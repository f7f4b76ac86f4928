"""Runs a test's body in a network namespace of its own, so that the machine's interfaces are never touched."""

import gc
import importlib
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

# Its processes end with it, also those in the background, however it ends.
ALONE = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


def in_namespace(body: Callable[[], None]) -> Callable[[], None]:
    """Make a test of `body`, a module-level function: it runs as root in a child, in a fresh network namespace.

    Skips, saying why, without root or without a TUN device.
    """

    def test() -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root: makes a network namespace")
        if not os.path.exists("/dev/net/tun"):
            pytest.skip("needs /dev/net/tun")
        command = [sys.executable, "-W", "error", "-m", "tests.tunnel.io.namespace", body.__module__, body.__name__]
        child = subprocess.run([*ALONE, *command], capture_output=True, text=True, timeout=60, check=False)
        if child.returncode:
            pytest.fail(child.stdout + child.stderr, pytrace=False)

    test.body = body
    test.__name__ = body.__name__
    test.__module__ = body.__module__
    test.__doc__ = body.__doc__
    return test


def ip(*arguments: str) -> str:
    """Run `ip` and return what it prints."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def run_strictly(body: Callable[[], None]) -> None:
    """Run it; what nobody could catch (a socket left open, an error in a destructor) fails it too."""
    unraisable: list[str] = []
    sys.unraisablehook = lambda unraised: unraisable.append(f"{unraised.exc_value!r} in {unraised.object!r}")
    body()
    gc.collect()
    assert unraisable == []


if __name__ == "__main__":
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    ip("link", "set", "lo", "up")
    run_strictly(getattr(importlib.import_module(sys.argv[1]), sys.argv[2]).body)

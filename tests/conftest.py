"""What tests of several packages share."""

import logging
import shutil
import sys
import threading
from collections.abc import Iterator

import pytest

from wgdisco import logs
from wgdisco.errors import LocalError
from wgdisco.lab.world import World


@pytest.fixture(autouse=True)
def _log_of_the_tests() -> Iterator[None]:
    """A program that runs within a test may tell its own log of its errors; the next test's are pytest's again."""
    before = sys.excepthook, sys.unraisablehook, threading.excepthook
    own = logging.getLogger("wgdisco")
    level, is_disabled = own.level, own.disabled
    yield
    own.setLevel(level)
    own.disabled = is_disabled
    sys.excepthook, sys.unraisablehook, threading.excepthook = before
    logging.captureWarnings(False)
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, logs._Handler):
            root.removeHandler(handler)


@pytest.fixture(scope="session")
def needs_lab() -> None:
    """Skip, saying why, where no lab can be made: it takes root (or user namespaces), nft and /dev/net/tun.

    A module asks for it with `pytestmark = pytest.mark.usefixtures("needs_lab")`.
    """
    try:
        World(["host"]).close()
    except LocalError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def needs_browser() -> None:
    """Skip, saying why, where there is no browser that stands in a host of the lab."""
    if shutil.which("chromium") is None:
        pytest.skip("no chromium: on Debian, apt-get install chromium")

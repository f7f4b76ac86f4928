"""What tests of several packages share."""

import shutil

import pytest

from wgdisco.errors import LocalError
from wgdisco.lab.world import World


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

"""What tests of several packages share."""

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

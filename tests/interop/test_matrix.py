"""Our engine and each other one, in every combination of who begins, outer family, preshared key and MTU."""

from itertools import product

import pytest

from tests.interop.engines import ENGINES, OTHER, needs_wg, tunnel
from tests.system.network import await_

pytestmark = [pytest.mark.usefixtures("needs_lab"), needs_wg]

AXES = [("here", "there"), ("ipv4", "ipv6"), (False, True), (1280, 1420, 1500, 34736)]
# With every engine each value of each axis, and of the first three each pair of values
FEW = [
    ("here", "ipv4", False, 1280),
    ("there", "ipv6", False, 1420),
    ("here", "ipv6", True, 1500),
    ("there", "ipv4", True, 34736),
]


def _cell(engine, initiator, outer, preshared, mtu, *marks):
    psk = "psk" if preshared else "plain"
    return pytest.param(
        engine, initiator, outer, preshared, mtu, marks=marks, id=f"{engine}-{initiator}-{outer}-{psk}-{mtu}"
    )


def _carry(engine, initiator, outer, preshared, mtu, megabytes):
    with tunnel(engine, initiator, outer, preshared, mtu) as it:
        sizes = {4: mtu - 28, 6: mtu - 48}
        if engine == "boringtun":  # looks at its interface's MTU now and then
            await_(lambda: it.ping(initiator, 4, sizes[4], count=1, check=False) == 0, "boringtun to see its MTU")
        for sender, version in product((initiator, OTHER[initiator]), (4, 6)):
            it.ping(sender, version)
            it.ping(sender, version, sizes[version])
        assert it.handshake_time("here") > 0
        if engine != "boringtun":  # says how long ago instead of when
            assert it.handshake_time("there") > 0
        it.transfer("here", 4, megabytes)
        it.transfer("there", 6, megabytes)


@pytest.mark.rule("H1", "H3", "H6", "D4", "D14", "E2", "M1", "M2")
@pytest.mark.parametrize(
    ("engine", "initiator", "outer", "preshared", "mtu"), [_cell(engine, *few) for engine in ENGINES for few in FEW]
)
def test_packets_of_every_size_and_streams_cross_intact(engine, initiator, outer, preshared, mtu):
    _carry(engine, initiator, outer, preshared, mtu, megabytes=5)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("engine", "initiator", "outer", "preshared", "mtu"),
    [_cell(engine, *cell) for engine in ENGINES for cell in product(*AXES)],
)
def test_the_whole_matrix(engine, initiator, outer, preshared, mtu):
    _carry(engine, initiator, outer, preshared, mtu, megabytes=50)


@pytest.mark.rule("H6")
@pytest.mark.parametrize("initiator", ["here", "there"])
def test_a_wrong_preshared_key_never_connects(initiator):
    with tunnel(initiator=initiator, preshared=True) as it:
        it.hosts["here"].run(
            ["sh", "-c", "wg genpsk | wg set wgt0 peer $(wg show wgt0 peers) preshared-key /dev/stdin"]
        )
        assert it.ping(initiator, 4, check=False) == 1

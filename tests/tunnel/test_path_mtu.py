import pytest

from wgdisco.tunnel.path_mtu import mtu_for


@pytest.mark.parametrize(
    ("ways", "mtu"),
    [
        ([1500], 1420),
        ([1492], 1412),  # PPPoE
        ([9000, 1500], 1420),
        ([9000], 8920),
        ([1300, 1500], 1280),  # IPv6 wants it, though datagrams go in fragments
        ([65583, 70000], 65503),
        ([1 << 31], 65503),
        ([], 1420),
    ],
)
def test_the_smallest_way_less_what_a_datagram_adds_within_what_ip_takes(ways, mtu):
    assert mtu_for(ways) == mtu

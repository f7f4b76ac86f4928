"""Large frames are no larger than one send."""

import json

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.tunnel.io.segments import limit_segments, most_segments
from wgdisco.tunnel.io.tun import Tun


@pytest.mark.parametrize(
    ("mtu", "segments"), [(68, 64), (576, 64), (1280, 49), (1420, 45), (1500, 42), (9000, 7), (65503, 1), (0, 64)]
)
def test_most_segments(mtu, segments):
    assert most_segments(mtu) == segments
    assert segments in (1, 64) or segments * (mtu + 32) <= 65507 < (segments + 1) * (mtu + 32)


def gso_max_segs(name: str) -> int:
    return json.loads(ip("-j", "-d", "link", "show", name))[0]["gso_max_segs"]


@in_namespace
def test_the_kernel_is_asked():
    ip("link", "add", "other", "type", "veth", "peer", "name", "another")
    before = gso_max_segs("other")
    tun = Tun.open("tt0")
    for mtu, segments in ((1420, 45), (1280, 49)):
        limit_segments(tun, mtu)
        assert gso_max_segs("tt0") == segments
    # Moved away, it is left as it is, and so is who has its name here now
    ip("link", "set", "other", "name", "tt1")
    ip("netns", "add", "elsewhere")
    ip("link", "set", "tt0", "name", "tt1", "netns", "elsewhere")
    limit_segments(tun, 1420)
    assert gso_max_segs("tt1") == before
    tun.close()
    ip("netns", "del", "elsewhere")

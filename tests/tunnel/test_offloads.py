import pytest

from wgdisco.errors import ConfigError
from wgdisco.tunnel.offloads import Offloads

ALL = Offloads(tso=True, uso=True, udp_gso=True, udp_gro=True)


@pytest.mark.parametrize(
    ("text", "offloads"),
    [
        ("all", ALL),
        ("none", Offloads(tso=False, uso=False, udp_gso=False, udp_gro=False)),
        ("tso,udp_gro", Offloads(uso=False, udp_gso=False)),
        ("uso", Offloads(tso=False, udp_gso=False, udp_gro=False)),
    ],
)
def test_names_of_those_that_are_on(text, offloads):
    assert Offloads.from_text(text) == offloads
    assert offloads.to_text() == text
    assert Offloads() == ALL


@pytest.mark.parametrize("text", ["", "gso", "tso,", "tso uso", "all,tso", "none,tso", "TSO"])
def test_what_names_none(text):
    with pytest.raises(ConfigError, match="tso, uso, udp_gso, udp_gro"):
        Offloads.from_text(text)

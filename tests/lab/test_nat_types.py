"""The real nft rules show exactly the behaviour the table claims, with a handful of packets through each."""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest

from wgdisco.lab.nat_types import NAT_TYPES, NatType
from wgdisco.lab.topology import REGISTRY_ADDRESSES, Lab
from wgdisco.nat import FilteringBehavior, MappingBehavior, can_punch

PROBE = str(Path(__file__).with_name("nat_probe.py"))
SERVERS = [str(address) for address in REGISTRY_ADDRESSES]


def probe(lab: Lab, host: str) -> dict[str, Any]:
    return json.loads(lab.hosts[host].run([sys.executable, PROBE, "probe", *SERVERS]).stdout)


@pytest.fixture(params=NAT_TYPES)
def lab(request: pytest.FixtureRequest, needs_lab: None) -> Iterator[Lab]:
    """A lab with the type on alice's side, and the stand-in server at the registry."""
    with Lab(nat_a=request.param, nat_b="public") as lab:
        server = lab.hosts["registry"].popen([sys.executable, PROBE, "serve", *SERVERS], stdout=subprocess.PIPE)
        with server:
            assert server.stdout is not None
            assert server.stdout.readline() == "serving\n"
            yield lab
            server.stop()


def test_rules_show_the_profile(lab: Lab) -> None:
    nat_type = lab.sides["alice"].nat_type
    found = probe(lab, "alice")
    assert found["addresses"] == [str(lab.outside("alice"))]
    assert (
        found["passed"]
        == {
            FilteringBehavior.ENDPOINT_INDEPENDENT: ["address", "port"],
            FilteringBehavior.ADDRESS_DEPENDENT: ["port"],
            FilteringBehavior.ADDRESS_AND_PORT_DEPENDENT: [],
        }[nat_type.profile.filtering]
    )
    same_port, other_port, other_address = found["ports"]
    if nat_type.profile.mapping is MappingBehavior.ENDPOINT_INDEPENDENT:
        assert same_port == other_port == other_address
        assert found["burnt"] is nat_type.profile.burns
    else:
        assert len({same_port, other_port, other_address}) == 3
    check_ports(nat_type, found["local_port"], found["ports"])


def check_ports(nat_type: NatType, local_port: int, ports: list[int]) -> None:
    """What the type promises of its ports beyond the profile."""
    match nat_type.name:
        case "eim-other-port":
            assert set(ports) <= set(range(20_000, 40_000)) - {local_port}
        case "symmetric-sequential":
            assert ports == [ports[0], ports[0] + 1, ports[0] + 2]
        case "symmetric-block":
            assert set(ports) <= set(range(20_000, 21_008))
        case "symmetric-random":
            pass
        case _:
            assert set(ports) == {local_port}


def test_a_host_behind_a_nat_is_private_and_any_other_is_not(needs_lab: None) -> None:
    with Lab(nat_a="full-cone", nat_b="firewall") as lab:
        for host, address in (("alice", "192.168.1.10"), ("bob", "203.0.113.130")):
            assert f"inet {address}/" in lab.hosts[host].run(["ip", "-4", "addr", "show", "dev", "eth0"]).stdout


def test_plain_punching_passes_33_of_55_pairs() -> None:
    pairs = combinations_with_replacement(NAT_TYPES.values(), 2)
    assert sum(can_punch(a.profile, b.profile) for a, b in pairs) == 33

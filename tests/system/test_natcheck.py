"""The lab's ten NAT types, told apart by the real responder and the real check through the real rules."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.lab.topology import REGISTRY_ADDRESSES, Lab
from wgdisco.nat import FilteringBehavior, MappingBehavior, NatProfile
from wgdisco.peer.natcheck import RETRANSMISSION

pytestmark = pytest.mark.usefixtures("needs_lab")
PROGRAM = [sys.executable, str(Path(__file__).with_name("nat_check.py"))]
HOSTS = ("alice", "bob", "carol", "dave")
NAMES = list(NAT_TYPES)
# Four at a time, since that is how many hosts a lab has
GROUPS = [NAMES[:4], NAMES[4:8], NAMES[6:]]
NEW = {0: NAMES[:4], 1: NAMES[4:8], 2: NAMES[8:]}
# What the package `stun` calls them (RFC 3489)
CLASSIC = {
    "public": "Open Internet",
    "firewall": "Symmetric UDP Firewall",
    "full-cone": "Full Cone NAT",
    "address-restricted": "Restricted Cone NAT",
    "port-restricted": "Port Restricted Cone NAT",
    "eim-other-port": "Port Restricted Cone NAT",
    "symmetric-sequential": "Symmetric NAT",
    "symmetric-block": "Symmetric NAT",
    "symmetric-random": "Symmetric NAT",
    "open-input": "Port Restricted Cone NAT",
}


@contextmanager
def running(host, command, **streams):
    """A process of the host's, until the end of the block, whatever ends it."""
    with host.popen(command, **streams) as process:
        try:
            yield process
        finally:
            process.stop()


@contextmanager
def responder(lab, stderr=None):
    """The registry's responder, and the records it gives out, by host."""
    with running(lab.hosts["registry"], [*PROGRAM, "serve"], stdout=subprocess.PIPE, stderr=stderr) as server:
        yield dict(zip(HOSTS, json.loads(server.stdout.readline()), strict=True))


def ask(lab, host, record, what="check", *words, timeout=30):
    return json.loads(lab.hosts[host].run([*PROGRAM, what, json.dumps(record), *words], timeout=timeout).stdout)


@pytest.fixture(params=NEW, ids=lambda group: "+".join(NEW[group]))
def group(request):
    with Lab(*GROUPS[request.param]) as lab:
        yield (
            lab,
            {host: lab.sides[host].nat_type for host in HOSTS if lab.sides[host].nat_type.name in NEW[request.param]},
        )


def test_ten_of_ten_with_two_addresses_and_with_one_what_can_be_told(group):
    lab, types = group
    with responder(lab) as records:
        assert len(records["alice"]["endpoints"]) == 4
        for host, nat_type in types.items():
            check_all(lab, host, nat_type, ask(lab, host, records[host]))
        with ThreadPoolExecutor() as pool:  # it waits for seconds
            names = list(pool.map(lambda host: ask(lab, host, records[host], "classic"), types))
        assert names == [CLASSIC[nat_type.name] for nat_type in types.values()]
    lab.hosts["registry"].run(["ip", "addr", "del", f"{REGISTRY_ADDRESSES[1]}/24", "dev", "eth0"])
    with responder(lab) as records:
        assert len(records["alice"]["endpoints"]) == 2
        assert ask(lab, "alice", records["alice"], "classic") is None
        for host, nat_type in types.items():
            check_half(nat_type, ask(lab, host, records[host]))


@pytest.mark.soak
def test_all_of_many_are_right(group):
    """20 checks of each type: 200 in all."""
    lab, types = group
    with responder(lab) as records:
        for _ in range(20):
            for host, nat_type in types.items():
                check_all(lab, host, nat_type, ask(lab, host, records[host]))


def check_all(lab, host, nat_type, found):
    profile = NatProfile.from_text(found["profile"])
    assert (profile.mapping, profile.filtering) == (nat_type.profile.mapping, nat_type.profile.filtering), found
    assert profile.delta == (1 if nat_type.name == "symmetric-sequential" else None)
    assert {endpoint.rpartition(":")[0] for endpoint in found["reflexive"]} == {str(lab.outside(host))}
    independent = profile.mapping is MappingBehavior.ENDPOINT_INDEPENDENT
    assert len(found["reflexive"]) == (1 if independent else 4)
    assert found["preserved"] is (independent and nat_type.name != "eim-other-port")
    if nat_type.name == "symmetric-block":
        low, high = found["block"]
        assert 20_000 <= low < high < 21_008
    else:
        assert found["block"] is None
    assert found["sent"] == 8
    assert found["rtt"] <= found["seconds"] < RETRANSMISSION
    print(f"{nat_type.name}: {found}")


def check_half(nat_type, found):
    """One address: what only another could tell is unknown, and nothing is wrong."""
    profile = NatProfile.from_text(found["profile"])
    dependent = nat_type.profile.mapping is MappingBehavior.ADDRESS_AND_PORT_DEPENDENT
    assert profile.mapping is (nat_type.profile.mapping if dependent else None)
    closed = nat_type.profile.filtering is FilteringBehavior.ADDRESS_AND_PORT_DEPENDENT
    assert profile.filtering is (nat_type.profile.filtering if closed else None)
    assert found["sent"] == 4
    assert found["seconds"] < RETRANSMISSION


def measure_lifetimes(timeouts, *bounds, timeout=30):
    """What each of these hosts finds, whose routers forget after so many seconds (None: when Linux does)."""
    with Lab(*["port-restricted"] * 4) as lab, responder(lab) as records:
        for host, seconds in timeouts.items():
            if seconds is not None:
                settings = [f"net.netfilter.nf_conntrack_udp_timeout{which}={seconds}" for which in ("", "_stream")]
                lab.hosts[lab.sides[host].router].run(["sysctl", "-w", *settings])
        with ThreadPoolExecutor() as pool:

            def measure(host):
                return ask(lab, host, records[host], "lifetime", *map(str, bounds), timeout=timeout)

            return dict(zip(timeouts, pool.map(measure, timeouts), strict=True))


def test_a_lifetime_is_measured_in_small():
    """Real rules and sockets; the bounds are a tenth of the real ones."""
    found = measure_lifetimes({"alice": 3, "bob": None}, 2.6, 1.5, 3.1)
    print(found)
    assert 2.6 <= found["alice"]["at_least"] < 3 < found["alice"]["below"] < 3.2
    assert found["bob"]["at_least"] == pytest.approx(3.1, abs=0.1)
    assert found["bob"]["below"] is None
    assert found["bob"]["sent"] == 6


@pytest.mark.soak
def test_lifetimes_as_they_are_found():
    """Routers that forget after 20 s, 40 s, and when Linux does: after 120 s."""
    found = measure_lifetimes({"alice": 20, "bob": 40, "carol": None}, timeout=400)
    print(found)
    assert 15 <= found["alice"]["at_least"] <= 20 <= found["alice"]["below"] <= 23
    assert found["alice"]["interval"] == 15
    assert 33 <= found["bob"]["at_least"] <= 40 <= found["bob"]["below"] <= 46
    assert 26 <= found["bob"]["interval"] <= 32
    assert found["carol"]["below"] is None
    assert found["carol"]["interval"] == 75


TAKE = "import socket; s = socket.socket(2, 2); s.bind(('198.51.100.10', 3478)); print('ok', flush=True); s.recv(1)"


def test_over_ipv6_and_with_a_port_that_somebody_else_has(tmp_path):
    with Lab("public", "public") as lab, (tmp_path / "stderr").open("w+") as said:
        registry = lab.hosts["registry"]
        for address in ("2001:db8:5::10/64", "2001:db8:5::11/64", "fd00::5/64"):
            registry.run(["ip", "-6", "addr", "add", address, "dev", "eth0", "nodad"])
        lab.hosts["core"].run(["ip", "-6", "addr", "add", "2001:db8:5::1/64", "dev", "registry", "nodad"])
        with running(registry, [sys.executable, "-c", TAKE], stdout=subprocess.PIPE) as other:
            assert other.stdout.readline() == "ok\n"
            with responder(lab, said) as records:
                assert sorted(records["alice"]["endpoints"]) == sorted(
                    ["198.51.100.10:3479", "198.51.100.11:3478", "198.51.100.11:3479"]
                    + [f"[2001:db8:5::{host}]:{port}" for host in (10, 11) for port in (3478, 3479)]
                )
                found = ask(lab, "core", records["bob"], "check6")
                assert found["profile"] == "eim/eif/-"
                assert found["reflexive"][0].startswith("[2001:db8:5::1]:")
                assert ask(lab, "alice", records["alice"])["profile"] == "eim/eif/-"
        said.seek(0)
        assert "UDP port 3478 of 198.51.100.10 cannot be had by python (pid " in said.read()

"""Others' resolvers on the zone: a member's host asks the registry by what a desktop asks with."""

import pytest

from tests.system.network import ZONE, Network, await_
from tests.system.resolvers import give_avahi, give_resolved
from wgdisco.lab.topology import Lab

pytestmark = pytest.mark.usefixtures("needs_lab")

REGISTRY = "198.51.100.10"


@pytest.fixture(scope="module")
def network():
    """bob is a member; the hosts of alice and carol are nobody's, and ask."""
    with Lab(nat_c="port-restricted") as lab, Network(lab) as network:
        give_resolved(lab.hosts["alice"])
        network.start("registry")
        network.wait("registry", "started")
        network.start("bob")
        network.wait("registry", "published", "bob")
        link = lab.hosts["alice"].run(["ip", "-o", "route", "show", "default"]).stdout.split()[4]
        lab.hosts["alice"].run(["resolvectl", "dns", link, REGISTRY])
        lab.hosts["alice"].run(["resolvectl", "domain", link, "~."])
        yield network


def ask(network, *command):
    """What it says, once it does."""
    host = network.lab.hosts["alice"]
    return await_(lambda: host.run(command, check=False).stdout, " ".join(command))


def label(network):
    return network.keys["bob"].to_label()


def test_resolvectl_browses_and_resolves(network):
    name = f"_wireguard._udp.{ZONE.removesuffix('.')}"
    listed = ask(network, "resolvectl", "query", "-t", "PTR", name).replace("\\061", "=")
    assert f"{name} IN PTR {label(network)}.{name}" in listed
    said = ask(network, "resolvectl", "service", label(network), "_wireguard._udp", ZONE)
    assert f"{label(network).removesuffix('====')}.{ZONE.removesuffix('.')}:51820" in said
    assert "203.0.113.10" in said
    assert f"pub={network.keys['bob']}" in said
    assert "allowed=10.0.0.2/32" in said


def test_getaddrinfo_takes_the_host_that_srv_names(network):
    host = f"{label(network).removesuffix('====')}.{ZONE}"
    assert ask(network, "getent", "ahosts", host).split()[0] == "203.0.113.10"


def test_avahi_browses_and_resolves(network):
    """Without EDNS and TCP; `=` is escaped in what it prints."""
    avahi = give_avahi(network.lab.hosts["carol"], REGISTRY)
    domain = ZONE.removesuffix(".")

    def browse(*words):
        words = ("--terminate", "--parsable", f"--domain={domain}", *words)
        return await_(lambda: avahi("avahi-browse", *words), "avahi-browse").replace("\\061", "=").splitlines()

    found = f"{label(network)};_wireguard._udp;{domain}"
    assert browse("--all") == [f"+;n/a;n/a;{found}"]
    resolved = browse("--resolve", "_wireguard._udp")[-1]
    host = f"{label(network).removesuffix('====')}.{domain}"
    assert resolved.startswith(f"=;n/a;n/a;{found};{host};203.0.113.10;51820;")
    assert f'"pub={network.keys["bob"]}"' in resolved
    assert domain in avahi("avahi-browse", "--terminate", "--browse-domains", f"--domain={domain}")

"""Where hosts of a plan are seen from, and what has to be routed where."""

from ipaddress import ip_network

from wgdisco.lab.nat_types import NAT_TYPES
from wgdisco.lab.plan import Leaf, Plan, Router, Uplink, interfaces

HOME, CONE, FIREWALL = (NAT_TYPES[name] for name in ("port-restricted", "full-cone", "firewall"))
PLAN = Plan(
    (
        Router("carrier", CONE, interfaces("198.18.1.10/25"), interfaces("100.64.1.1/24")),
        Router("home", HOME, interfaces("100.64.1.10/24"), interfaces("192.168.1.1/24"), parent="carrier"),
        Router(
            "office",
            FIREWALL,
            interfaces("198.18.2.10/25", "2001:db8:2::1/128"),
            interfaces("198.18.2.129/25", "2001:db8:2:1::1/64"),
        ),
    ),
    (
        Leaf("alice", (Uplink("home", interfaces("192.168.1.10/24")), Uplink("carrier", interfaces("100.64.1.9/24")))),
        Leaf("bob", (Uplink("office", interfaces("198.18.2.130/25", "2001:db8:2:1::10/64")),)),
        Leaf("registry", (Uplink(None, interfaces("198.51.100.10/24", "198.51.100.11/24")),)),
    ),
)


def test_outside() -> None:
    seen = {name: [str(address) for address in PLAN.outside(name)] for name in ("alice", "bob", "registry")}
    assert seen == {
        "alice": ["198.18.1.10", "198.18.1.10"],
        "bob": ["198.18.2.130", "2001:db8:2:1::10"],
        "registry": ["198.51.100.10", "198.51.100.11"],
    }


def test_what_hangs_at_the_internet() -> None:
    assert PLAN.at_internet() == [
        ("carrier", "wan", (ip_network("198.18.1.10/32"),)),
        (
            "office",
            "wan",
            tuple(map(ip_network, ("198.18.2.10/32", "2001:db8:2::1", "198.18.2.128/25", "2001:db8:2:1::/64"))),
        ),
        ("registry", "eth0", (ip_network("198.51.100.10/32"), ip_network("198.51.100.11/32"))),
    ]


def test_who_is_behind_whom() -> None:
    assert [router.name for router in PLAN.behind("carrier")] == ["home"]
    assert [(leaf.name, number) for leaf, number in PLAN.hosts_of("carrier")] == [("alice", 1)]

"""Cryptokey routing against the kernel's self-test tables and against a search through all prefixes."""

import random
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from wgdisco.tunnel.allowed_ips import AllowedIPs
from wgdisco.tunnel.notation import parse_prefix


def _v6(*words: int) -> str:
    return str(IPv6Address(b"".join(word.to_bytes(4, "big") for word in words)))


KERNEL_INSERTS = [
    ("a", "192.168.4.0/24"),
    ("b", "192.168.4.4/32"),
    ("c", "192.168.0.0/16"),
    ("d", "192.95.5.64/27"),
    ("c", "192.95.5.65/27"),
    ("d", _v6(0x26075300, 0x60006B00, 0, 0xC05F0543) + "/128"),
    ("c", _v6(0x26075300, 0x60006B00, 0, 0) + "/64"),
    ("e", "0.0.0.0/0"),
    ("e", "::/0"),
    ("f", "::/0"),
    ("g", _v6(0x24046800, 0, 0, 0) + "/32"),
    ("h", _v6(0x24046800, 0x40040800, 0xDEADBEEF, 0xDEADBEEF) + "/64"),
    ("a", _v6(0x24046800, 0x40040800, 0xDEADBEEF, 0xDEADBEEF) + "/128"),
    ("c", _v6(0x24446800, 0x40E40800, 0xDEAEBEEF, 0xDEFBEEF) + "/128"),
    ("b", _v6(0x24446800, 0xF0E40800, 0xEEAEBEEF, 0) + "/98"),
    ("g", "64.15.112.0/20"),
    ("h", "64.15.123.211/25"),
    ("a", "10.0.0.0/25"),
    ("b", "10.0.0.128/25"),
    ("a", "10.1.0.0/30"),
    ("b", "10.1.0.4/30"),
    ("c", "10.1.0.8/29"),
    ("d", "10.1.0.16/29"),
]
KERNEL_LOOKUPS = [
    ("a", "192.168.4.20"),
    ("a", "192.168.4.0"),
    ("b", "192.168.4.4"),
    ("c", "192.168.200.182"),
    ("c", "192.95.5.68"),
    ("e", "192.95.5.96"),
    ("d", _v6(0x26075300, 0x60006B00, 0, 0xC05F0543)),
    ("c", _v6(0x26075300, 0x60006B00, 0, 0xC02E01EE)),
    ("f", _v6(0x26075300, 0x60006B01, 0, 0)),
    ("g", _v6(0x24046800, 0x40040806, 0, 0x1006)),
    ("g", _v6(0x24046800, 0x40040806, 0x1234, 0x5678)),
    ("f", _v6(0x240467FF, 0x40040806, 0x1234, 0x5678)),
    ("f", _v6(0x24046801, 0x40040806, 0x1234, 0x5678)),
    ("h", _v6(0x24046800, 0x40040800, 0x1234, 0x5678)),
    ("h", _v6(0x24046800, 0x40040800, 0, 0)),
    ("h", _v6(0x24046800, 0x40040800, 0x10101010, 0x10101010)),
    ("a", _v6(0x24046800, 0x40040800, 0xDEADBEEF, 0xDEADBEEF)),
    ("g", "64.15.116.26"),
    ("g", "64.15.127.3"),
    ("g", "64.15.123.1"),
    ("h", "64.15.123.128"),
    ("h", "64.15.123.129"),
    ("a", "10.0.0.52"),
    ("b", "10.0.0.220"),
    ("a", "10.1.0.2"),
    ("b", "10.1.0.6"),
    ("c", "10.1.0.10"),
    ("d", "10.1.0.20"),
]


def _lookup(table: AllowedIPs[str], address: str) -> str | None:
    return table.lookup(ip_address(address).packed)


@pytest.fixture
def kernel_table():
    table: AllowedIPs[str] = AllowedIPs()
    for owner, network in KERNEL_INSERTS:
        table.insert(parse_prefix(network), owner)
    return table


@pytest.mark.rule("A1", "A5")
def test_the_kernels_tables(kernel_table):
    assert (len(KERNEL_INSERTS), len(KERNEL_LOOKUPS)) == (23, 28)
    assert [(_lookup(kernel_table, address), address) for _, address in KERNEL_LOOKUPS] == KERNEL_LOOKUPS


@pytest.mark.rule("A4")
def test_removing_a_peer_takes_all_it_had(kernel_table):
    gone = ["1.0.0.0", "64.0.0.0", "128.0.0.0", "192.0.0.0", "255.0.0.0"]
    for address in gone:
        kernel_table.insert(ip_network(address), "a")
    kernel_table.remove_peer("a")
    assert [_lookup(kernel_table, address) for address in gone] == ["e"] * 5
    assert kernel_table.networks("a") == ()
    for owner, address in KERNEL_LOOKUPS:
        assert (_lookup(kernel_table, address) == owner) is (owner != "a"), address


@pytest.mark.rule("A4")
def test_nested_prefixes_of_a_removed_peer_go_too():
    table: AllowedIPs[str] = AllowedIPs()
    table.insert(ip_network("192.168.0.0/16"), "a")
    table.insert(ip_network("192.168.0.0/24"), "a")
    table.remove_peer("a")
    assert _lookup(table, "192.168.0.1") is None


@pytest.mark.rule("A5")
def test_128_deep():
    table: AllowedIPs[str] = AllowedIPs()
    addresses = [IPv6Address((1 << 128) - 1 ^ (1 << bit)) for bit in range(128)]
    for address in addresses:
        table.insert(ip_network(address), str(address))
    assert all(table.lookup(address.packed) == str(address) for address in addresses)
    assert table.lookup(b"\xff" * 16) is None
    for length in range(129):
        table.insert(ip_network((b"\xff" * 16, length), strict=False), f"/{length}")
    for bit in range(128):
        # The address whose bit is clear is its own /128; flip another one below it, and the longest common prefix wins.
        if bit:
            assert table.lookup(IPv6Address((1 << 128) - 1 ^ (1 << bit) ^ 1).packed) == f"/{127 - bit}"
    for address in addresses:
        table.remove_peer(str(address))
    for length in range(129):
        table.remove_peer(f"/{length}")
    assert table.lookup(b"\xff" * 16) is None


@pytest.mark.rule("A2", "A6")
def test_listing_gives_masked_prefixes():
    table: AllowedIPs[str] = AllowedIPs()
    given = [
        "192.95.5.93/27",
        _v6(0x26075300, 0x60006B00, 0, 0xC05F0543) + "/128",
        "10.1.0.20/29",
        _v6(0x26075300, 0x6D8A6BF8, 0xDAB1F1DF, 0xC05F1523) + "/83",
        _v6(0x26075300, 0x6D8A6BF8, 0xDAB1F1DF, 0xC05F1523) + "/21",
    ]
    for text in given:
        table.insert(parse_prefix(text), "a")
    assert table.networks("a") == tuple(
        ip_network(text)
        for text in [
            "192.95.5.64/27",
            _v6(0x26075300, 0x60006B00, 0, 0xC05F0543) + "/128",
            "10.1.0.16/29",
            _v6(0x26075300, 0x6D8A6BF8, 0xDAB1E000, 0) + "/83",
            _v6(0x26075000, 0, 0, 0) + "/21",
        ]
    )


@pytest.mark.rule("A3")
def test_the_same_prefix_moves_to_its_new_owner():
    table: AllowedIPs[str] = AllowedIPs()
    network = ip_network("10.0.0.0/8")
    table.insert(network, "a")
    table.insert(network, "b")
    assert _lookup(table, "10.1.1.1") == "b"
    assert table.networks("a") == ()
    assert table.networks("b") == (network,)
    table.remove_peer("a")
    assert _lookup(table, "10.1.1.1") == "b"


@pytest.mark.rule("A4")
def test_only_the_owner_can_remove_a_prefix():
    table: AllowedIPs[str] = AllowedIPs()
    network = ip_network("10.0.0.0/8")
    table.insert(network, "a")
    assert not table.remove(network, "b")
    assert not table.remove(ip_network("10.0.0.0/9"), "a")
    assert _lookup(table, "10.1.1.1") == "a"
    assert table.remove(network, "a")
    assert not table.remove(network, "a")
    assert _lookup(table, "10.1.1.1") is None


@pytest.mark.rule("A1", "A5")
def test_families_do_not_mix():
    table: AllowedIPs[str] = AllowedIPs()
    table.insert(ip_network("0.0.0.0/0"), "four")
    assert _lookup(table, "::") is None
    table.insert(ip_network("::/0"), "six")
    assert _lookup(table, "0.0.0.0") == "four"
    assert _lookup(table, "::1") == "six"


@pytest.mark.rule("A1", "A3", "A4")
@pytest.mark.parametrize("family", [IPv4Address, IPv6Address])
@pytest.mark.parametrize("seed", range(3))
def test_random_tables_against_a_search_through_all_prefixes(seed, family):
    chance = random.Random(seed)
    bits = 32 if family is IPv4Address else 128
    table: AllowedIPs[int] = AllowedIPs()
    truth: dict = {}
    # A handful of bases and their neighbours, so that prefixes nest, repeat and move
    bases = [chance.getrandbits(bits) for _ in range(12)]

    def address():
        return family(chance.choice(bases) ^ chance.getrandbits(chance.randint(1, bits)))

    for _ in range(400):
        network = ip_network(f"{address()}/{chance.randint(0, bits)}", strict=False)
        owner = chance.randint(1, 20)
        match chance.random():
            case draw if draw < 0.75:
                table.insert(network, owner)
                truth[network] = owner
            case draw if draw < 0.95 and truth:
                network = chance.choice(list(truth))
                assert table.remove(network, owner) is (truth[network] == owner)
                if truth[network] == owner:
                    del truth[network]
            case _:
                table.remove_peer(owner)
                truth = {network: peer for network, peer in truth.items() if peer != owner}
    for _ in range(400):
        wanted = address()
        around = [network for network in truth if wanted in network]
        expected = truth[max(around, key=lambda network: network.prefixlen)] if around else None
        assert table.lookup(wanted.packed) == expected
    for owner in range(1, 21):
        assert set(table.networks(owner)) == {network for network, peer in truth.items() if peer == owner}


@pytest.mark.rule("A1", "A5")
@pytest.mark.parametrize("family", [IPv4Address, IPv6Address])
def test_2000_peers_with_400_routes_and_their_mutations(family):
    """The size of the kernel's random self-test: routes that share their first bits, searched one by one."""
    chance = random.Random(2000)
    bits = 32 if family is IPv4Address else 128
    routes: dict[tuple[int, int], int] = {}
    table: AllowedIPs[int] = AllowedIPs()
    bases = [chance.getrandbits(bits) for _ in range(400)]
    for base in bases:
        for _ in range(10):
            length = chance.randint(1, bits)
            address = base ^ chance.getrandbits(chance.randint(1, bits))
            prefix, owner = address >> (bits - length), chance.randrange(2000)
            table.insert(ip_network((family(address), length), strict=False), owner)
            routes[length, prefix] = owner
    searched = sorted(routes.items(), reverse=True)
    for _ in range(500):
        wanted = chance.choice(bases) ^ chance.getrandbits(chance.randint(1, bits))
        owners = (owner for (length, prefix), owner in searched if wanted >> (bits - length) == prefix)
        assert table.lookup(family(wanted).packed) == next(owners, None)


@pytest.mark.rule("A4")
@pytest.mark.parametrize("how", ["peers", "prefixes"])
def test_nothing_remains_of_an_emptied_table(kernel_table, how):
    for owner in "abcdefgh":
        if how == "peers":
            kernel_table.remove_peer(owner)
        for network in kernel_table.networks(owner):
            assert kernel_table.remove(network, owner)
        assert kernel_table.networks(owner) == ()
    assert kernel_table._owned == {}
    assert (kernel_table._v4.tables, kernel_table._v6.tables) == ({}, {})
    assert (kernel_table._v4.levels, kernel_table._v6.levels) == ((), ())


@pytest.mark.rule("A3", "A6")
def test_a_prefix_given_again_to_its_owner_changes_nothing():
    table: AllowedIPs[str] = AllowedIPs()
    networks = (ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16"))
    for network in (*networks, networks[0]):
        table.insert(network, "a")
    assert table.networks("a") == networks

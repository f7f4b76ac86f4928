from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgdisco.endpoint import Endpoint
from wgdisco.errors import ConfigError
from wgdisco.keys import PresharedKey, PrivateKey, PublicKey
from wgdisco.tunnel.conf import TunnelConf, parse_conf
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.notation import parse_prefix

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="
PUBLIC_1 = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
PUBLIC_2 = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
PSK = "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak="
ZERO = "A" * 43 + "="

FULL = f"""# a comment
[Interface]
Address = 10.192.122.1/24, fd00::1/64   # two
 Address=10.10.0.1
PrivateKey = {PRIVATE}
ListenPort = 51820
FwMark = 0xCa6C
MTU = 1380

[Peer]
PublicKey = {PUBLIC_1}
PresharedKey = {PSK}
AllowedIPs = 10.192.122.3/32, 10.192.124.1/24
AllowedIPs = fd00::3
Endpoint = 192.95.5.67:1234
PersistentKeepalive = 25
[peer]
p u b l i c k e y={PUBLIC_2}
allowedips =
ENDPOINT = vpn.example.com:51820
PersistentKeepalive = oFF
"""


def conf(*lines: str) -> TunnelConf:
    return parse_conf("\n".join(lines), "t.conf")


def peer(*lines: str) -> PeerConfig:
    return conf("[Peer]", f"PublicKey={PUBLIC_1}", *lines).device.peers[0]


def test_a_whole_file():
    parsed = parse_conf(FULL, "a.conf")
    one, two = PublicKey.from_text(PUBLIC_1), PublicKey.from_text(PUBLIC_2)
    allowed = tuple(map(ip_network, ("10.192.122.3/32", "10.192.124.0/24", "fd00::3/128")))
    assert parsed == TunnelConf(
        DeviceConfig(
            PrivateKey.from_text(PRIVATE),
            51820,
            0xCA6C,
            (
                PeerConfig(one, PresharedKey.from_text(PSK), Endpoint.from_text("192.95.5.67:1234"), allowed, 25),
                PeerConfig(two),
            ),
        ),
        tuple(map(ip_interface, ("10.192.122.1/24", "fd00::1/64", "10.10.0.1/32"))),
        1380,
        {two: ("vpn.example.com", 51820)},
    )
    assert parse_conf(parsed.to_text(), "b.conf") == parsed


def test_windows_line_ends_and_an_empty_file():
    assert parse_conf(FULL.replace("\n", "\r\n"), "a.conf") == parse_conf(FULL, "a.conf")
    assert parse_conf("", "a.conf") == TunnelConf()


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        ("[2001:db8::1]:1", "[2001:db8::1]:1"),
        ("2001:db8::1:51820", "[2001:db8::1]:51820"),  # wg splits at the last colon
        ("[192.0.2.1]:5", "192.0.2.1:5"),
        ("::ffff:192.0.2.1:5", "192.0.2.1:5"),
    ],
)
def test_endpoints(value, endpoint):
    assert peer(f"Endpoint = {value}").endpoint == Endpoint.from_text(endpoint)


def test_names_are_given_endpoints_once_found():
    key = PublicKey.from_text(PUBLIC_1)
    parsed = conf("[Peer]", f"PublicKey={PUBLIC_1}", "Endpoint = [a-b.example]:7", "AllowedIPs = 10.0.0.0/8")
    assert parsed.endpoint_names == {key: ("a-b.example", 7)}
    found = Endpoint(ip_address("192.0.2.7"), 7)
    resolved = parsed.with_endpoints({key: found})
    assert resolved.device.peers[0].endpoint == found
    assert not resolved.endpoint_names
    assert parsed.with_endpoints({}) == parsed


@pytest.mark.rule("F3")
@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        (["10.0.0.0/8,+10.1.0.0/16", "-10.0.0.0/8"], ["10.1.0.0/16"]),
        (["+10.0.0.0/8"], ["10.0.0.0/8"]),
        (["-10.0.0.0/8"], []),
        (["+::/0,-::/0,+::1"], ["::1/128"]),
        (["10.0.0.0/8", "-10.0.0.0/9"], ["10.0.0.0/8"]),  # only the very prefix
        (["10.1.2.3/8", "-10.9.9.9/8"], []),  # host bits are cleared first
        ([" + 10.0.0.0 / 8 , - 10.0.0.0 / 8 "], []),
    ],
)
def test_signs_add_and_take_away(lines, allowed):
    assert list(map(str, peer(*(f"AllowedIPs={line}" for line in lines)).allowed_ips)) == allowed


@pytest.mark.rule("F3")
@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        ([], []),  # a section alone replaces
        ([""], []),
        (["10.1.0.0/16"], ["10.1.0.0/16"]),
        (["+10.1.0.0/16"], ["10.0.0.0/8", "::/0", "10.1.0.0/16"]),
        (["-10.0.0.0/8"], ["::/0"]),
        (["10.1.0.0/16,-::/0"], ["10.0.0.0/8", "10.1.0.0/16"]),  # one sign, and the whole line is incremental
        (["10.1.0.0/16", "-::/0"], ["10.0.0.0/8", "10.1.0.0/16"]),
        (["-::/0", "10.1.0.0/16"], ["10.1.0.0/16"]),  # a later line without one replaces again
        (["+10.1.0.0/16", ""], ["10.1.0.0/16"]),
    ],
)
def test_what_has_a_sign_leaves_the_others(lines, allowed):
    """A second section about a peer that has 10.0.0.0/8 and ::/0."""
    more = "".join(f"AllowedIPs={line}\n" for line in lines)
    head = f"[Peer]\nPublicKey={PUBLIC_1}\n"
    (merged,) = parse_conf(f"{head}AllowedIPs=10.0.0.0/8,::/0\n{head}{more}", "t.conf").device.peers
    assert list(map(str, merged.allowed_ips)) == allowed


@pytest.mark.rule("F3")
@pytest.mark.parametrize(
    "value", ["+", "-", "++10.0.0.0/8", "+-::/0", "10.0.0.0/+8", "10.0.0.0+/8", "+10.0.0.0/8,", "+,"]
)
def test_signs_without_a_prefix(value):
    with pytest.raises(ConfigError):
        peer(f"AllowedIPs={value}")


SERVICES = {"domain": 53, "7th": 7, "-1": 1, "4294967295": 2}


@pytest.mark.rule("F2", "F5")
@pytest.mark.parametrize(
    ("text", "port"),
    [
        *(("0", 0), ("65535", 65535), ("+5", 5), ("007", 7), ("0" * 5000 + "9", 9)),
        *(("65536", 0), ("70000", 4464), ("4294967301", 5), ("-4294967291", 5)),  # 16 bits of C's int
        *(("domain", 53), ("7th", 7), ("-1", 1), ("4294967295", 2)),  # no int, so a name
    ],
)
def test_a_port_as_getaddrinfo_reads_it(text, port):
    lines = f"[Interface]\nListenPort={text}\n[Peer]\nPublicKey={PUBLIC_1}\nEndpoint=192.0.2.1:{text}"
    device = parse_conf(lines, "t.conf", SERVICES.get).device
    assert device.listen_port == port
    assert device.peers[0].endpoint == (Endpoint(ip_address("192.0.2.1"), port) if port else None)


@pytest.mark.rule("F5")
@pytest.mark.parametrize(
    "host",
    ["a.example", "127.1", "010.0.0.1", "0x7f000001", "fe80::1%eth0", "fe80::1%2", "*", "-", "a..b", "1.2.3.4%lo"],
)
def test_a_resolver_judges_what_is_no_plain_address(host):
    parsed = conf("[Peer]", f"PublicKey={PUBLIC_1}", f"Endpoint={host}:7")
    assert parsed.endpoint_names == {PublicKey.from_text(PUBLIC_1): (host, 7)}
    assert parsed.device.peers[0].endpoint is None
    assert parse_conf(parsed.to_text(), "t.conf") == parsed


@pytest.mark.rule("F5")
def test_a_later_endpoint_wins_even_if_it_is_none():
    key = PublicKey.from_text(PUBLIC_1)
    head = ("[Peer]", f"PublicKey={PUBLIC_1}")
    assert peer("Endpoint=192.0.2.1:5", "Endpoint=192.0.2.2:0").endpoint is None
    assert peer("Endpoint=192.0.2.1:5", *head, "Endpoint=192.0.2.2:0").endpoint is None
    assert conf(*head, "Endpoint=a.example:5", *head, "Endpoint=192.0.2.2:*").endpoint_names == {}
    named = conf(*head, "Endpoint=192.0.2.1:5", *head, "Endpoint=a.example:0")
    assert named.endpoint_names == {key: ("a.example", 0)}
    assert named.device.peers[0].endpoint is None
    assert named.with_endpoints({key: None}) == conf(*head)


def test_sections_about_one_peer_add_up_and_the_later_allowed_ips_replace():
    parsed = conf(
        *("[Peer]", f"PublicKey={PUBLIC_1}", f"PresharedKey={PSK}", "AllowedIPs=10.0.0.0/8", "Endpoint=a.example:1"),
        *("[Peer]", f"PublicKey={PUBLIC_1}", "AllowedIPs=10.1.0.0/16", "PersistentKeepalive=3"),
        *("[Peer]", f"PublicKey={PUBLIC_1}", "AllowedIPs=+10.2.0.0/16", "Endpoint=192.0.2.1:2"),
    )
    (merged,) = parsed.device.peers
    assert merged.preshared_key == PresharedKey.from_text(PSK)
    assert merged.allowed_ips == (ip_network("10.1.0.0/16"), ip_network("10.2.0.0/16"))
    assert merged.endpoint == Endpoint.from_text("192.0.2.1:2")
    assert merged.persistent_keepalive == 3
    assert not parsed.endpoint_names


def test_zero_keys_are_no_keys():
    assert conf("[Interface]", f"PrivateKey={ZERO}").device.private_key is None
    assert peer(f"PresharedKey={ZERO}").preshared_key is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("DNS = 10.0.0.1, 10.0.0", "DNS '10.0.0' is not an IP address"),
        ("DNS = -x", "DNS '-x' is neither an IP address nor a domain"),
        ("PostUp = iptables -A %i", "PostUp is not supported yet"),
        ("saveconfig = true", "saveconfig is not supported yet"),
        ("Colour = red", "Colour is not a key of [Interface]"),
        ("AllowedIPs = 10.0.0.0/8", "it belongs under [Peer]"),
        ("ListenPort = ٣", "ListenPort is not a number from 0 to 65535, nor the name of a service"),
        ("ListenPort =", "ListenPort is not a number"),
        ("ListenPort = *", "ListenPort is not a number"),
        ("ListenPort = 2147483648", "ListenPort is not a number"),
        (f"ListenPort = {'9' * 5000}", "ListenPort is not a number"),
        ("FwMark = 0X1", "FwMark is not a number"),
        ("FwMark = 0x100000000", "FwMark is not a number"),
        ("Table = my/vpn", "Table is not a number from 1 to 4294967295, nor auto, off or a table's name"),
        ("Table = 0", "Table is not a number from 1"),
        ("MTU = 67", "MTU is not a number from 68 to 65503"),
        ("Address = 10.0.0.1/33", "Address the length of prefix '10.0.0.1/33' is not a number from 0 to 32"),
        ("Address = 10.0.0.1/255.0.0.0", "the length of prefix"),
        ("Address = here", "Address 'here' is not an IP address"),
        ("PrivateKey = abc", "PrivateKey: a key is 44 base64 characters"),
        ("[Peers]", "neither [Interface], [Peer] nor"),
        ("hello", "neither [Interface], [Peer] nor"),
    ],
)
def test_interface_lines_refused(line, message):
    with pytest.raises(ConfigError) as raised:
        conf("[Interface]", "", line)
    assert message in str(raised.value)
    assert str(raised.value).startswith("t.conf:3: ")
    assert (raised.value.path, raised.value.line) == ("t.conf", 3)


@pytest.mark.parametrize(
    "line",
    [
        "AllowedIPs = 10.0.0.0/8,",
        "AllowedIPs = fe80::1%eth0/64",
        "AllowedIPs = 10.0.0.0/-1",
        "AllowedIPs = 10.0.0.0/",
        "AllowedIPs = 010.0.0.0/8",
        "AllowedIPs = ++10.0.0.0/8",
        "Endpoint =",
        "Endpoint = 192.0.2.1",
        "Endpoint = 192.0.2.1:",
        "Endpoint = 192.0.2.1:domain",
        "Endpoint = *:*",
        "Endpoint = :5",
        "Endpoint = [2001:db8::1:5",
        "Endpoint = [2001:db8::1]5",
        "Endpoint = fe80::1%:5",
        "Endpoint = a!b:5",
        "PersistentKeepalive = 65536",
        "PersistentKeepalive = -1",
        "PublicKey = nothing",
        "Address = 10.0.0.1",
        "DNS = 1.1.1.1",
    ],
)
def test_peer_lines_refused(line):
    with pytest.raises(ConfigError, match=r"^t\.conf:3: "):
        peer(line)


def test_a_peer_needs_a_public_key():
    with pytest.raises(ConfigError, match=r"^t\.conf:2: this \[Peer\] has no PublicKey"):
        conf("[Interface]", "[Peer]", "AllowedIPs=10.0.0.0/8")


def test_a_line_before_any_section():
    with pytest.raises(ConfigError, match=r"^t\.conf:1: ListenPort stands before any"):
        conf("ListenPort = 1")


@pytest.mark.parametrize(
    "line",
    [
        PRIVATE,
        f"PrivateKey: {PRIVATE}",
        f"PrivateKey = {PRIVATE[:-1]}",
        f"PrivateKey = {PRIVATE}=",
        f"PrivateKey{PRIVATE}",
        f"Address = {PRIVATE}",
        f"ListenPort = {PRIVATE}",
        f"[Peer]\nPresharedKey = x{PRIVATE}",
        f"[Peer]\nEndpoint = {PRIVATE}",
        f"[Peer]\nAllowedIPs = {PRIVATE}",
    ],
)
def test_no_message_holds_a_key(line):
    with pytest.raises(ConfigError) as raised:
        conf("[Interface]", *line.split("\n"))
    assert PRIVATE[4:20] not in str(raised.value)
    assert PRIVATE not in repr(parse_conf(FULL, "a.conf"))


def test_a_prefix_loses_its_host_bits():
    assert parse_prefix("10.1.2.3/8") == ip_network("10.0.0.0/8")
    assert parse_prefix("::ffff:10.0.0.1") == ip_network("::ffff:10.0.0.1/128")


SECTIONS = ["[Peer]\n", "[Interface]\n"]
NAMES = ["Endpoint=", "Address=", "AllowedIPs=", "PublicKey=", "PresharedKey=", "FwMark=0x", "MTU=", "ListenPort="]
VALUES = [PUBLIC_1, "10.0.0.1", "fe80::1", "example.com", "65535", "off", "\x00", "\x1c", "é"]
TOKENS = st.sampled_from([*"\n=#:,[]/%+-. \t0", *SECTIONS, *NAMES, *VALUES])


@given(st.text() | st.lists(TOKENS, max_size=40).map("".join))
def test_any_text_gives_a_value_or_a_config_error(text):
    try:
        parsed = parse_conf(text, "t.conf")
    except ConfigError:
        return
    assert parse_conf(parsed.to_text(), "t.conf") == parsed


keys = st.binary(min_size=32, max_size=32)
ports = st.integers(1, 65535)
endpoints = st.builds(Endpoint, st.ip_addresses(v=4) | st.ip_addresses(v=6).filter(lambda a: not a.ipv4_mapped), ports)
networks = st.builds(
    lambda address, length: ip_network((address.packed, min(length, address.max_prefixlen)), strict=False),
    st.ip_addresses(),
    st.integers(0, 128),
)
peers = st.builds(
    PeerConfig,
    st.builds(PublicKey, keys),
    st.none() | st.builds(PresharedKey, keys.filter(any)),
    st.none() | endpoints,
    st.lists(networks, max_size=4, unique=True).map(tuple),
    st.integers(0, 65535),
)
devices = st.builds(
    DeviceConfig,
    st.none() | st.builds(PrivateKey, keys.filter(any)),
    st.integers(0, 65535),
    st.integers(0, 2**32 - 1),
    st.lists(peers, max_size=3, unique_by=lambda peer: peer.public_key).map(tuple),
)


@given(devices, st.none() | st.integers(68, 65503), st.lists(st.ip_addresses().map(ip_interface), max_size=3))
def test_what_is_printed_reads_back(device, mtu, addresses):
    names = {peer.public_key: ("a.example", 5) for peer in device.peers if peer.endpoint is None}
    whole = TunnelConf(device, tuple(addresses), mtu, names)
    assert parse_conf(whole.to_text(), "t.conf") == whole

import os
import select
import socket
import subprocess
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.tunnel.io.namespace import in_namespace, ip
from wgdisco.endpoint import Endpoint
from wgdisco.errors import LocalError
from wgdisco.machine import port_owner
from wgdisco.tunnel.burst import Burst
from wgdisco.tunnel.io.udp import A_CALL, UdpSockets


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


LOOPBACKS = [
    "127.0.0.1",
    pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on the loopback interface")),
]


@pytest.fixture
def pair():
    one, two = UdpSockets.open(), UdpSockets.open()
    yield one, two
    one.close()
    two.close()


def at(sockets: UdpSockets, host: str = "127.0.0.1") -> Endpoint:
    return Endpoint(ip_address(host), sockets.port)


def arrivals(sockets: UdpSockets, rows: int) -> list[tuple[Burst, Endpoint]]:
    """What arrives until there are `rows` datagrams."""
    received: list[tuple[Burst, Endpoint]] = []
    while sum(burst.count for burst, _ in received) < rows:
        ready, _, _ = select.select(sockets.fds, [], [], 5)
        assert ready, f"only {received} arrived"
        for fd in ready:
            received += ((replace(burst, data=bytes(burst.data)), source) for burst, source in sockets.receive(fd))
    return received


def flat(received: list[tuple[Burst, Endpoint]]) -> list[bytes]:
    return [bytes(row) for burst, _ in received for row in burst.rows()]


def burst_of(rows: int, row: int, last: int | None = None) -> Burst:
    """Rows that differ, the last one of `last` bytes."""
    data = b"".join(bytes([number % 251]) * row for number in range(rows))
    return Burst(data if last is None else data[: len(data) - row + last], row)


@pytest.mark.rule("E6")
@in_namespace
def test_buffers_of_7_mib_past_the_systems_limit():
    sockets = UdpSockets.open()
    for fd in sockets.fds:
        with socket.socket(fileno=os.dup(fd)) as sock:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                assert sock.getsockopt(socket.SOL_SOCKET, option) == 2 * (7 << 20)  # socket(7): told doubled
    sockets.close()


@pytest.mark.rule("D8", "S6", "S8")
@pytest.mark.parametrize("host", LOOPBACKS)
@pytest.mark.parametrize("gso", [True, False])
@pytest.mark.parametrize(
    ("rows", "row", "last"), [(1, 1452, None), (45, 1452, 700), (200, 32, 1), (100, 1452, None), (3, 40000, 9)]
)
def test_a_burst_arrives_whole_and_in_order(host, gso, rows, row, last):
    one, two = UdpSockets.open(udp_gso=gso), UdpSockets.open()
    burst = burst_of(rows, row, last)
    one.send(burst, at(two, host))
    received = arrivals(two, rows)
    assert flat(received) == [bytes(part) for part in burst.rows()]
    assert {source for _, source in received} == {at(one, host)}
    assert not one.dropped
    one.close()
    two.close()


@pytest.mark.rule("S6", "S8")
def test_offloads_make_few_calls_of_many_datagrams(pair):
    one, two = pair
    one.send(burst_of(45, 1400, 100), at(two))
    ((received, _),) = arrivals(two, 45)
    assert (received.count, received.row, len(received.data)) == (45, 1400, 44 * 1400 + 100)


def test_without_gro_datagrams_come_alone():
    one, two = UdpSockets.open(), UdpSockets.open(udp_gro=False)
    one.send(burst_of(10, 100), at(two))
    assert [burst.row for burst, _ in arrivals(two, 10)] == [100] * 10
    one.close()
    two.close()


def test_a_call_takes_few_bursts(pair):
    """So that others get their turn soon."""
    one, two = pair
    for size in range(100, 120):  # of growing size: they do not merge
        one.send(Burst.of(bytes(size)), at(two))
    assert [len(two.receive(two.fds[0])) for _ in range(4)] == [A_CALL, A_CALL, 4, 0]


def test_an_empty_datagram_is_dropped_and_counted(pair):
    one, two = pair
    one.send_raw(b"", at(two))
    assert two.receive(two.fds[0]) == []
    assert two.dropped == {"empty": 1}


@pytest.mark.parametrize("host", LOOPBACKS)
def test_a_ttl_of_its_own(host):
    sockets = UdpSockets.open()
    six = ":" in host
    with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.bind((host, 0))
        here.settimeout(5)
        level, option = (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT) if six else (socket.IPPROTO_IP, 12)
        here.setsockopt(level, option, 1)
        there = Endpoint(ip_address(host), here.getsockname()[1])
        for ttl in (7, 255, None):
            sockets.send_raw(b"x", there, ttl)
            _, ancillary, _, _ = here.recvmsg(10, 100)
            assert int.from_bytes(ancillary[0][2], "little") == (ttl or 64)
    sockets.close()


@in_namespace
def test_unreachable_places_are_counted_not_raised():
    one = UdpSockets.open()
    # A port nobody has, a broadcast address, a link-local one without its link, class E, and no address at all.
    for text in ("127.0.0.1:1", "255.255.255.255:5", "[fe80::1%none]:5", "240.0.0.1:5", "[::]:1"):
        for _ in range(3):
            one.send(burst_of(3, 100), Endpoint.from_text(text))
    one.send(Burst.of(bytes(65536)), at(one))
    assert one.dropped["EMSGSIZE"] == 1
    assert one.dropped["no such zone"] == 3
    assert one.dropped.total() >= 10
    one.close()


def test_closed_sockets_send_and_receive_nothing(pair):
    one, two = pair
    fds = one.fds
    one.close()
    one.close()
    one.send(Burst.of(b"x"), at(two))
    assert one.receive(fds[0]) == []
    assert one.fds == ()
    assert one.dropped == {"closed": 1}


def test_a_taken_port_names_who_has_it():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        owner = f"\\(pid {os.getpid()}\\)"
        with pytest.raises(LocalError, match=f"^UDP port {port} is in use by .* {owner}: stop it, or choose another"):
            UdpSockets.open(port)
        sockets = UdpSockets.open()
        kept = sockets.port
        with pytest.raises(LocalError, match="is in use: stop it"):
            sockets.rebind(port)
        assert sockets.port == kept
        sockets.send(Burst.of(b"still here"), at(sockets))
        assert flat(arrivals(sockets, 1)) == [b"still here"]
        sockets.close()
    assert port_owner(port) is None


@pytest.mark.rule("E5")
def test_rebind(pair):
    one, two = pair
    one.rebind(one.port)
    one.send(Burst.of(b"same"), at(two))
    assert [source for _, source in arrivals(two, 1)] == [at(one)]
    before = one.port
    one.rebind(0)
    assert one.port != before
    one.send(Burst.of(b"new"), at(two))
    assert [source for _, source in arrivals(two, 1)] == [at(one)]


@pytest.mark.rule("E5")
def test_who_is_written_to_again_hears_from_the_new_port(pair):
    one, two = pair
    there = at(two)
    for _ in range(2):
        for _ in range(3):
            one.send(Burst.of(b"x"), there)
            assert [source for _, source in arrivals(two, 1)] == [at(one)]
        one.rebind(0)
    for _ in range(2):
        one.send(Burst.of(b"x"), there)
    assert len(arrivals(two, 2)) == 2
    one.unbind()
    one.send(Burst.of(b"x"), there)
    assert one.dropped == {"closed": 1}


def test_many_sources_stay_right_with_a_full_cache(pair):
    one, two = pair
    two._endpoints.update({number.to_bytes(16, "big"): at(two) for number in range(1024)})
    one._names.update({Endpoint(ip_address("192.0.2.1"), number): b"" for number in range(1, 1025)})
    one.send(Burst.of(b"x"), at(two))
    assert arrivals(two, 1)[0][1] == at(one)
    assert len(two._endpoints) == len(one._names) == 1


@pytest.mark.rule("D14", "S7")
@in_namespace
def test_rows_above_the_path_mtu_are_sent_plain():
    ip("link", "set", "lo", "mtu", "1280")
    one, two = UdpSockets.open(), UdpSockets.open()
    for host in ("127.0.0.1", "::1"):
        burst = burst_of(45, 1452, 100)
        for _ in range(2):
            one.send(burst, at(two, host))
            assert flat(arrivals(two, 45)) == [bytes(row) for row in burst.rows()]
        assert at(two, host) in one._plain_only
    assert not one.dropped
    ip("addr", "add", "192.0.2.1/32", "dev", "lo")  # we are elsewhere now, as far as can be told
    one.routes_changed()
    assert not one._plain_only
    one.send(burst, at(two))
    assert at(two) in one._plain_only
    one.rebind(0)
    assert not one._plain_only
    one.close()
    two.close()


@pytest.mark.rule("E2")
@in_namespace
def test_ipv4_alone_where_ipv6_is_off():
    for scope in ("all", "lo"):
        with open(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6", "w") as setting:
            setting.write("1")
    one, two = UdpSockets.open(), UdpSockets.open(51820)
    one.send(Burst.of(b"x"), at(two))
    one.send(Burst.of(b"x"), at(two, "::1"))
    assert flat(arrivals(two, 1)) == [b"x"]
    assert one.dropped.total() == 1
    one.close()
    two.close()


@in_namespace
def test_link_local_endpoints_keep_their_zone():
    one, two = UdpSockets.open(), UdpSockets.open()
    for _ in range(2):  # the second time the interface of that name is another
        ip("link", "add", "left", "type", "veth", "peer", "name", "right")
        for name, address in (("left", "fe80::a"), ("right", "fe80::b")):
            ip("addr", "add", f"{address}/64", "dev", name, "nodad")
            ip("link", "set", name, "up")
        for sockets in (one, two):
            sockets.routes_changed()
        one.send(Burst.of(b"x"), Endpoint(ip_address("fe80::a%left"), two.port))
        ((_, source),) = arrivals(two, 1)
        assert source == Endpoint(ip_address("fe80::a%left"), one.port)
        two.send(Burst.of(b"back"), source)
        assert flat(arrivals(one, 1)) == [b"back"]
        ip("link", "del", "left")
    one.close()
    two.close()


@pytest.mark.rule("E4")
@in_namespace
def test_marks():
    ip("route", "add", "local", "198.51.100.0/24", "dev", "lo", "table", "7")
    ip("rule", "add", "fwmark", "0xffffffff", "table", "7")
    one, two = UdpSockets.open(), UdpSockets.open()
    marked_only = at(two, "198.51.100.1")
    one.send(Burst.of(b"lost"), marked_only)
    assert one.dropped == {"ENETUNREACH": 1}
    one.set_fwmark(0xFFFFFFFF)
    one.rebind(0)
    one.send(Burst.of(b"x"), marked_only)
    assert flat(arrivals(two, 1)) == [b"x"]
    assert one.fwmark == 0xFFFFFFFF
    os.setuid(65534)
    one.set_fwmark(0xFFFFFFFF)
    with pytest.raises(LocalError, match="FwMark needs root"):
        one.set_fwmark(1)
    port = one.port
    with pytest.raises(LocalError, match=f"UDP port {port} is closed, for its datagrams cannot be marked"):
        one.rebind(port)
    assert (one.fds, one.port, one.fwmark) == ((), port, 0xFFFFFFFF)
    one.send(Burst.of(b"unmarked"), at(two))
    assert not select.select(two.fds, [], [], 0)[0]
    one.close()
    two.close()


@in_namespace
def test_without_buffers_a_datagram_is_dropped_and_the_next_one_goes():
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    for link in ("v0", "v1"):
        ip("link", "set", link, "up")
    ip("addr", "add", "192.0.2.1/24", "dev", "v0")
    ip("neigh", "add", "192.0.2.2", "lladdr", "02:00:00:00:00:02", "dev", "v0")
    udp = UdpSockets.open()
    for fd in udp.fds:
        with socket.socket(fileno=os.dup(fd)) as same:
            if same.family == socket.AF_INET:
                same.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR: told of what the queue drops
    full = ["tc", "qdisc", "add", "dev", "v0", "root", "pfifo", "limit", "0"]
    subprocess.run(full, check=True)
    there = Endpoint.from_text("192.0.2.2:9")
    for size in (100, 3 * 100):  # alone, and in segments
        udp.send(Burst(bytes(size), 100), there)
    assert udp.dropped == {"ENOBUFS": 2}
    subprocess.run(["tc", "qdisc", "del", "dev", "v0", "root"], check=True)
    udp.send(Burst(bytes(100), 100), there)
    assert udp.dropped == {"ENOBUFS": 2}
    udp.close()

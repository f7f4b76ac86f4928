"""The process that serves the zone, as the registry starts it."""

import asyncio
import logging
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import dns.asyncquery
import dns.message
import pytest

from tests.dnssd.goldenzone import ALICE, BOB, golden_zone, load, peer
from wgdisco.dnssd.feed import Audience, Setup
from wgdisco.dnssd.io import process as process_module
from wgdisco.dnssd.io.process import NICE, ZoneProcess
from wgdisco.dnssd.responder import Profile
from wgdisco.dnssd.roster import Roster, ZoneMember
from wgdisco.dnssd.tally import Kind
from wgdisco.dnssd.zone import Zone
from wgdisco.keys import PublicKey
from wgdisco.machine import has_capability

ROOT = Path(__file__).parents[3]
CAP_SYS_NICE = 23
LOOPBACK = ip_address("127.0.0.1")
SERVICE = "_wireguard._udp.example.com."


def inst(key):
    return f"{key.to_label()}.{SERVICE}"


@asynccontextmanager
async def serving(zone, *audiences, profile=Profile.STRICT, published=()):
    server = ZoneProcess(zone, Setup("example.com.", profile, (), zone.own, frozenset(published)))
    for number, audience in enumerate(audiences or (Audience.ALL,), start=1):
        server.bind(ip_address(f"127.0.0.{number}"), 0, audience)
    task = asyncio.create_task(server.run())
    try:
        await server.started()
        yield server
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        server.close()


async def ask(server, name, rdtype="SRV", listener=0, tcp=False, source=None, patience=10):
    endpoint = server.endpoints[listener]
    query = dns.message.make_query(name, rdtype)
    send = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    return await send(query, str(endpoint.address), port=endpoint.port, timeout=patience, source=source)


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  another process decides
            await asyncio.sleep(0.01)


def end_and_wait(pid):
    """The registry does not hear of it before we return."""
    os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):  # asyncio's watcher has seen its end already
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def runs(pid):
    return Path(f"/proc/{pid}").exists()


def test_answers_and_follows_by_udp_and_tcp():
    async def main():
        zone = golden_zone()
        async with serving(zone) as server:
            for tcp in (False, True):
                assert (await ask(server, inst(ALICE), tcp=tcp)).answer[0][0].port == 7777
            moved = zone.following(9, [peer(ALICE, "192.0.2.7:7")], [BOB])
            server.follow(moved, [ALICE, BOB])

            async def has_moved():
                return (await ask(server, inst(ALICE))).answer[0][0].port == 7

            await until(has_moved)
            assert (await ask(server, inst(BOB))).rcode() == 3
            assert (await ask(server, "example.com.", "SOA")).answer[0][0].serial == 9

    asyncio.run(main())


def test_it_has_no_privileges_no_keys_and_little_in_its_environment(monkeypatch):
    monkeypatch.setenv("WGDISCO_SECRET", "a secret")

    async def main():
        async with serving(golden_zone()) as server:
            proc = Path(f"/proc/{server.pid}")
            status = dict(line.split(":\t", 1) for line in (proc / "status").read_text().splitlines() if ":\t" in line)
            assert all(int(status[f"Cap{kind}"], 16) == 0 for kind in ("Inh", "Prm", "Eff", "Amb"))
            assert status["NoNewPrivs"] == "1"
            if os.geteuid() == 0:
                assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
                assert status["Groups"].split() == []
                assert b"WGDISCO_SECRET" not in (proc / "environ").read_bytes()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("audience", "more"),
    [(Audience.MEMBERS, NICE), (Audience.ALL, NICE), (Audience.STRANGERS, 0), (Audience.ALL_STRANGERS, 0)],
)
@pytest.mark.skipif(
    not has_capability(CAP_SYS_NICE), reason="needs CAP_SYS_NICE, as a registry that root starts has it"
)
def test_it_goes_before_others_where_no_strangers_ask(audience, more):
    async def main():
        async with serving(golden_zone(), Audience.ALL, audience) as server:
            priority = os.getpriority(os.PRIO_PROCESS, server.pid)
            assert priority == os.getpriority(os.PRIO_PROCESS, 0) + more

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives capabilities away")
def test_a_unit_of_another_user_gives_it_none_of_its_capabilities():
    ours, theirs = socket.socketpair()
    user = ["--reuid", "65534", "--regid", "65534", "--clear-groups"]
    command = ["setpriv", *user, "--inh-caps", "+net_admin", "--ambient-caps", "+net_admin"]
    serve = [sys.executable, "-P", "-m", "wgdisco.dnssd.io.zone_server", str(theirs.fileno()), str(NICE)]
    with ours, theirs:
        process = subprocess.Popen(
            [*command, *serve], env={"PYTHONPATH": str(ROOT)}, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL
        )
        theirs.close()
        deadline = time.monotonic() + 20
        while "NoNewPrivs:\t1" not in (status := Path(f"/proc/{process.pid}/status").read_text()):
            assert process.poll() is None, "nobody may not read this checkout"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "CapPrm:\t0000000000000000" in status
        assert "CapAmb:\t0000000000000000" in status
        # without LimitNICE= it may not go before others, and serves all the same
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    assert process.wait(10) == 0


def test_it_is_started_again_when_it_dies_and_nothing_asked_meanwhile_is_lost(monkeypatch):
    monkeypatch.setattr(process_module, "RESTART_INTERVAL", 0.1)

    async def main():
        zone = golden_zone()
        async with serving(zone) as server:
            first = server.pid
            # it is not there any more when it is asked: what it had read already would be lost, as with any server
            end_and_wait(first)
            server.follow(zone.following(9, [peer(ALICE, "192.0.2.7:7")]), [ALICE])
            for tcp in (False, True):
                assert (await ask(server, inst(ALICE), tcp=tcp, patience=60)).answer[0][0].port == 7
            assert server.pid != first
            assert server.restarts == 1

    asyncio.run(main())


@pytest.mark.parametrize(
    "said", ["garbage", "[1]", '{"counts":{"x":"y"}}', '{"counts":{"x":Infinity}}', "[" * 60_000], ids=range(5)
)
def test_what_it_cannot_say_ends_it_and_not_the_registry(said, tmp_path, monkeypatch):
    monkeypatch.setattr(process_module, "RESTART_INTERVAL", 0.1)
    first = tmp_path / "first"
    first.touch()
    rogue = tmp_path / "python"
    rogue.write_text(
        f"#!/bin/bash\n[ -e {first} ] || exec {sys.executable} \"$@\"\nrm {first}\necho '{said}' >&$4\nexec sleep 60\n"
    )
    rogue.chmod(0o755)

    async def main():
        monkeypatch.setattr(sys, "executable", str(rogue))
        async with serving(golden_zone()) as server:
            assert not first.exists()
            assert (await ask(server, inst(ALICE))).answer

    asyncio.run(main())


def test_it_ends_with_the_registry():
    async def main():
        async with serving(golden_zone()) as server:
            pid = server.pid
            assert runs(pid)
        assert not runs(pid)

    asyncio.run(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_of_a_session_leaves_its_end_to_the_registry(number):
    async def main():
        async with serving(golden_zone()) as server:
            pid = server.pid
            os.kill(pid, number)
            assert (await ask(server, inst(ALICE))).answer
            assert server.pid == pid

    asyncio.run(main())


def test_each_audience_sees_what_it_may():
    members = [
        ZoneMember("alice", (ip_address("127.0.0.11"),), ("red",)),
        ZoneMember("bob", (ip_address("127.0.0.12"),), ("red", "blue")),
        ZoneMember("carol", (ip_address("127.0.0.13"),), ("blue",)),
    ]
    zone = golden_zone()
    named = [replace(zone.instances[ALICE], name="alice"), replace(zone.instances[BOB], name="bob")]
    roster = Roster.create(members, (ip_address("127.0.0.1"),))
    zone = replace(zone.following(8, named, (), roster), own=None)

    async def main():
        audiences = (Audience.MEMBERS, Audience.STRANGERS, Audience.ALL_STRANGERS)
        async with serving(zone, *audiences, published={"bob"}) as server:

            async def known(**how):
                return [(await ask(server, inst(key), **how)).rcode() == 0 for key in (ALICE, BOB)]

            assert await known(source="127.0.0.11") == [True, True]
            assert await known(source="127.0.0.12") == [True, True]
            assert await known(source="127.0.0.13") == [False, True]
            assert await known(source="127.0.0.14") == [False, False]
            assert await known(source="127.0.0.1") == [True, True]
            assert await known(listener=1) == [False, True]
            assert await known(listener=2) == [True, True]
            address = (await ask(server, "alice.example.com.", "A", source="127.0.0.12")).answer[0][0].address
            assert address == "127.0.0.11"
            assert (await ask(server, "alice.example.com.", "A", source="127.0.0.13")).rcode() == 3
            assert (await ask(server, SERVICE, "PTR", listener=1)).answer == []
            assert b"".join((await ask(server, inst(BOB), "TXT", listener=1)).answer[0][0].strings).endswith(
                b"allowed="
            )

    asyncio.run(main())


def test_what_gets_no_reply_is_counted_by_reason():
    async def main():
        async with serving(golden_zone()) as server:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=(str(LOOPBACK), server.endpoints[0].port)
            )
            transport.sendto(b"short")
            transport.sendto(bytes((0, 0, 0x80)) + bytes(20))

            async def are_counted():
                return server.tally()[Kind.DROPS] == {"short": 1, "response": 1}

            await until(are_counted)
            transport.close()

    asyncio.run(main())


def test_what_the_kernel_had_no_room_for_is_counted_too():
    async def main():
        async with serving(golden_zone()) as server:
            os.kill(server.pid, signal.SIGSTOP)
            try:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                    for _ in range(5000):
                        asker.sendto(bytes(1200), (str(LOOPBACK), server.endpoints[0].port))
            finally:
                os.kill(server.pid, signal.SIGCONT)
            full = server.tally()[Kind.DROPS]["queue full"]
            assert 1000 < full < 5000

            async def are_counted():
                tally = server.tally()
                return tally[Kind.ANSWERS]["formerr"] + tally[Kind.DROPS]["queue full"] == 5000

            await until(are_counted)

    asyncio.run(main())


def test_what_it_counted_is_kept_when_it_is_started_again(monkeypatch):
    monkeypatch.setattr(process_module, "RESTART_INTERVAL", 0.1)

    async def main():
        async with serving(golden_zone()) as server:
            for many in (1, 2):
                await ask(server, inst(ALICE))
                await ask(server, "nobody.example.com.", "A", tcp=True)

                async def are_counted(many=many):
                    tally = server.tally()
                    return tally[Kind.ANSWERS] == {"answered": many, "nxdomain": many} and (
                        tally[Kind.CONNECTIONS] == {"opened": many}
                    )

                await until(are_counted, 30)
                end_and_wait(server.pid)

    asyncio.run(main())


def test_one_that_hangs_is_started_again_and_told_of_in_a_line(monkeypatch, caplog):
    monkeypatch.setattr(process_module, "RESTART_INTERVAL", 0.1)
    monkeypatch.setattr(process_module, "SILENT_MAX", 3)

    async def main():
        async with serving(golden_zone()) as server:
            first = server.pid
            os.kill(first, signal.SIGSTOP)
            assert (await ask(server, inst(ALICE), patience=60)).answer
            assert server.pid != first
            assert not runs(first)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert [one.getMessage() for one in caplog.records] == [
        "the zone's server said nothing for 3 s; it is started again"
    ]


def test_in_the_exact_profile_every_captured_reply_of_wgsd_comes_from_it():
    async def main():
        async with serving(golden_zone(), profile=Profile.WGSD_EXACT) as server:
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
                asker.setblocking(False)
                asker.connect((str(LOOPBACK), server.endpoints[0].port))
                for vector in load():
                    await loop.sock_sendall(asker, vector.query())
                    async with asyncio.timeout(5):
                        assert (await loop.sock_recv(asker, 4096)).hex() == vector.reply.hex()

    asyncio.run(main())


def resident(pid):
    """The most memory that it had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


@pytest.mark.parametrize(
    ("peers", "connections", "seconds", "most"),
    [(1000, 300, 3, 85), pytest.param(10_000, 900, 20, 150, marks=pytest.mark.soak)],
)
def test_who_asks_for_lists_and_does_not_read_takes_bounded_memory(peers, connections, seconds, most):
    chance = random.Random(5)
    keys = [PublicKey(chance.randbytes(32)) for _ in range(peers)]
    zone = Zone.create("example.com.", 1, [peer(key, "192.0.2.7:7") for key in keys])
    query = dns.message.make_query(SERVICE, "PTR").to_wire()
    question = len(query).to_bytes(2, "big") + query

    def greedy(port):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.connect((str(LOOPBACK), port))
        one.setblocking(False)
        return one

    async def main():
        async with serving(zone) as server:
            port = server.endpoints[0].port
            asking = [greedy(port) for _ in range(connections)]
            end = time.monotonic() + seconds

            def are_counted():
                return server.tally()[Kind.CONNECTIONS]["ended: too much unread"] > connections

            while time.monotonic() < end or not are_counted():
                assert time.monotonic() < end + 60
                for number, one in enumerate(asking):
                    try:
                        # some have much to ask, and some little
                        one.send(question * (2000 if number % 2 else 3))
                    except BlockingIOError:
                        pass
                    except OSError:
                        one.close()
                        asking[number] = greedy(port)
                await asyncio.sleep(0.1)
            assert (await ask(server, inst(keys[0]), tcp=True)).answer
            assert resident(server.pid) < most
            for one in asking:
                one.close()

    asyncio.run(main())


@pytest.mark.parametrize("many", [2_000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_thousands_of_idle_connections_keep_nobody_out(many):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < many + 200:
        pytest.skip(f"no more than {hard} descriptors allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, many + 200), hard))

    async def main():
        async with serving(golden_zone()) as server:
            idle = []
            try:
                for number in range(many):
                    idle.append(socket.create_connection(("127.0.0.1", server.endpoints[0].port), 5))
                    if number % 1000 == 0:
                        assert (await ask(server, inst(ALICE))).answer
                for tcp in (False, True):
                    assert (await ask(server, inst(ALICE), tcp=tcp)).answer[0][0].port == 7777
                assert len(os.listdir(f"/proc/{server.pid}/fd")) < 1100
                assert resident(server.pid) < 80
            finally:
                for one in idle:
                    one.close()

    try:
        asyncio.run(main())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_it_complains_of_is_in_our_log_a_line_each_and_not_too_many(tmp_path, monkeypatch, caplog, capfd):
    monkeypatch.setattr(process_module, "RESTART_INTERVAL", 0.1)
    first = tmp_path / "first"
    first.touch()
    rogue = tmp_path / "python"
    rogue.write_text(
        f'#!/bin/bash\n[ -e {first} ] || exec {sys.executable} "$@"\nrm {first}\n'
        "echo oh >&2; head -c 200000 /dev/zero | tr '\\0' x >&2; echo >&2; yes no | head -n 1000 >&2\n"
    )
    rogue.chmod(0o755)

    async def main():
        monkeypatch.setattr(sys, "executable", str(rogue))
        async with serving(golden_zone()) as server:
            assert (await ask(server, inst(ALICE))).answer

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    said = [one.getMessage() for one in caplog.records]
    assert said[0] == "the zone's server: oh"
    assert said[-1] == "the zone's server ended; it is started again"
    assert len(said) == process_module.COMPLAINTS_MAX + 1
    assert max(map(len, said)) < 600
    assert capfd.readouterr().err == ""

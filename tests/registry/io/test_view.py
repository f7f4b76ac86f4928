"""What a registry shows of its network, and the page that shows it, over real sockets on loopback."""

import asyncio
import itertools
import json
import socket
from contextlib import suppress
from dataclasses import replace

import aiohttp
import pytest

from tests.registry.io.api_registry import ALICE, BOB, EVE, REGISTRY, key, member, run
from wgdisco.endpoint import Endpoint
from wgdisco.registry.facts import Put, Remove, Role
from wgdisco.registry.io import view
from wgdisco.registry.io.page import FILES, TYPES
from wgdisco.tunnel.events import DeviceStatus, PeerHandshake, PeerStatus

ADMIN = member(9, "admin", role=Role.ADMIN)
BOSS, A, B = "127.9.8.9", "127.9.8.2", "127.9.8.3"
PATH = {"peer": BOB.public_key.to_text(), "path": "relay", "reason": "no UDP answer", "rtt_ms": 3.25, "rx_bytes": 5}


async def tell(registry, source, *paths, status=200):
    got, body = await registry.ask(source, "PUT", "/v1/self/paths", json={"paths": paths})
    assert got == status, body
    return body


def row(shown, name):
    return next(member for member in shown["members"] if member["name"] == name)


def device(registry, **rx):
    """What a device would tell of these members."""
    peers = [
        PeerStatus(one.public_key, None, (), False, 0, 5.0, 1_700_000_000.5, 5.0, None, rx[one.name], 7)
        for one in registry.membership.members.values()
        if one.name in rx
    ]
    return DeviceStatus(None, 51820, 0, tuple(peers), {})


async def shown_to(registry, source):
    status, body = await registry.ask(source, "GET", "/v1/view")
    assert status == 200
    return body


async def event(response, seconds=5):
    """The next one, or comment: its name and data."""
    found = {}
    async with asyncio.timeout(seconds):
        while line := (await response.content.readline()).decode().rstrip("\n"):
            field, _, value = line.partition(": ")
            found[field] = value
    return (found["event"], json.loads(found["data"])) if "event" in found else (found[""], None)


async def ended(response):
    """Until the stream is cut."""
    async with asyncio.timeout(5):
        with suppress(aiohttp.ClientError, ConnectionError):
            while await response.content.readany():
                pass


def test_an_admin_sees_everybody_and_what_they_report(tmp_path):
    async def scenario(registry):
        registry.view.status = lambda: device(registry, alice=100, bob=0)
        registry.directory.observe_event(PeerHandshake(key(2), Endpoint.from_text("198.51.100.7:4000"), 5.0))
        await tell(registry, A, PATH)
        shown = await shown_to(registry, BOSS)
        assert (shown["schema"], shown["serial"]) == (1, 1000)
        assert shown["self"] == {"public_key": key(9).to_text(), "name": "admin", "role": "admin"}
        assert shown["network"]["name"] == "mesh"
        assert [one["name"] for one in shown["members"]] == ["alice", "bob", "eve", "admin"]
        alice = row(shown, "alice")
        assert alice["online"]
        assert alice["endpoint"] == "198.51.100.7:4000"
        assert (alice["rx_bytes"], alice["tx_bytes"], alice["handshake_at"]) == (100, 7, 1_700_000_000)
        assert alice["paths"] == [{"endpoint": None, "handshake_at": None, "tx_bytes": 0, **PATH}]
        assert alice["paths_at"] is not None
        assert alice["history"] == {"interval": 10, "rx": [], "tx": []}
        assert not row(shown, "bob")["online"]

    run(tmp_path, scenario, ADMIN)


def test_a_member_sees_its_groups_and_no_paths_but_its_own(tmp_path):
    async def scenario(registry):
        registry.view.status = lambda: device(registry, alice=100, bob=50)
        registry.view.rest = lambda _status: {"drops": {"mac1": 3}, "relay": {"bytes": 1}}
        await tell(registry, A, PATH)
        await tell(registry, B, {"peer": ALICE.public_key.to_text(), "path": "direct"})
        shown = await shown_to(registry, A)
        assert [one["name"] for one in shown["members"]] == ["alice", "bob", "admin"]
        assert row(shown, "alice")["rx_bytes"] == 100
        assert len(row(shown, "alice")["paths"]) == 1
        bob = row(shown, "bob")
        assert (bob["paths"], bob["rx_bytes"], bob["seen_at"]) == ([], 0, None)
        assert bob["groups"] == ["all"]
        assert row(await shown_to(registry, B), "bob")["groups"] == ["all", "dev"]
        assert (shown["invitations"], shown["drops"], shown["relay"], shown["serial"]) == ([], {}, {}, None)
        assert (await shown_to(registry, BOSS))["drops"] == {"mac1": 3}

    run(tmp_path, scenario, ADMIN)


def test_paths_are_taken_only_of_peers_that_may_be_known_and_go_with_them(tmp_path):
    async def scenario(registry):
        stranger = {"peer": key(77).to_text(), "path": "direct"}
        hidden = {"peer": EVE.public_key.to_text(), "path": "direct"}
        assert (await tell(registry, A, PATH, stranger, hidden))["paths"] == 1
        await registry.put(Remove(BOB))
        assert row(await shown_to(registry, BOSS), "alice")["paths"] == []

    run(tmp_path, scenario, ADMIN)


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "sideways"},
        {"reason": "because"},
        {"peer": "x"},
        {"peer": None},
        {"endpoint": "somewhere"},
        {"endpoint": 7},
        {"rtt_ms": -1},
        {"rtt_ms": "1"},
        {"rtt_ms": True},
        {"rx_bytes": -1},
        {"tx_bytes": 1 << 63},
        {"handshake_at": 1.5},
        {"handshake_at": 253_402_300_800},
        {"rtt_ms": float("nan")},
    ],
)
def test_a_path_that_cannot_be_is_refused(tmp_path, wrong):
    async def scenario(registry):
        assert next(iter(wrong)) in (await tell(registry, A, {**PATH, **wrong}, status=400))["error"]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("zone", "shown"),
    [("%eth0", "%eth0"), ("%wg-mesh.7", "%wg-mesh.7"), ("%<b>", ""), ("%\x00\n\x1b[2J", ""), ("%" + 200 * "x", "")],
)
def test_no_text_of_a_member_s_own_is_shown_in_the_place_of_a_zone(tmp_path, zone, shown):
    async def scenario(registry):
        await tell(registry, A, {**PATH, "endpoint": f"[fe80::7{zone}]:4000"})
        (path,) = row(await shown_to(registry, BOSS), "alice")["paths"]
        assert path["endpoint"] == f"[fe80::7{shown}]:4000"

    run(tmp_path, scenario, ADMIN)


def test_reports_are_bounded_in_size_and_pace(tmp_path):
    async def scenario(registry):
        await tell(registry, A, *[PATH] * 1024)
        await tell(registry, A, *[PATH] * 1025, status=400)
        for _ in range(3):
            await tell(registry, A)
        await tell(registry, A, status=429)
        await tell(registry, B)

    run(tmp_path, scenario)


def test_the_stream_tells_whole_rows_that_changed(tmp_path):
    async def scenario(registry):
        async with registry.request(BOSS, "GET", "/v1/view/events") as response:
            name, shown = await event(response)
            assert (name, len(shown["members"])) == ("view", 4)
            await tell(registry, A, PATH)
            name, change = await event(response)
            assert name == "change"
            assert [one["name"] for one in change["members"]] == ["alice"]
            assert change["members"][0]["paths"][0]["path"] == "relay"
            await registry.put(Remove(EVE))
            _, change = await event(response)
            assert (change["members"], change["removed"]) == ([], [EVE.public_key.to_text()])
            assert "invitations" not in change

    run(tmp_path, scenario, ADMIN)


def test_the_stream_says_nothing_of_groups_that_its_member_is_not_in(tmp_path, monkeypatch):
    async def scenario(registry):
        monkeypatch.setattr(view, "CHANGE_INTERVAL", 0.05)
        async with registry.request(A, "GET", "/v1/view/events") as response:
            await event(response)
            await registry.put(Put(replace(BOB, groups=("all", "ops"))))
            await registry.put(Put(replace(BOB, groups=("all", "ops"), name="robert")))
            _, change = await event(response)
            assert [(one["name"], one["groups"]) for one in change["members"]] == [("robert", ["all"])]

    run(tmp_path, scenario, ADMIN)


def test_paths_are_told_again_only_when_they_are_others(tmp_path):
    async def scenario(registry):
        registry.view.status = lambda: device(registry, alice=100)
        await tell(registry, A, PATH)
        async with registry.request(BOSS, "GET", "/v1/view/events") as response:
            assert row((await event(response))[1], "alice")["paths"]
            registry.view.status = lambda: device(registry, alice=200)
            alice = row((await event(response))[1], "alice")
            assert alice["rx_bytes"] == 200
            assert "paths" not in alice
            await tell(registry, A, {**PATH, "path": "direct"})
            assert row((await event(response))[1], "alice")["paths"][0]["path"] == "direct"
            assert row(await shown_to(registry, BOSS), "alice")["paths"][0]["path"] == "direct"

    run(tmp_path, scenario, ADMIN)


def test_a_stream_that_has_nothing_to_tell_says_so(tmp_path, monkeypatch):
    async def scenario(registry):
        monkeypatch.setattr(view, "COMMENT_INTERVAL", 0.5)
        async with registry.request(A, "GET", "/v1/view/events") as response:
            assert (await event(response))[0] == "view"
            assert await event(response) == ("still here", None)

    run(tmp_path, scenario)


def test_a_stream_ends_with_the_membership_or_the_role(tmp_path):
    async def scenario(registry):
        for source, change in ((BOSS, Put(member(9, "admin"))), (A, Remove(ALICE))):
            async with registry.request(source, "GET", "/v1/view/events") as response:
                await event(response)
                await registry.put(change)
                await ended(response)

    run(tmp_path, scenario, ADMIN)


def test_a_stream_that_is_not_read_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(view, "CHANGE_INTERVAL", 0.01)
    monkeypatch.setattr(view, "WRITE_TIMEOUT", 0.3)

    async def scenario(registry):
        turns = itertools.count()
        registry.view.rest = lambda _status: {"drops": {f"{next(turns)}" + 300_000 * "x": 1}, "relay": {}}
        loop = asyncio.get_running_loop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.bind((BOSS, 0))
            sock.setblocking(False)
            await loop.sock_connect(sock, (REGISTRY, registry.port))
            await loop.sock_sendall(sock, f"GET /v1/view/events HTTP/1.1\r\nHost: {REGISTRY}\r\n\r\n".encode())
            await asyncio.sleep(1.5)
            async with asyncio.timeout(10):  # what was sent before, and then the end
                while await loop.sock_recv(sock, 1 << 20):
                    pass

    run(tmp_path, scenario, ADMIN)


def test_a_fifth_stream_ends_the_first(tmp_path):
    async def scenario(registry):
        streams = [registry.request(A, "GET", "/v1/view/events") for _ in range(view.STREAMS_MAX + 1)]
        responses = [await stream.__aenter__() for stream in streams]
        for response in responses[1:]:
            assert (await event(response))[0] == "view"
        await ended(responses[0])
        for stream in streams:
            await stream.__aexit__(None, None, None)

    run(tmp_path, scenario)


# The page


def test_members_get_the_page_and_its_files(tmp_path):
    async def scenario(registry):
        async with registry.request(A, "GET", "/") as response:
            page = await response.read()
            assert (response.status, page) == (200, (FILES / "index.html").read_bytes())
            assert response.content_type == "text/html"
            assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            tag = response.headers["ETag"]
        async with registry.request(A, "GET", "/page/index.html", headers={"If-None-Match": tag}) as response:
            assert response.status == 304
        for path in ("/page/nothing.js", "/page/", "/page/../io/page.py", "/page/%2e%2e/view.py", "/page//etc/passwd"):
            assert (await registry.ask(A, "GET", path))[0] == 404

    run(tmp_path, scenario)


def test_browsers_get_every_file_with_a_type_that_they_take():
    assert {path.suffix for path in FILES.rglob("*") if path.is_file()} <= set(TYPES)


def test_others_get_no_page_but_a_line(tmp_path):
    async def scenario(registry):
        for path in ("/", "/page/index.html"):
            status, body = await registry.ask("127.9.8.77", "GET", path)
            assert status == 403
            assert body.startswith(b"only members may ask")
        assert (await registry.ask(A, "GET", "/", headers={"Host": "evil.example"}))[0] == 421

    run(tmp_path, scenario)

"""The registry's API from the member's side, against a small server that keeps to the format, or does not."""

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from ipaddress import ip_address

import pytest
from aiohttp import web

from tests.peer.test_roster import BOB, OWN, record, snapshot
from wgdisco.api import EndpointChange, EnrolRequest, Removed, RotateRequest, SelfRecord
from wgdisco.errors import RemoteError
from wgdisco.peer import stream
from wgdisco.peer.io.registry_client import Heartbeat, RegistryClient, RegistryTime, StreamDown, StreamUp

LOOPBACK = ip_address("127.0.0.1")
_TCP_REPAIR = 19  # linux/tcp.h
ALICE = record("alice", OWN, 2)
SNAPSHOT = snapshot(record("bob", BOB, 3))


@asynccontextmanager
async def serving(method: str, path: str, answer: Callable, silence: float = 5.0) -> AsyncIterator[RegistryClient]:
    application = web.Application()
    application.router.add_route(method, path, answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, str(LOOPBACK), 0)
        await site.start()
        yield RegistryClient(LOOPBACK, None, runner.addresses[0][1], silence)
    finally:
        await runner.cleanup()


def frame(name: str, data: object, number: int = 1) -> bytes:
    return f"id: {number}\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


SNAPSHOT_FRAME = frame("snapshot", {"schema": 1, **asdict(SNAPSHOT)})


def streaming(*chunks: bytes, hold: bool = False, seen: list | None = None) -> Callable:
    async def answer(request: web.Request) -> web.StreamResponse:
        if seen is not None:
            seen.append(dict(request.headers))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if hold:
            await asyncio.Event().wait()
        return response

    return answer


async def heard(client: RegistryClient, until: Callable[[list], bool]) -> list:
    """Events up to the one that makes `until` true, heartbeats and clocks left out."""
    events: list = []
    async with asyncio.timeout(10):
        follower = client.follow()
        async for event in follower:
            if not isinstance(event, Heartbeat | RegistryTime):
                events.append(event)
            if until(events):
                await follower.aclose()
                break
    return events


def down(events: list) -> bool:
    return bool(events) and isinstance(events[-1], StreamDown)


def run(coroutine):
    return asyncio.run(coroutine)


def test_a_stream_in_any_pieces():
    change = {"public_key": str(BOB), "endpoint": "203.0.113.9:7", "live": True}
    text = (
        b": hello\n\n"
        + SNAPSHOT_FRAME
        + frame("endpoint", change, 2)
        + frame("novelty", {"unknown": "here"}, 3)
        + frame("removed", {"public_key": str(BOB), "name": "bob"}, 4)
        + frame("member", asdict(record("bob", BOB, 3)), 5)
    )

    async def scenario(pieces: list[bytes]) -> None:
        async with serving("GET", "/v1/events", streaming(*pieces)) as client:
            assert await heard(client, down) == [
                StreamUp(),
                SNAPSHOT,
                EndpointChange(str(BOB), "203.0.113.9:7", True),
                Removed(str(BOB), "bob"),
                record("bob", BOB, 3),
                StreamDown("the registry ended the stream"),
            ]

    run(scenario([text]))
    run(scenario([text[i : i + 7] for i in range(0, len(text), 7)]))


def test_the_registrys_clock_is_told():
    async def scenario() -> None:
        async with serving("GET", "/v1/events", streaming(SNAPSHOT_FRAME)) as client:
            follower = client.follow()
            events = [await anext(follower), await anext(follower)]
            await follower.aclose()
            assert events[0] == StreamUp()
            assert isinstance(events[1], RegistryTime)
            assert abs(events[1].unix - time.time()) < 10

    run(scenario())


def test_it_resumes_where_it_was():
    async def scenario() -> None:
        seen: list = []
        async with serving("GET", "/v1/events", streaming(SNAPSHOT_FRAME, seen=seen)) as client:
            await heard(client, lambda events: events.count(StreamUp()) == 2)
        assert "Last-Event-ID" not in seen[0]
        assert seen[1]["Last-Event-ID"] == "1"

    run(scenario())


def test_a_silent_stream_is_dead():
    async def scenario() -> None:
        async with serving("GET", "/v1/events", streaming(b": hi\n", hold=True), silence=0.2) as client:
            client.heartbeat = 0
            assert (await heard(client, down))[-1] == StreamDown("no answer in time")

    run(scenario())


def test_a_comment_tells_how_long_it_was_silent_unless_the_interval_changed():
    async def scenario() -> None:
        more = asyncio.Semaphore(1)

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            while await more.acquire():
                await response.write(b": still here\n\n")
            return response

        async with serving("GET", "/v1/events", answer) as client, asyncio.timeout(10):
            silences = []
            async for event in client.follow():
                if isinstance(event, Heartbeat):
                    silences.append(event.silence)
                    if len(silences) == 3:
                        client.heartbeat = 75
                    if len(silences) == 4:
                        break
                    if len(silences) > 1:
                        more.release()
        assert [silence > 0 for silence in silences] == [False, True, True, False]

    run(scenario())


def test_a_registry_that_is_not_there():
    async def scenario() -> None:
        client = RegistryClient(LOOPBACK, None, 1)
        (event,) = await heard(client, down)
        assert isinstance(event, StreamDown)

    run(scenario())


@pytest.mark.parametrize(
    "text",
    [
        frame("snapshot", {"schema": 1, **asdict(SNAPSHOT), "members": [{}]}),
        frame("snapshot", {"schema": 2, **asdict(SNAPSHOT)}),
        frame("snapshot", []),
        frame("snapshot", {"schema": 1, **asdict(SNAPSHOT), "members": [asdict(ALICE)] * 4097}),
        frame("member", {**asdict(ALICE), "addresses": ["10.9.8.2/24"]}),
        frame("member", {**asdict(ALICE), "addresses": []}),
        frame("member", {**asdict(ALICE), "name": "../alice"}),
        frame("member", {**asdict(ALICE), "name": 7}),
        frame("member", {**asdict(ALICE), "public_key": "x"}),
        frame("member", {**asdict(ALICE), "live": "yes"}),
        frame("member", {**asdict(ALICE), "kind": "god"}),
        frame("member", {**asdict(ALICE), "groups": "all"}),
        frame("endpoint", {"public_key": str(BOB), "endpoint": "203.0.113.9:99999", "live": True}),
        frame("endpoint", {"public_key": str(BOB), "endpoint": "host:1", "live": True}),
        frame("removed", {"public_key": str(BOB), "name": "a\x1b[2J"}),
        b"event: member\ndata: {\n\n",
        b"event: member\ndata: " + b"[" * 100_000 + b"\n\n",
        b"data: \xff\n\n",
    ],
)
def test_what_is_not_the_format_ends_the_stream(text):
    async def scenario() -> None:
        async with serving("GET", "/v1/events", streaming(SNAPSHOT_FRAME, text, hold=True)) as client:
            assert (await heard(client, down))[-1].why.startswith("the registry sent what cannot be used")

    run(scenario())


def test_after_what_cannot_be_used_a_snapshot_is_asked_for_again():
    async def scenario() -> None:
        seen: list = []
        chunks = (SNAPSHOT_FRAME, frame("member", {}, 2))
        async with serving("GET", "/v1/events", streaming(*chunks, hold=True, seen=seen)) as client:
            await heard(client, lambda events: events.count(StreamUp()) == 2)
        assert "Last-Event-ID" not in seen[1]

    run(scenario())


@pytest.mark.parametrize(
    "text", [b"x" * (5 << 20), b"data: " + b"x" * (3 << 20) + b"\ndata: " + b"x" * (2 << 20) + b"\n"]
)
def test_an_endless_event_is_cut(text):
    async def scenario() -> None:
        async with serving("GET", "/v1/events", streaming(text, hold=True)) as client:
            assert "too large" in (await heard(client, down))[-1].why

    run(scenario())


def test_an_event_cut_in_the_middle_is_no_event():
    async def scenario() -> None:
        async with serving("GET", "/v1/events", streaming(SNAPSHOT_FRAME[:-10])) as client:
            assert await heard(client, down) == [StreamUp(), StreamDown("the registry ended the stream")]

    run(scenario())


def replying(status: int, body: bytes, content_type: str = "application/json", told: list | None = None) -> Callable:
    async def answer(request: web.Request) -> web.Response:
        if told is not None:
            told.append(await request.json())
        return web.Response(status=status, body=body, headers={"Content-Type": content_type, "Location": "/elsewhere"})

    return answer


def test_a_page_instead_of_a_stream():
    async def scenario() -> None:
        async with serving("GET", "/v1/events", replying(200, b"<html>", "text/html")) as client:
            (event,) = await heard(client, down)
            assert "not a stream" in event.why

    run(scenario())


def test_a_refused_stream_gives_the_reason():
    async def scenario() -> None:
        async with serving("GET", "/v1/events", replying(403, b'{"error": "you are nobody"}')) as client:
            assert await heard(client, down) == [StreamDown("you are nobody")]

    run(scenario())


def test_enrolment():
    told: list = []
    granted = SelfRecord(SNAPSHOT.network, ALICE)

    async def scenario() -> SelfRecord:
        body = json.dumps({"schema": 1, **asdict(granted), "new": "field"}).encode()
        async with serving("POST", "/v1/enrol", replying(200, body, told=told)) as client:
            return await client.enrol(EnrolRequest(str(OWN), "alice"))

    assert run(scenario()) == granted
    assert told == [{"schema": 1, "public_key": str(OWN), "name": "alice"}]


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (409, b'{"error": "the invitation has expired"}', "the invitation has expired"),
        (409, b'{"error": "two\\nlines"}', "answers 409"),
        (409, b'{"error": 7}', "answers 409"),
        (500, b"<html>", "answers 500"),
        (500, b"x" * (1 << 20), "answers 500"),
        (302, b"", "answers 302"),
        (200, b"", "cannot be used"),
        (200, b"{}", "cannot be used"),
        (200, b"[" * 60_000, "cannot be used"),
        (200, b" " * (1 << 20), "cannot be used"),
        (200, json.dumps({"schema": 1, "member": asdict(ALICE), "network": {}}).encode(), "cannot be used"),
    ],
)
def test_an_enrolment_that_fails_says_why_in_one_line(status, body, why):
    async def scenario() -> None:
        async with serving("POST", "/v1/enrol", replying(status, body)) as client:
            await client.enrol(EnrolRequest(str(OWN), None))

    with pytest.raises(RemoteError, match=why) as raised:
        run(scenario())
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("prefix", ["0.0.0.0/0", "8.0.0.0/8", "10.0.0.0/8", "::/0", "fd00::/8", "192.0.2.0/24"])
def test_a_network_that_would_swallow_others_is_refused(prefix):
    network = asdict(SNAPSHOT.network) | {"prefixes": ["10.9.8.0/24", "fd00:9::/64", prefix]}
    body = json.dumps({"schema": 1, "member": asdict(ALICE), "network": network}).encode()

    async def scenario() -> None:
        async with serving("POST", "/v1/enrol", replying(200, body)) as client:
            await client.enrol(EnrolRequest(str(OWN), None))

    with pytest.raises(RemoteError, match="private one of reasonable size"):
        run(scenario())


def test_announcing_the_next_key():
    told: list = []

    async def scenario() -> None:
        async with serving("POST", "/v1/self/rotate", replying(202, b"", told=told)) as client:
            await client.announce_key(RotateRequest(str(BOB), "00ff"))

    run(scenario())
    assert told == [{"schema": 1, "next_key": str(BOB), "proof": "00ff"}]


def test_the_parser_counts_an_event_and_not_the_stream():
    parser = stream.EventParser()
    for _ in range(10):
        assert len(parser.feed(b"data: " + b"x" * (1 << 20) + b"\n\n")) == 1
    assert parser.feed(b": c\n" * 100) == []


def test_begun_anew_it_asks_for_a_snapshot_and_tells_nothing_more_of_before():
    async def scenario() -> None:
        seen: list = []
        more = SNAPSHOT_FRAME + frame("removed", {"public_key": str(BOB), "name": "bob"}, 2)
        async with serving("GET", "/v1/events", streaming(more, hold=True, seen=seen)) as client:
            events: list = []
            async with asyncio.timeout(10), contextlib.aclosing(client.follow()) as follower:
                async for event in follower:
                    if not isinstance(event, Heartbeat | RegistryTime):
                        events.append(event)
                    if event == SNAPSHOT and events.count(SNAPSHOT) == 1:
                        client.begin_anew()
                    if events.count(SNAPSHOT) == 2:
                        break
        assert [type(event) for event in events[2:4]] == [StreamDown, StreamUp]
        assert "Last-Event-ID" not in seen[1]

    run(scenario())


needs_repair = pytest.mark.skipif(
    os.geteuid() != 0, reason="TCP_REPAIR, by which a connection goes without a word, needs root"
)


def vanish(transport):
    """As of a process that was killed, behind an interface that went with it."""
    transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    transport.abort()


@needs_repair
def test_a_registry_that_has_forgotten_one_connection_has_forgotten_the_stream():
    """Killed and back within a moment: it had just told something, and nobody resets what is only listened to."""
    taken, follows = [], asyncio.Event()

    async def answer(request):
        taken.append(request.transport)
        follows.set()
        if request.method == "POST":
            return web.json_response({"schema": 1}, status=202)
        return await streaming(SNAPSHOT_FRAME, hold=True)(request)

    async def scenario():
        async with serving("*", "/v1/{path}", answer) as client:
            following = asyncio.ensure_future(heard(client, down))
            await follows.wait()
            assert await client.punch(BOB)
            for transport in taken:
                vanish(transport)
            client.shook_hands(200.0)  # it was due: too soon to tell
            assert await client.punch(BOB)
            assert down(await following)
            await client.close()

    run(scenario())


def holding(taken: list) -> Callable:
    async def answer(request: web.Request) -> web.StreamResponse:
        taken.append(request.transport)
        return await streaming(SNAPSHOT_FRAME, hold=True)(request)

    return answer


def probes(client: RegistryClient) -> bool:
    assert client._connection is not None
    return bool(client._connection.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))


@needs_repair
@pytest.mark.parametrize("before", [1.0, 100.0])
def test_a_handshake_that_was_not_due_is_of_a_registry_that_began_anew(before):
    """It had just told something when it was killed, and is back; and the member has nothing to ask."""
    taken: list = []

    async def scenario() -> None:
        async with serving("GET", "/v1/events", holding(taken)) as client:
            client.shook_hands(200.0)
            came: list = []

            def is_told(events: list) -> bool:
                if SNAPSHOT in events and not came:
                    came.append(vanish(taken[0]))
                    client.shook_hands(200.0 + before)
                return down(events)

            began = time.monotonic()
            assert down(await heard(client, is_told))
            assert time.monotonic() - began < 5

    run(scenario())


def test_a_handshake_that_was_due_and_follows_from_what_was_told_costs_no_probe():
    async def scenario() -> None:
        async with serving("GET", "/v1/events", holding([])) as client:

            def is_told(events: list) -> bool:
                if SNAPSHOT not in events:
                    return False
                for at in (200.0, 320.0, 441.0):
                    client.shook_hands(at)
                    assert not probes(client)
                client.shook_hands(442.0)
                assert probes(client)
                return True

            await heard(client, is_told)

    run(scenario())

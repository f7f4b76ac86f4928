"""The API over real sockets on loopback: the network's prefix is 127.9.8.0/24, so that each member has its address."""

import asyncio
import gc
import json
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Address, ip_network

import aiohttp
import pytest

from tests.registry.io.api_registry import ALICE, BOB, ENROL, EVE, NETWORK, REGISTRY, key, member, run
from wgdisco.api import StunRecord
from wgdisco.keys import PrivateKey
from wgdisco.proof import leaving_proof, rotation_proof
from wgdisco.registry.facts import Kind, Put, Remove, Revoked
from wgdisco.registry.io import gate
from wgdisco.registry.io.feed import BEHIND_MAX, COMMENT, STREAMS_MAX
from wgdisco.registry.io.gate import ENROL_BURST
from wgdisco.registry.io.http import CONNECTIONS_MAX
from wgdisco.registry.membership import Membership
from wgdisco.registry.receipt import seal
from wgdisco.registry.stun import Site, StunResponder
from wgdisco.tunnel.noise import static_static


def invitation(uses=1, name="carol"):
    made = Membership([NETWORK]).invite(b"s" * 16, 4e9)[0][0].fact
    return replace(made, address=IPv4Address(ENROL), uses=uses, name=name)


async def events(response, count):
    """The next ones, receipts left out: each stream begins with one."""
    found = []
    while len(found) < count:
        event = {}
        async with asyncio.timeout(5):
            while line := (await response.content.readline()).decode().rstrip("\n"):
                field, _, value = line.partition(": ")
                event[field] = value
        if event.get("event", "receipt") != "receipt":
            found.append((event["event"], json.loads(event["data"]), event.get("id", "")))
    return found


def test_one_member_cannot_take_all_connections(tmp_path):
    async def scenario(registry):
        def connect(source):
            return asyncio.open_connection(REGISTRY, registry.port, local_addr=(source, 0))

        held = [await connect("127.9.8.2") for _ in range(CONNECTIONS_MAX)]
        reader, writer = await connect("127.9.8.2")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        assert (await registry.ask("127.9.8.3", "GET", "/v1/self"))[0] == 200
        held.pop()[1].close()
        async with asyncio.timeout(5):
            status = None
            while status != 200:  # the server may not know yet
                with suppress(aiohttp.ClientError):
                    status, _ = await registry.ask("127.9.8.2", "GET", "/v1/self")
        for _, left in held:
            left.close()

    run(tmp_path, scenario)


def test_a_member_is_known_by_its_address_and_sees_its_groups_only(tmp_path):
    async def scenario(registry):
        status, said = await registry.ask("127.9.8.2", "GET", "/v1/self")
        assert (status, said["schema"], said["member"]["name"]) == (200, 1, "alice")
        for source, names in (("127.9.8.2", ["bob"]), ("127.9.8.3", ["alice"]), ("127.9.8.4", [])):
            status, said = await registry.ask(source, "GET", "/v1/members")
            assert [one["name"] for one in said["members"]] == names
        assert (await registry.ask("127.9.8.2", "GET", "/v1/health"))[1]["status"] == "ok"
        for path in ("self", "members", "events", "health"):
            status, said = await registry.ask("127.9.8.77", "GET", f"/v1/{path}")
            assert status == 403
            assert "error" in said
        spoofed = {"X-Forwarded-For": "127.9.8.2", "Forwarded": "for=127.9.8.2", "X-Real-IP": "127.9.8.2"}
        assert (await registry.ask("127.9.8.77", "GET", "/v1/self", headers=spoofed))[0] == 403
        assert "private_key" not in json.dumps(said)

    run(tmp_path, scenario)


def test_enrolment_is_from_an_invitations_address_alone_and_idempotent(tmp_path):
    async def scenario(registry):
        body = {"schema": 1, "public_key": key(9).to_text(), "name": "ignored"}
        for source in ("127.9.8.2", "127.9.8.77"):
            assert (await registry.ask(source, "POST", "/v1/enrol", json=body))[0] == 404
        first = await registry.ask(ENROL, "POST", "/v1/enrol", json=body)
        assert (first[0], first[1]["member"]["name"]) == (200, "carol")
        assert await registry.ask(ENROL, "POST", "/v1/enrol", json=body) == first
        status, said = await registry.ask(ENROL, "POST", "/v1/enrol", json={**body, "public_key": key(10).to_text()})
        assert status == 403
        assert "used up" in said["error"]
        for path in ("self", "members", "events", "health"):
            assert (await registry.ask(ENROL, "GET", f"/v1/{path}"))[0] == 403
        assert registry.membership.members[key(9)].number == 5
        assert registry.ledger.store.load().count(registry.membership.members[key(9)]) == 1

    run(tmp_path, scenario, invitation())


def test_enrolment_is_rate_limited(tmp_path):
    async def scenario(registry):
        body = {"public_key": key(2).to_text()}
        asked = [await registry.ask(ENROL, "POST", "/v1/enrol", json=body) for _ in range(ENROL_BURST + 1)]
        assert [status for status, _ in asked] == [403] * ENROL_BURST + [429]

    run(tmp_path, scenario, invitation())


def rotation(number, next_key, shared=None):
    shared = shared or static_static(NETWORK.private_key, key(number))
    return {"schema": 1, "next_key": next_key.to_text(), "proof": rotation_proof(shared, next_key)}


def test_another_program_of_a_members_host_cannot_change_its_key(tmp_path):
    """It speaks from the member's address, and has no key but its own."""

    async def scenario(registry):
        right = rotation(2, key(9))
        other = rotation(2, key(9), static_static(PrivateKey(bytes(32)), NETWORK.private_key.public_key()))
        for body in (
            other,
            {**right, "next_key": key(8).to_text()},
            {**right, "proof": "\ud800"},
            {**right, "proof": ""},
        ):
            assert (await registry.ask("127.9.8.2", "POST", "/v1/self/rotate", json=body))[0] == 403
        for body in ({**right, "proof": None}, {"schema": 1, "next_key": key(9).to_text()}):
            assert (await registry.ask("127.9.8.2", "POST", "/v1/self/rotate", json=body))[0] == 400
        assert registry.membership.members[key(2)].next_key is None
        assert (await registry.ask("127.9.8.2", "POST", "/v1/self/rotate", json=right))[0] == 200

    run(tmp_path, scenario)


def test_only_who_holds_the_key_gives_the_membership_up(tmp_path):
    async def scenario(registry):
        shared = static_static(NETWORK.private_key, key(2))
        other = static_static(NETWORK.private_key, key(3))
        for proof in (leaving_proof(other, key(2)), leaving_proof(shared, key(3)), "\ud800", ""):
            asked = await registry.ask("127.9.8.2", "DELETE", "/v1/self", json={"schema": 1, "proof": proof})
            assert asked[0] == 403
        assert (await registry.ask("127.9.8.2", "DELETE", "/v1/self", json={"schema": 1}))[0] == 400
        assert (await registry.ask("127.9.8.2", "DELETE", "/v1/self", data="{}"))[0] == 415
        assert key(2) in registry.membership.members
        right = {"schema": 1, "proof": leaving_proof(shared, key(2))}
        assert (await registry.ask("127.9.8.2", "DELETE", "/v1/self", json=right))[0] == 202
        async with asyncio.timeout(5):
            while (await registry.ask("127.9.8.2", "GET", "/v1/self"))[0] == 200:
                pass
        assert key(2) in registry.membership.revoked

    run(tmp_path, scenario)


def test_changing_keys_is_rate_limited(tmp_path):
    """Each is kept for good."""

    async def scenario(registry):
        body = rotation(2, key(9))
        asked = [await registry.ask("127.9.8.2", "POST", "/v1/self/rotate", json=body) for _ in range(ENROL_BURST + 1)]
        assert [status for status, _ in asked] == [200] * ENROL_BURST + [429]

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (REGISTRY, True),
        (f"{REGISTRY}:80", True),
        ("registry.wg.internal", True),
        ("WG.INTERNAL.", True),
        ("evil.example", False),
        ("127.9.8.1.evil.example", False),
        ("127.9.8.2", False),
        ("", False),
        ("127.9.8.1:80@evil.example", False),
        ("[::1", False),
    ],
)
def test_only_our_own_host_names_are_served(tmp_path, host, allowed):
    async def scenario(registry):
        status, _ = await registry.ask("127.9.8.2", "GET", "/v1/self", headers={"Host": host})
        assert (status == 200) == allowed
        assert status < 500

    run(tmp_path, scenario)


def test_another_sites_page_can_change_nothing(tmp_path):
    async def scenario(registry):
        body = json.dumps(rotation(2, key(20)))

        async def post(**headers):
            fields = {name.replace("_", "-"): value for name, value in headers.items()}
            return (await registry.ask("127.9.8.2", "POST", "/v1/self/rotate", data=body, headers=fields))[0]

        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            assert await post(Content_Type=kind) == 415
        for origin in ("http://evil.example", "null", f"https://{REGISTRY}", f"http://{REGISTRY}.evil.example"):
            assert await post(Content_Type="application/json", Origin=origin) == 403
        assert registry.membership.members[key(2)].next_key is None
        assert await post(Content_Type="application/json", Origin=f"http://{REGISTRY}") == 200
        assert registry.membership.members[key(2)].next_key == key(20)
        browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
        status, told = await registry.ask("127.9.8.2", "GET", "/v1/events", headers=browser)
        assert (status, told["error"]) == (403, "this stream is for daemons: a browser follows /v1/view/events")

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 16000,
        b'{"public_key": 5}',
        b'{"public_key": "x"}',
        b'{"public_key": "' + b"A" * 44 + b'"}',
        b'{"public_key": "' + key(9).to_text().encode() + b'", "name": "../../etc"}',
        b'{"public_key": "' + key(9).to_text().encode() + b'", "name": ["x"]}',
        b'{"public_key": "' + key(9).to_text().encode() + b'", "name": "\\ud800"}',
        b'{"schema": 2, "public_key": "' + key(9).to_text().encode() + b'"}',
        b"\xff\xfe\x00",
        b"\xff",
        b'{"a": 1e999, "b": NaN}',
        b"1" * 5000,
        b"x" * 20000,
    ],
)
def test_no_body_makes_it_stumble(tmp_path, body):
    async def scenario(registry):
        headers = {"Content-Type": "application/json"}
        status, said = await registry.ask(ENROL, "POST", "/v1/enrol", data=body, headers=headers)
        assert 400 <= status < 500
        assert said["schema"] == 1
        assert "\n" not in said["error"]
        assert len(registry.membership.members) == 3

    run(tmp_path, scenario, invitation(name=None))


@pytest.mark.parametrize(
    "path",
    ["/v1", "/v1/self/", "/v1//self", "/v1/../v1/self", "/v1/%73elf%00", "/v1/members/../self", "/v1/self%2e",
     "/etc/passwd", "//evil.example/v1/self", "/v1/self/rotate", "/v1/enrol"],
)  # fmt: skip
def test_no_path_leads_anywhere_else(tmp_path, path):
    async def scenario(registry):
        reader, writer = await asyncio.open_connection(REGISTRY, registry.port, local_addr=("127.9.8.2", 0))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {REGISTRY}\r\nConnection: close\r\n\r\n".encode())
        status = int((await reader.readline()).split()[1])
        writer.close()
        assert status in (400, 403, 404, 405, 421)

    run(tmp_path, scenario)


def test_the_stream_tells_who_comes_goes_and_moves(tmp_path):
    async def scenario(registry):
        async with registry.request("127.9.8.2", "GET", "/v1/events") as response:
            assert response.content_type == "text/event-stream"
            ((name, data, _),) = await events(response, 1)
            assert name == "snapshot"
            assert [one["name"] for one in data["members"]] == ["bob"]
            await registry.put(Put(member(7, "dave")), Put(member(8, "mallory", "other")))
            await registry.put(Put(replace(BOB, name="robert")))
            await registry.put(Remove(replace(BOB, name="robert")))
            told = await events(response, 3)
            assert [(name, data["name"]) for name, data, _ in told] == [
                ("member", "dave"),
                ("member", "robert"),
                ("removed", "robert"),
            ]
        headers = {"Last-Event-ID": told[1][2]}
        async with registry.request("127.9.8.2", "GET", "/v1/events", headers=headers) as response:
            told = [(name, data["name"]) for name, data, _ in await events(response, 1)]
            assert told == [("removed", "robert")]
        for unknown in ("999", "5000", "x", "-1", "x" * 48):
            headers = {"Last-Event-ID": unknown}
            async with registry.request("127.9.8.2", "GET", "/v1/events", headers=headers) as response:
                assert (await events(response, 1))[0][0] == "snapshot"

    run(tmp_path, scenario)


def test_a_stream_says_something_when_it_is_asked_to(tmp_path):
    async def scenario(registry):
        async with registry.request("127.9.8.2", "GET", "/v1/events") as response:
            await events(response, 1)
            asked = {"schema": 1, "candidates": [], "heartbeat": 75}
            assert (await registry.ask("127.9.8.2", "PUT", "/v1/self/candidates", json=asked))[0] == 200
            told = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5)  # at once: the interval begins now
            assert told == COMMENT
            (consumer,) = registry.feed._by_number[ALICE.number]
            assert consumer.heartbeat == 75
            await registry.ask("127.9.8.3", "PUT", "/v1/self/candidates", json=asked | {"heartbeat": 15})
            await registry.ask("127.9.8.2", "PUT", "/v1/self/candidates", json=asked)  # no news
            assert consumer.heartbeat == 75
            registry.feed.set_heartbeat(ALICE, 0.05)
            for _ in range(3):
                assert await asyncio.wait_for(response.content.readuntil(b"\n\n"), 5) == COMMENT
            await registry.ask("127.9.8.2", "PUT", "/v1/self/candidates", json={"schema": 1, "candidates": []})
            assert consumer.heartbeat == 25

    run(tmp_path, scenario)


def test_a_resumed_stream_tells_nothing_of_other_groups(tmp_path):
    async def scenario(registry):
        async with registry.request("127.9.8.2", "GET", "/v1/events") as response:
            ((_, _, last_id),) = await events(response, 1)
        await registry.put(Put(replace(EVE, name="evelyn")))
        await registry.put(Remove(replace(EVE, name="evelyn")))
        headers = {"Last-Event-ID": last_id}
        async with registry.request("127.9.8.2", "GET", "/v1/events", headers=headers) as response:
            await registry.put(Put(member(7, "dave")))
            ((name, data, _),) = await events(response, 1)
            assert (name, data["name"]) == ("member", "dave")

    run(tmp_path, scenario)


def test_a_member_is_told_where_and_with_what_it_may_ask_about_its_nat(tmp_path):
    async def scenario(registry):
        assert (await registry.ask("127.9.8.2", "GET", "/v1/stun"))[0] == 404
        responder = StunResponder(NETWORK.private_key, lambda: 1.7e9)
        responder.sites = (Site(IPv4Address("198.51.100.10"), (3478, 3479), 3480),)
        registry.api.stun = responder.issue
        status, said = await registry.ask("127.9.8.2", "GET", "/v1/stun")
        assert (status, said["schema"]) == (200, 1)
        assert StunRecord.from_json(said) == responder.issue(ALICE.public_key)
        assert said["endpoints"] == ["198.51.100.10:3478", "198.51.100.10:3479"]
        assert (await registry.ask("127.9.8.77", "GET", "/v1/stun"))[0] == 403

    run(tmp_path, scenario)


def test_what_a_stream_was_told_is_not_kept_for_it(tmp_path):
    others = [member(number, f"{number:0200}", kind=Kind.DEVICE) for number in range(20, 120)]

    async def scenario(registry):
        async def listen():
            reader, writer = await asyncio.open_connection(
                REGISTRY, registry.port, local_addr=("127.9.8.2", 0), limit=1 << 20
            )
            writer.write(f"GET /v1/events HTTP/1.1\r\nHost: {REGISTRY}\r\n\r\n".encode())
            while b'"device"' not in (data := await reader.readuntil(b"\n\n")):
                pass
            return writer, len(data)

        held = [await listen()]  # tellings and what is made but once
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(STREAMS_MAX - 1):
                held.append(await listen())
                await asyncio.sleep(0)
            gc.collect()
            size = tracemalloc.get_traced_memory()[0] / (STREAMS_MAX - 1)
        finally:
            tracemalloc.stop()
        assert held[0][1] > 50_000
        assert size < held[0][1] / 2  # of both ends
        for writer, _ in held:
            writer.close()

    run(tmp_path, scenario, *others)


def test_whoever_falls_behind_or_is_revoked_is_cut(tmp_path):
    async def scenario(registry):
        async with registry.request("127.9.8.3", "GET", "/v1/events") as response:
            await events(response, 1)
            await registry.put(Remove(BOB))
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await events(response, 1)
        cut = []
        consumer = registry.feed.open(ALICE, "", lambda: cut.append(True))
        for _ in range(BEHIND_MAX):
            consumer.put(b"an event")
        assert cut
        assert consumer.ended
        assert (registry.feed.streams, registry.feed.cut) == (1, 0)
        registry.feed.close(consumer)
        assert (registry.feed.streams, registry.feed.cut) == (0, 1)

    run(tmp_path, scenario)


def test_a_receipt_comes_before_all_else_and_may_be_handed_back(tmp_path):
    async def scenario(registry):
        async with registry.request("127.9.8.2", "GET", "/v1/events") as response:
            first = (await response.content.readuntil(b"\n\n")).decode()
        assert "event: receipt\n" in first
        receipt = json.loads(first.partition("data: ")[2])
        status, said = await registry.ask("127.9.8.2", "POST", "/v1/receipt", json=receipt)
        assert (status, said["recalled"], said["receipt"]) == (200, False, receipt["receipt"])
        later = seal(NETWORK, [Revoked(BOB.public_key, "bob", 1.0)])
        status, said = await registry.ask("127.9.8.2", "POST", "/v1/receipt", json={"receipt": later})
        assert (status, said["recalled"]) == (200, True)
        assert BOB.public_key in registry.membership.revoked
        assert [one.name for one in registry.membership.members.values()] == ["alice", "eve"]
        for forged in ("A" * 60, "", "!", 7):
            status, _ = await registry.ask("127.9.8.2", "POST", "/v1/receipt", json={"receipt": forged})
            assert status == 400
        assert (await registry.ask("127.9.8.99", "POST", "/v1/receipt", json={"receipt": later}))[0] == 403

    run(tmp_path, scenario)


def test_a_member_says_what_is_behind_it_and_only_it_and_its_registry_hear(tmp_path):
    async def scenario(registry):
        asked = {"schema": 1, "offers": ["10.1.0.0/24", "0.0.0.0/0"]}
        for _ in range(2):
            status, told = await registry.ask("127.9.8.2", "PUT", "/v1/self/offers", json=asked)
            assert (status, told["member"]["offers"], told["member"]["subnets"]) == (200, asked["offers"], [])
        _, members = await registry.ask("127.9.8.3", "GET", "/v1/members")
        (alice,) = [one for one in members["members"] if one["name"] == "alice"]
        assert (alice["offers"], alice["subnets"]) == ([], [])
        offers = (ip_network("10.1.0.0/24"), ip_network("0.0.0.0/0"))
        await registry.put(Put(replace(ALICE, offers=offers, approved=offers[:1])))
        _, members = await registry.ask("127.9.8.3", "GET", "/v1/members")
        (alice,) = [one for one in members["members"] if one["name"] == "alice"]
        assert (alice["offers"], alice["subnets"]) == ([], ["10.1.0.0/24"])

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "offers", [None, "10.0.0.0/8", [7], ["10.0.0.1/24"], ["lan"], ["x" * 300], [f"10.{n}.0.0/16" for n in range(17)]]
)
def test_what_is_no_list_of_subnets_is_refused(tmp_path, offers):
    async def scenario(registry):
        status, _ = await registry.ask("127.9.8.2", "PUT", "/v1/self/offers", json={"schema": 1, "offers": offers})
        assert status == 400

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("PUT", "/v1/self/offers", {"offers": ["192.168.9.0/24"]}),
        ("PUT", "/v1/self/candidates", {"candidates": []}),
        ("PUT", "/v1/self/paths", {"paths": []}),
        ("POST", "/v1/self/rotate", {"next_key": key(40).to_text(), "proof": "x"}),
        ("POST", "/v1/punch", {"peer": BOB.public_key.to_text()}),
    ],
)
def test_who_is_gone_when_its_body_comes_asks_for_nothing(tmp_path, method, path, asked):
    async def scenario(registry):
        body = json.dumps(asked).encode()
        reader, writer = await asyncio.open_connection(REGISTRY, registry.port, local_addr=("127.9.8.2", 0))
        head = f"{method} {path} HTTP/1.1\r\nHost: {REGISTRY}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")  # it has been let in
        await registry.put(Remove(ALICE))
        writer.write(body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
        writer.close()

    run(tmp_path, scenario)


GARBAGE = [
    b"GET /page/\xff HTTP/1.1\r\n\r\n",
    b"GET http://[::x/ HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + 20_000 * b"x" + b"\r\n\r\n",
]


def test_what_is_no_http_is_counted_and_not_logged(tmp_path, caplog):
    async def scenario(registry):
        for garbage in GARBAGE:
            reader, writer = await asyncio.open_connection(REGISTRY, registry.port, local_addr=("127.9.8.2", 0))
            writer.write(garbage)
            async with asyncio.timeout(5):
                assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
            writer.close()
        assert registry.api.log.drops == {"api: not HTTP": len(GARBAGE)}

    run(tmp_path, scenario)
    assert caplog.text == ""


def test_a_body_that_is_compressed_or_breaks_off_is_not_logged(tmp_path, caplog):
    async def scenario(registry):
        head = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        status, told = await registry.ask("127.9.8.2", "PUT", "/v1/self/offers", data=b"x", headers=head)
        assert (status, told["error"]) == (400, "the body is not JSON")
        reader, writer = await asyncio.open_connection(REGISTRY, registry.port, local_addr=("127.9.8.2", 0))
        told = f"PUT /v1/self/offers HTTP/1.1\r\nHost: {REGISTRY}\r\nContent-Type: application/json\r\n"
        writer.write(f"{told}Content-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    run(tmp_path, scenario)
    assert caplog.text == ""


def test_of_another_s_groups_a_member_is_told_those_it_is_in_itself(tmp_path):
    async def scenario(registry):
        _, told = await registry.ask("127.9.8.2", "GET", "/v1/members")
        (bob,) = told["members"]
        assert bob["groups"] == ["all"]
        _, own = await registry.ask("127.9.8.3", "GET", "/v1/self")
        assert own["member"]["groups"] == ["all", "dev"]
        async with registry.request("127.9.8.2", "GET", "/v1/events") as response:
            ((_, snapshot, _),) = await events(response, 1)
            assert [one["groups"] for one in snapshot["members"]] == [["all"]]
            await registry.put(Put(replace(BOB, groups=("all", "dev", "ops"))))
            await registry.put(Put(replace(BOB, groups=("all", "ops"), name="robert")))
            ((_, told, _),) = await events(response, 1)
            assert (told["name"], told["groups"]) == ("robert", ["all"])

    run(tmp_path, scenario)


def test_half_a_body_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "BODY_TIMEOUT", 0.2)

    async def scenario(registry):
        reader, writer = await asyncio.open_connection(REGISTRY, registry.port, local_addr=("127.9.8.2", 0))
        head = f"PUT /v1/self/paths HTTP/1.1\r\nHost: {REGISTRY}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: 400000\r\n\r\n".encode() + 300_000 * b" ")
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.close()

    run(tmp_path, scenario)

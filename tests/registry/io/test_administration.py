"""What admins do by the API, over real sockets on loopback."""

import asyncio

import pytest

from tests.registry.io.api_registry import ALICE, BOB, REGISTRY, key, member, run
from wgdisco.invitation import JoinLink
from wgdisco.registry.facts import Put, Role
from wgdisco.registry.io.commands import Commands

ADMIN = member(9, "admin", role=Role.ADMIN)
BOSS, A = "127.9.8.9", "127.9.8.2"
VERBS = [
    ("/v1/invite", {"name": "carol"}),
    ("/v1/invite/cancel", {"id": key(1).to_text()}),
    ("/v1/rename", {"public_key": key(2).to_text(), "name": "anna"}),
    ("/v1/revoke", {"public_key": key(2).to_text()}),
]


def administer(tmp_path, *steps):
    """Run the steps: what is asked for, the status, and what the answer is to say."""

    async def scenario(registry):
        for path, asked, status, wanted in steps:
            got, answer = await registry.ask(BOSS, "POST", path, json=asked)
            assert (got, wanted in str(answer)) == (status, True), answer

    run(tmp_path, scenario, ADMIN)


@pytest.mark.parametrize(("path", "asked"), VERBS)
def test_only_admins_may(tmp_path, path, asked):
    async def scenario(registry):
        status, answer = await registry.ask(A, "POST", path, json=asked)
        assert status == 403
        assert answer["error"] == "alice is no admin: `wgdisco registry set alice role admin`"
        status, _ = await registry.ask("127.9.8.77", "POST", path, json=asked)
        assert status == 403
        foreign = {"Origin": "http://evil.example"}
        assert (await registry.ask(BOSS, "POST", path, json=asked, headers=foreign))[0] == 403
        assert (await registry.ask(BOSS, "POST", path, data="{}"))[0] == 415
        assert len(registry.membership.members) == 4
        assert not registry.membership.invitations

    run(tmp_path, scenario, ADMIN)


def test_an_invitation_is_made_shown_and_cancelled(tmp_path):
    async def scenario(registry):
        asked = {"name": "carol", "groups": ["dev"], "admin": True, "expires": "1h"}
        status, made = await registry.ask(BOSS, "POST", "/v1/invite", json=asked)
        assert status == 200
        assert JoinLink.from_text(made["link"]).registry_key == registry.membership.network.private_key.public_key()
        assert made["qr"].startswith("<svg xmlns=")
        (shown,) = (await registry.ask(BOSS, "GET", "/v1/view"))[1]["invitations"]
        assert shown["id"] == made["id"]
        assert (shown["name"], shown["groups"], shown["role"]) == ("carol", ["dev"], "admin")
        assert (shown["state"], shown["uses_left"], shown["used_by"]) == ("pending", 1, [])
        assert shown["expires_at"] == made["expires_at"]
        assert (await registry.ask(BOSS, "POST", "/v1/invite/cancel", json={"id": made["id"]}))[0] == 200
        assert (await registry.ask(BOSS, "GET", "/v1/view"))[1]["invitations"] == []
        assert (await registry.ask(BOSS, "POST", "/v1/invite/cancel", json={"id": made["id"]}))[0] == 404

    run(tmp_path, scenario, ADMIN)


def test_an_invitation_may_say_nothing(tmp_path):
    async def scenario(registry):
        assert (await registry.ask(BOSS, "POST", "/v1/invite", json={}))[0] == 200
        (made,) = registry.membership.invitations.values()
        assert (made.name, made.groups, made.role, made.uses, made.ephemeral) == (None, ("all",), Role.MEMBER, 1, None)
        assert (await registry.ask(BOSS, "POST", "/v1/invite", json={"ephemeral": True, "uses": 5}))[0] == 200
        assert [one.ephemeral for one in registry.membership.invitations.values()] == [None, 600.0]

    run(tmp_path, scenario, ADMIN)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"name": "Not A Name"}, "cannot be a name"),
        ({"name": "registry"}, "the registry's own name"),
        ({"name": 5}, "are texts"),
        ({"groups": "dev"}, "a list"),
        ({"groups": ["x" * 70]}, "cannot be a name"),
        ({"uses": 0}, "uses: a number"),
        ({"uses": True}, "uses: a number"),
        ({"expires": "soon"}, "expires: 'soon' is not a time"),
        ({"expires": -5}, "expires: a time"),
        ({"admin": "yes"}, "admin: true or false"),
        ({"ephemeral": "1m"}, "at least 3m"),
        ([], "not a JSON object"),
    ],
)
def test_an_invitation_that_cannot_be_is_refused(tmp_path, asked, why):
    administer(tmp_path, ("/v1/invite", asked, 400, why))


def test_what_the_rules_refuse_is_said_as_the_command_line_says_it(tmp_path):
    alice, bob = {"public_key": ALICE.public_key.to_text()}, {"public_key": BOB.public_key.to_text()}
    administer(
        tmp_path,
        ("/v1/invite", {"name": "alice"}, 409, "there is a member 'alice' already"),
        ("/v1/invite", {"name": "carol", "uses": 2}, 409, "an invitation with a name is for one use"),
        ("/v1/rename", {**alice, "name": "bob"}, 409, "there is a member 'bob' already"),
        ("/v1/rename", {**alice, "name": "-"}, 409, "cannot be a name"),
        ("/v1/rename", {"public_key": key(77).to_text(), "name": "x"}, 404, "no such member"),
        ("/v1/rename", alice, 400, "name: missing"),
        ("/v1/revoke", {"public_key": "alice"}, 400, "public_key:"),
        ("/v1/revoke", {"public_key": ADMIN.public_key.to_text()}, 409, "that is yourself"),
        ("/v1/revoke", bob, 200, "'unseen': ['alice', 'admin']"),
        ("/v1/revoke", bob, 404, "no such member"),
    )


def test_the_log_says_which_admin_did_what_and_has_no_link(tmp_path, caplog):
    caplog.set_level("INFO")
    bob = {"public_key": BOB.public_key.to_text(), "name": "robert"}
    administer(
        tmp_path,
        ("/v1/invite", {"name": "carol"}, 200, "link"),
        ("/v1/rename", bob, 200, ""),
        ("/v1/revoke", bob, 200, ""),
    )
    said = [(one.message, one.fields) for one in caplog.records if hasattr(one, "fields")]
    assert said == [
        ("invited", {"by": "admin", "whom": "carol"}),
        ("renamed", {"by": "admin", "whom": "bob to robert"}),
        ("revoked", {"by": "admin", "whom": "robert"}),
    ]
    assert "wgdisco://" not in caplog.text


def test_a_rename_is_seen_at_once_by_who_watches(tmp_path):
    async def scenario(registry):
        renamed = {"public_key": ALICE.public_key.to_text(), "name": "anna"}
        assert (await registry.ask(BOSS, "POST", "/v1/rename", json=renamed))[0] == 200
        assert "anna" in [one["name"] for one in (await registry.ask(BOSS, "GET", "/v1/view"))[1]["members"]]

    run(tmp_path, scenario, ADMIN)


def test_what_an_admin_began_it_may_not_end_once_it_is_none(tmp_path):
    async def scenario(registry):
        body = b'{"name": "carol", "admin": true}'
        head = f"POST /v1/invite HTTP/1.1\r\nHost: {REGISTRY}\r\nContent-Type: application/json\r\nContent-Length: "
        reader, writer = await asyncio.open_connection(REGISTRY, registry.port, local_addr=(BOSS, 0))
        writer.write(f"{head}{len(body)}\r\nExpect: 100-continue\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")  # it has been let in
        await registry.put(Put(member(9, "admin")))
        writer.write(body)
        assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
        writer.close()
        assert not registry.membership.invitations

    run(tmp_path, scenario, ADMIN)


@pytest.mark.parametrize("verb", ["revoke", "rename"])
def test_it_is_done_to_who_was_meant_and_not_to_who_has_got_the_name_meanwhile(tmp_path, verb):
    async def scenario(registry):
        ledger, follow, commands = registry.ledger, registry.ledger.follow, Commands(registry.ledger)
        go_on, change, waiting = asyncio.Event(), ledger.change, asyncio.Queue()

        async def slow(changes):
            await go_on.wait()
            await follow(changes)

        def seen(command):
            waiting.put_nowait(command)
            return change(command)

        ledger.follow, ledger.change = slow, seen
        asked = {"public_key": ALICE.public_key.to_text(), "name": "zoe"}
        async with asyncio.TaskGroup() as tasks:
            for name, new_name in (("alice", "anna"), ("bob", "alice")):
                tasks.create_task(commands.rename({"name": name, "new_name": new_name}))
                await waiting.get()
            answer = tasks.create_task(registry.ask(BOSS, "POST", f"/v1/{verb}", json=asked))
            await waiting.get()
            go_on.set()
        assert answer.result()[0] == 200
        left = {one.number: one.name for one in registry.membership.members.values()}
        assert left[BOB.number] == "alice"
        assert left.get(ALICE.number) == ("zoe" if verb == "rename" else None)

    run(tmp_path, scenario, ADMIN)


def test_what_cannot_be_stored_is_not_done_and_is_no_matter_of_the_rules(tmp_path, caplog):
    async def scenario(registry):
        registry.ledger.store._connection.execute("PRAGMA query_only = ON")
        status, told = await registry.ask(BOSS, "POST", "/v1/revoke", json={"public_key": BOB.public_key.to_text()})
        assert status == 503
        assert told["error"].startswith("the registry cannot store this now")
        assert BOB.public_key in registry.membership.members

    run(tmp_path, scenario, ADMIN)
    assert str(tmp_path) in caplog.text

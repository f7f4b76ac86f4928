"""Whatever the groups: nothing of a member is in any answer or event to one that shares none with it."""

import asyncio
import json
import re
from dataclasses import replace
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.registry.io.api_registry import Registry, member, run
from wgdisco.endpoint import Endpoint
from wgdisco.registry.facts import Put, Remove
from wgdisco.tunnel.events import PeerHandshake

GROUPS = ("all", "dev", "ops")
ACTIONS = ("rename", "regroup", "revoke", "move", "punch")
FIRST = 20
NEXT = 60
LAST_ID = re.compile(r"^id: (.+)$", re.MULTILINE)


def source(one) -> str:
    return f"127.9.8.{one.number}"


def signs(one) -> set[str]:
    """What gives a member away, each text its own alone."""
    number = one.number
    return {
        one.public_key.to_text(),
        f"name{number}x",
        f"other{number}x",
        f'"127.9.8.{number}"',
        f'"fd00:9:8::{number:x}"',
        f"203.0.113.{number}:",
        f"198.51.100.{number}:",
        f"192.0.2.{number}:",
        f"10.{number}.0.0/16",
        f"10.{number + 100}.0.0/16",
    }


def made(number: int, groups: set[str]):
    offers = (ip_network(f"10.{number}.0.0/16"), ip_network(f"10.{number + 100}.0.0/16"))
    return replace(
        member(number, f"name{number}x", *sorted(groups)),
        offers=offers,
        approved=offers[:1],
    )


def shares(one, other) -> bool:
    return bool(set(one.groups) & set(other.groups))


async def listen(registry: Registry, one, heard: dict[int, str], ready: asyncio.Event) -> None:
    async with registry.request(source(one), "GET", "/v1/events") as response:
        ready.set()
        async for data in response.content.iter_any():
            heard[one.number] += data.decode()


def note(left: dict, shared: set[frozenset[int]]) -> None:
    """Who shares a group now; what was learned stays learned."""
    shared |= {frozenset((a.number, b.number)) for a in left.values() for b in left.values() if shares(a, b)}


async def live(registry: Registry, everybody: list, actions: list) -> tuple[dict[int, str], set[frozenset[int]]]:
    """All members listen, say where they are, look for each other and ask for all there is.

    What each was told, and which two ever shared a group.
    """
    heard = {one.number: "" for one in everybody}
    listening = [asyncio.Event() for _ in everybody]
    tasks = [
        asyncio.ensure_future(listen(registry, one, heard, ready))
        for one, ready in zip(everybody, listening, strict=True)
    ]
    await asyncio.gather(*(ready.wait() for ready in listening))
    for one in everybody:
        where = Endpoint.from_text(f"203.0.113.{one.number}:4500")
        registry.directory.observe_event(PeerHandshake(one.public_key, where, 1.0))
        registry.feed.refresh([one])
        candidate = {"kind": "srflx", "endpoint": f"192.0.2.{one.number}:4500", "priority": 7}
        told = {"schema": 1, "candidates": [candidate], "nat": "eim/apdf/-"}
        _, said = await registry.ask(source(one), "PUT", "/v1/self/candidates", json=told)
        heard[one.number] += json.dumps(said)
        ways = [
            {"peer": other.public_key.to_text(), "path": "direct", "endpoint": f"192.0.2.{other.number}:4500"}
            for other in everybody
        ]
        assert (await registry.ask(source(one), "PUT", "/v1/self/paths", json={"schema": 1, "paths": ways}))[0] == 200
    since = {number: LAST_ID.findall(told)[-1] for number, told in heard.items()}
    left, shared = dict(enumerate(everybody)), set()
    note(left, shared)
    for what, index in actions:
        one = left.get(index % len(everybody))
        if one is not None:
            await act(registry, what, one, left, heard)
            note(left, shared)
    await registry.feed.heard(5)  # then the answers below come after it
    for one in left.values():
        for path in ("/v1/self", "/v1/members", "/v1/health", "/v1/view"):
            status, said = await registry.ask(source(one), "GET", path)
            assert status == 200
            heard[one.number] += json.dumps(said)
        async with registry.request(
            source(one), "GET", "/v1/events", headers={"Last-Event-ID": since[one.number]}
        ) as response:
            heard[one.number] += (await response.content.readany()).decode()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return heard, shared


async def act(registry: Registry, what: str, one, left: dict, heard: dict[int, str]) -> None:
    place = next(at for at, other in left.items() if other is one)
    match what:
        case "rename":
            left[place] = replace(one, name=f"other{one.number}x")
            await registry.put(Put(left[place]))
        case "regroup":
            left[place] = replace(one, groups=(GROUPS[(GROUPS.index(one.groups[0]) + 1) % len(GROUPS)],))
            await registry.put(Put(left[place]))
        case "revoke":
            del left[place]
            await registry.put(Remove(one))
        case "move":
            where = Endpoint.from_text(f"198.51.100.{one.number}:7")
            registry.directory.observe_event(PeerHandshake(one.public_key, where, 2.0))
            registry.feed.refresh([one])
        case "punch":
            for other in left.values():
                peer = {"schema": 1, "peer": other.public_key.to_text()}
                status, said = await registry.ask(source(one), "POST", "/v1/punch", json=peer)
                heard[one.number] += json.dumps(said)
                if not shares(one, other):
                    stranger = {"schema": 1, "peer": member(NEXT, "nobody").public_key.to_text()}
                    assert (status, said) == await registry.ask(source(one), "POST", "/v1/punch", json=stranger)


@pytest.mark.parametrize("count", [12, pytest.param(400, marks=pytest.mark.soak)])
def test_no_group_hears_of_another(tmp_path_factory, count):
    @seed(11)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(st.sets(st.sampled_from(GROUPS), min_size=1), min_size=3, max_size=6),
        st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5)), max_size=8),
    )
    def tried(groups, actions):
        check(tmp_path_factory.mktemp("groups"), groups, actions)

    tried()


def check(path, groups, actions) -> None:
    everybody = [made(FIRST + number, names) for number, names in enumerate(groups)]

    async def scenario(registry):
        heard, shared = await live(registry, everybody, actions)
        for one in everybody:
            told = heard[one.number]
            assert one.public_key.to_text() in told
            for other in everybody:
                if frozenset((one.number, other.number)) in shared:
                    assert other.public_key.to_text() in told
                else:
                    assert not [sign for sign in signs(other) if sign in told], (one.groups, other.groups)

    run(path, scenario, *everybody)

"""The feed by itself: whatever happens, who follows the events knows what a snapshot would say."""

import asyncio
import json
import random
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from tests.registry.io.api_registry import NETWORK, key
from wgdisco.api import CandidateRecord, to_json
from wgdisco.endpoint import Endpoint
from wgdisco.peer.stream import EventParser
from wgdisco.registry.directory import Directory
from wgdisco.registry.facts import Kind, Member, Put, Remove
from wgdisco.registry.io.feed import A_TURN, BEHIND_MAX, Feed
from wgdisco.registry.io.turns import AT_ONCE, LARGE, Turns
from wgdisco.registry.membership import Membership
from wgdisco.registry.records import snapshot
from wgdisco.registry.telling import Tellings
from wgdisco.tunnel.config import DeviceConfig, PeerConfig
from wgdisco.tunnel.events import PathSeen

GROUPS = ("red", "green", "blue")


def some(number, groups=("red",), **more):
    return Member(f"m{number}", key(number), number, groups, 1.0, proven=True, **more)


class Registry:
    """Membership, directory and feed."""

    def __init__(self, members):
        self.membership = Membership([NETWORK, *members])
        self.directory = Directory(DeviceConfig(), ())
        self.set_peers()
        self.feed = Feed(self.membership, self.directory)

    def set_peers(self):
        peers = [PeerConfig(one) for one in self.membership.members]
        self.directory.set_peers(peers, 0.0)

    def put(self, *changes):
        numbers = {change.fact.number for change in changes}
        before = [one for one in self.membership.members.values() if one.number in numbers]
        self.membership.apply(changes)
        self.set_peers()
        after = [one for one in self.membership.members.values() if one.number in numbers]
        self.feed.refresh([*after, *before], facts=True)

    def move(self, member, port):
        self.directory.observe_event(PathSeen(member.public_key, Endpoint(IPv4Address("203.0.113.7"), port), 1.0))
        self.feed.refresh([member])

    def tell(self, member, candidates):
        self.directory.tell(member.public_key, candidates, None)
        self.feed.refresh([member])

    def snapshot(self, number):
        return to_json(snapshot(self.membership, self.directory, self.membership.by_number(number)))


class Follower:
    """What a member makes of its stream."""

    def __init__(self, registry, number, last_id="", members=None):
        self.registry, self.number = registry, number
        self.members = dict(members or {})
        self.last_id = last_id
        self.had_snapshot = False
        self.consumer = registry.feed.open(registry.membership.by_number(number), last_id, lambda: None)

    async def read(self):
        while not self.consumer.is_through() and not self.consumer.ended:
            for event in (await self.consumer.take()).split(b"\n\n")[:-1]:
                self.hear(event)

    def hear(self, event):
        lines = dict(line.split(": ", 1) for line in event.decode().split("\n"))
        self.last_id = lines.get("id", self.last_id)
        self.take(lines["event"], json.loads(lines["data"]))

    async def read_some(self, drawn):
        """Not all, and of the last event not the end: the stream breaks off."""
        if not self.consumer.is_through():
            told = (await self.consumer.take()).split(b"\n\n")[:-1]
            for event in told[: drawn.randrange(len(told))]:
                self.hear(event)

    def take(self, name, data):
        match name:
            case "snapshot":
                self.had_snapshot = True
                self.members = {one["public_key"]: one for one in data["members"]}
            case "member":
                assert data.pop("schema") == 1
                self.members[data["public_key"]] = data
            case "endpoint":
                assert data["public_key"] in self.members
                self.members[data["public_key"]] |= {"endpoint": data["endpoint"], "live": data["live"]}
            case "removed":
                self.members.pop(data["public_key"], None)  # it may have come and gone while we were away

    def check(self):
        wanted = {one["public_key"]: one for one in self.registry.snapshot(self.number)["members"]}
        assert self.members == wanted


def some_groups(drawn):
    return tuple(drawn.sample(GROUPS, drawn.randint(1, 2)))


def happen(drawn, registry):
    one = drawn.choice(list(registry.membership.members.values()))
    match drawn.randrange(8):
        case 0 | 1 | 2:
            registry.move(one, drawn.randint(1024, 1030))
        case 3:
            registry.tell(one, [CandidateRecord("host", f"10.0.0.1:{drawn.randint(1, 3)}", 7)])
        case 4:
            registry.put(Put(replace(one, groups=some_groups(drawn))))
        case 5:
            free = next(number for number in range(2, 99) if registry.membership.by_number(number) is None)
            registry.put(Put(some(free, some_groups(drawn), kind=Kind.DEVICE, direct_to=(one.name,))))
        case 6 if one.number > 4:
            registry.put(Remove(one))
        case 7:
            unused = [key(number) for number in range(100, 200) if key(number) not in registry.membership.members]
            registry.put(Put(replace(one, public_key=drawn.choice(unused))))


@pytest.mark.parametrize("seed", [*range(20), 284])
def test_who_follows_knows_what_a_snapshot_says(seed):
    drawn = random.Random(seed)

    async def scenario():
        registry = Registry([some(number, some_groups(drawn)) for number in range(2, 10)])
        followers = [Follower(registry, number) for number in (2, 3, 4)]
        for _ in range(60):
            happen(drawn, registry)
            if drawn.random() < 0.3:
                for follower in followers:
                    await follower.read()
                    follower.check()
            if drawn.random() < 0.1:  # one goes, and comes back after something has happened
                gone = followers.pop(drawn.randrange(len(followers)))
                await gone.read_some(drawn)
                registry.feed.close(gone.consumer)
                for _ in range(drawn.randint(0, 4)):
                    happen(drawn, registry)
                followers.append(Follower(registry, gone.number, gone.last_id, gone.members))
        for follower in followers:
            await follower.read()
            follower.check()

    asyncio.run(scenario())


def test_a_resumed_stream_has_no_snapshot():
    async def scenario():
        registry = Registry([some(2), some(3), some(4, ("green",))])
        first = Follower(registry, 2)
        await first.read()
        registry.feed.close(first.consumer)
        registry.move(some(3), 5000)
        registry.move(some(4), 5000)
        again = Follower(registry, 2, first.last_id, first.members)
        await again.read()
        assert not again.had_snapshot
        again.check()

    asyncio.run(scenario())


def test_what_broke_off_before_it_was_whole_is_told_again():
    async def scenario():
        registry = Registry([some(number) for number in range(2, 6)])
        first = Follower(registry, 2)
        told = (await first.consumer.take()).decode()
        registry.feed.close(first.consumer)
        parser = EventParser()
        parser.feed(told[:-1].encode())
        assert parser.last_id == ""
        assert told.rindex("\nid: ") > told.rindex("\ndata: ")  # older members take it as they read it
        second = Follower(registry, 2, parser.last_id)
        await second.read()
        registry.feed.close(second.consumer)
        for number in (3, 4, 5):
            registry.move(some(number), 5000)
        for heard in range(4):
            again = Follower(registry, 2, second.last_id, second.members)
            events = (await again.consumer.take()).split(b"\n\n")[:-1]
            assert len(events) == 1 + 3  # a receipt first
            for event in events[:heard]:
                again.hear(event)
            registry.feed.close(again.consumer)
            last = Follower(registry, 2, again.last_id, again.members)
            await last.read()
            assert not last.had_snapshot
            last.check()

    asyncio.run(scenario())


def test_how_much_happens_in_other_groups_is_not_to_be_found_out():
    async def scenario():
        registry = Registry([some(2), some(3), some(4, ("green",)), *(some(n, ("green",)) for n in range(100, 140))])
        member = registry.membership.by_number

        async def told(last_id):
            again = Follower(registry, 2, last_id)
            events = (await again.consumer.take()).decode()
            registry.feed.close(again.consumer)
            return [line for line in events.split("\n") if not line.startswith("id: ")], again

        whole, again = await told("")
        await again.read()
        first = Follower(registry, 2)
        await first.read()
        quiet, _ = await told(first.last_id)
        for turn in range(8 * BEHIND_MAX // 40):
            for number in range(100, 140):
                registry.move(member(number), 5000 + turn % 2)
        registry.put(Put(replace(member(4), groups=("green", "blue"))))
        assert first.consumer.is_through()  # no event
        assert (await told(first.last_id))[0] == quiet  # nor another answer: it is known what was missed
        assert (await told(""))[0] == whole
        # one that is in its group and in others: what is different only there
        registry.put(Put(replace(member(3), groups=("red", "green"))))
        assert first.consumer.is_through()
        assert (await told(first.last_id))[0] == quiet
        registry.move(member(3), 5000)
        await first.read()
        first.check()

    asyncio.run(scenario())


def test_what_all_are_told_is_the_same_object_until_it_changes():
    registry = Registry([some(2), some(3)])
    tellings = Tellings(registry.membership, registry.directory)
    first = tellings.of(some(2))
    registry.directory.observe_event(PathSeen(key(3), Endpoint(IPv4Address("203.0.113.7"), 5), 1.0))
    assert tellings.of(some(2)) is first
    registry.directory.observe_event(PathSeen(key(2), Endpoint(IPv4Address("203.0.113.7"), 5), 1.0))
    moved = tellings.of(some(2))
    assert moved is not first
    registry.directory.observe_event(PathSeen(key(2), Endpoint(IPv4Address("203.0.113.7"), 5), 2.0))
    assert tellings.of(some(2)) is moved


def test_a_snapshot_is_the_record_it_stands_for():
    registry = Registry([some(2), some(3), some(4, kind=Kind.DEVICE, direct_to=("m2",))])
    tellings = Tellings(registry.membership, registry.directory)
    for number in (2, 3):
        member = registry.membership.by_number(number)
        event = tellings.snapshot(member, map(tellings.of, registry.membership.visible_to(member)))
        assert json.loads(event.data) == registry.snapshot(number)


def test_many_are_woken_some_at_a_time():
    async def scenario():
        registry = Registry([some(number) for number in range(2, 2 + 3 * A_TURN)])
        followers = [Follower(registry, number) for number in registry.membership._members.by_number]
        for follower in followers:
            await follower.read()
        woken = []

        async def wait(follower):
            await follower.consumer.take()
            woken.append(follower.number)

        waiting = [asyncio.ensure_future(wait(follower)) for follower in followers]
        await asyncio.sleep(0)
        registry.move(some(2), 5000)
        seen = set()
        while len(woken) < len(followers) - 1:
            await asyncio.sleep(0)
            seen.add(len(woken))
        assert {A_TURN, 2 * A_TURN} <= seen
        waiting[0].cancel()

    asyncio.run(scenario())


def test_large_snapshots_are_given_in_turn():
    async def scenario():
        turns, having, most = Turns(), 0, 0

        async def have(members):
            nonlocal having, most
            async with turns.turn(members) as turn:
                having += 1
                most = max(most, having)
                await asyncio.sleep(0)
                await turn.heard(lambda: True)
                having -= 1

        await asyncio.gather(*(have(LARGE) for _ in range(3 * AT_ONCE)))
        assert most == AT_ONCE
        most = 0
        await asyncio.gather(*(have(LARGE - 1) for _ in range(3 * AT_ONCE)))
        assert most == 3 * AT_ONCE

    asyncio.run(scenario())

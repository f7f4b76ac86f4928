"""The API and its OpenAPI document say the same, whoever asks whatever (schemathesis)."""

import asyncio
from dataclasses import replace

import pytest

from tests.registry.io.api_registry import ALICE, BOB, ENROL, EVE, REGISTRY, member, run
from tests.registry.io.conforming import STREAMS, fuzz
from tests.registry.io.test_http import invitation
from wgdisco.api import StunRecord
from wgdisco.registry.facts import Role
from wgdisco.registry.io.gate import Rates
from wgdisco.registry.openapi import document
from wgdisco.registry.operations import API

ADMIN = replace(member(5, "root"), role=Role.ADMIN)
SOURCES = {"member": "127.9.8.2", "admin": "127.9.8.5", "outsider": "127.9.8.99", "joiner": ENROL}


@pytest.fixture
def _unlimited(monkeypatch):
    monkeypatch.setattr("wgdisco.registry.io.gate.ENROL_BURST", 1_000_000)


def fuzzed(tmp_path, who: str, count: int) -> dict[str, set[int]]:
    seen = {}

    async def scenario(registry):
        registry.view._looks = registry.view._reports = Rates(1_000_000, 1.0)
        registry.api.stun = lambda _key: StunRecord(["198.51.100.10:3478"], "name", "secret", 300)
        async with registry.request("127.9.8.3", "GET", "/v1/events"):  # bob listens, so that there are orders
            url, streams = f"http://{REGISTRY}:{registry.port}", who in ("outsider", "joiner")
            seen.update(await asyncio.to_thread(fuzz, url, SOURCES[who], count, streams=streams))
        for one in (ALICE, BOB, EVE):
            assert (await registry.ask(f"127.9.8.{one.number}", "GET", "/v1/self"))[0] in (200, 403)

    run(tmp_path, scenario, ADMIN, invitation(uses=100_000))
    return seen


def counts(few: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("count", [few, pytest.param(150, marks=pytest.mark.soak)])


# A proof, a seal, or the key of an invitation, which nobody guesses
SECRETS = {"POST /v1/self/rotate", "DELETE /v1/self", "POST /v1/receipt", "POST /v1/invite/cancel"}
ADMINS = {"POST /v1/invite", "POST /v1/invite/cancel", "POST /v1/rename", "POST /v1/revoke"}
JOINERS = {"POST /v1/enrol"}


@counts(10)
@pytest.mark.usefixtures("_unlimited")
@pytest.mark.parametrize("who", ["member", "admin"])
def test_members_are_answered_as_the_document_says(tmp_path, who, count):
    seen = fuzzed(tmp_path, who, count)
    for operation in API.operations:
        label = f"{operation.method.upper()} {operation.path}"
        if label in JOINERS:
            assert seen[label] == {404}
        elif label in ADMINS and who == "member":
            assert seen[label] == {403}
        elif label not in SECRETS and operation.path not in STREAMS:
            # a name may be an invitation's by now
            assert seen[label] & {operation.status, *({409} if label in ADMINS else ())}, label


@counts(3)
@pytest.mark.usefixtures("_unlimited")
def test_an_outsider_is_told_nothing(tmp_path, count):
    assert set().union(*fuzzed(tmp_path, "outsider", count).values()) <= {403, 404}


@counts(5)
@pytest.mark.usefixtures("_unlimited")
def test_who_has_a_join_link_may_join_and_nothing_else(tmp_path, count):
    seen = fuzzed(tmp_path, "joiner", count)
    assert 200 in seen.pop("POST /v1/enrol")
    assert set().union(*seen.values()) <= {403}


def test_the_document_has_the_paths_that_are_served_and_no_others(tmp_path):
    async def scenario(registry):
        routes = [(route.method.lower(), route.resource.canonical) for route in registry.api.router.routes()]
        assert {(method, path) for method, path in routes if path.startswith("/v1/")} == {
            (one.method, one.path) for one in API.operations
        }
        status, told = await registry.ask("127.9.8.2", "GET", "/v1/openapi.json")
        assert (status, told) == (200, document(API))

    run(tmp_path, scenario)


def test_another_method_is_told_which_there_are(tmp_path):
    methods: dict[str, set[str]] = {}
    for one in API.operations:
        methods.setdefault(one.path, set()).add(one.method.upper())

    async def scenario(registry):
        for path, allowed in methods.items():
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
                async with registry.request("127.9.8.2", method, path, json={}) as response:
                    told = response.headers.get("Allow", "")
                    assert (response.status, set(told.split(","))) == (405, allowed), (method, path)

    run(tmp_path, scenario)

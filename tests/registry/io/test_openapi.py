"""The API and its OpenAPI document say the same, whoever asks whatever (schemathesis)."""

import asyncio
from dataclasses import replace

import pytest

from tests.registry.io.conforming import STREAMS, fuzz
from tests.registry.io.test_http import ALICE, BOB, ENROL, EVE, REGISTRY, invitation, member, run
from wgdisco.api import StunRecord
from wgdisco.registry.facts import Role
from wgdisco.registry.openapi import OPERATIONS, document

ADMIN = replace(member(5, "root"), role=Role.ADMIN)
SOURCES = {"member": "127.9.8.2", "admin": "127.9.8.5", "outsider": "127.9.8.99", "joiner": ENROL}


@pytest.fixture
def _unlimited(monkeypatch):
    monkeypatch.setattr("wgdisco.registry.io.http.ENROL_BURST", 1_000_000)


def fuzzed(tmp_path, who: str, count: int) -> dict[str, set[int]]:
    seen = {}

    async def scenario(registry):
        registry.api.stun = lambda _key: StunRecord(["198.51.100.10:3478"], "name", "secret", 300)
        async with registry.request("127.9.8.3", "GET", "/v1/events"):  # bob listens, so that there are orders
            url, streams = f"http://{REGISTRY}:{registry.port}", who in ("outsider", "joiner")
            seen.update(await asyncio.to_thread(fuzz, url, SOURCES[who], count, streams=streams))
        for one in (ALICE, BOB, EVE):
            assert (await registry.ask(f"127.9.8.{one.number}", "GET", "/v1/self"))[0] in (200, 403)

    run(tmp_path, scenario, ADMIN, invitation(uses=100_000))
    return seen


COUNTS = pytest.mark.parametrize("count", [15, pytest.param(400, marks=pytest.mark.soak)])


@pytest.mark.usefixtures("_unlimited")
@COUNTS
@pytest.mark.parametrize("who", ["member", "admin"])
def test_members_are_answered_as_the_document_says(tmp_path, who, count):
    seen = fuzzed(tmp_path, who, count)
    for operation in OPERATIONS:
        label = f"{operation.method.upper()} {operation.path}"
        if operation.path not in {*STREAMS, "/v1/enrol"}:
            assert operation.status in seen[label] or operation.path in NEEDS_SECRETS, label


# A proof, or a seal, that nobody guesses
NEEDS_SECRETS = {"/v1/self/rotate", "/v1/receipt"}


@COUNTS
@pytest.mark.usefixtures("_unlimited")
def test_an_outsider_is_told_nothing(tmp_path, count):
    assert set().union(*fuzzed(tmp_path, "outsider", count).values()) <= {400, 403, 404, 415}


@COUNTS
@pytest.mark.usefixtures("_unlimited")
def test_who_has_a_join_link_may_join_and_nothing_else(tmp_path, count):
    seen = fuzzed(tmp_path, "joiner", count)
    assert 200 in seen.pop("POST /v1/enrol")
    assert set().union(*seen.values()) <= {403}


def test_the_document_has_the_paths_that_are_served_and_no_others(tmp_path):
    async def scenario(registry):
        served = {
            (route.method.lower(), route.resource.canonical) for route in registry.api._runner.app.router.routes()
        }
        assert served == {(one.method, one.path) for one in OPERATIONS}
        status, told = await registry.ask("127.9.8.2", "GET", "/v1/openapi.json")
        assert (status, told) == (200, document())

    run(tmp_path, scenario)

"""The API and its OpenAPI document say the same, whoever asks whatever (schemathesis)."""

import asyncio
import json
from dataclasses import replace

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as conformance

from tests.registry.io.test_http import ALICE, BOB, ENROL, EVE, REGISTRY, invitation, member, run
from wgdisco.api import StunRecord
from wgdisco.registry.facts import Role
from wgdisco.registry.openapi import OPERATIONS, document

load_all_checks()
CHECKS = [
    not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
    conformance.negative_data_rejection,
]
ADMIN = replace(member(5, "root"), role=Role.ADMIN)
SOURCES = {"member": "127.9.8.2", "admin": "127.9.8.5", "outsider": "127.9.8.99", "joiner": ENROL}
# It has no end
STREAMS = {"/v1/events"}


class From(HTTPAdapter):
    """Requests that come from one address."""

    def __init__(self, source: str) -> None:
        self.source = source
        super().__init__()

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, source_address=(self.source, 0), **options)


def closed(told: dict) -> dict:
    """The document, of which no answer may have more than it says."""
    told = json.loads(json.dumps(told))
    components = told["components"]["schemas"]
    composed = set()
    for operations in told["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                for content in answer["content"].values():
                    content["schema"]["unevaluatedProperties"] = content["schema"] == {"type": "object"}
                    composed |= {part.get("$ref") for part in content["schema"].get("allOf", ())}
    for name, schema in components.items():
        if f"#/components/schemas/{name}" not in composed and not name.endswith(("Request", "Receipt")):
            schema["unevaluatedProperties"] = False
    return told


# What nobody guesses, to be put where it belongs
REAL = [
    {"peer": BOB.public_key.to_text(), "endpoint": "192.0.2.7:4500", "offers": ["192.168.7.0/24"]},
    {
        "peer": ALICE.public_key.to_text(),
        "endpoint": "[2001:db8::7]:53",
        "offers": ["0.0.0.0/0", "::/0"],
        "nat": "eim/apdf/-",
    },
    {"peer": EVE.public_key.to_text(), "endpoint": "10.1.2.3:9", "offers": ["127.9.8.0/24"], "nat": None},
]


def with_real(body, real: dict):
    if isinstance(body, list):
        return [with_real(one, real) for one in body]
    if not isinstance(body, dict):
        return body
    return {name: real.get(name, with_real(value, real)) for name, value in body.items()}


def fuzz(port: int, source: str, count: int) -> dict[str, set[int]]:
    """Ask for everything `count` times in each mode; which statuses came, by operation."""
    schema = schemathesis.openapi.from_dict(closed(document()))
    schema.config.update(base_url=f"http://{REGISTRY}:{port}")
    schema.config.checks.negative_data_rejection.expected_statuses = [400, 403, 404, 413, 429]
    seen: dict[str, set[int]] = {}
    with requests.Session() as session:
        session.mount("http://", From(source))
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path in STREAMS and source in (SOURCES["member"], SOURCES["admin"]):
                continue
            modes = [GenerationMode.POSITIVE, *([GenerationMode.NEGATIVE] if operation.body else [])]
            for mode in modes:
                seen.setdefault(operation.label, set()).update(ask(operation, mode, session, count))
    return seen


def ask(operation, mode, session, count) -> set[int]:
    seen = set()

    @seed(7)
    @settings(
        max_examples=count if operation.body else 3,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), st.sampled_from([None, *REAL]))
    def one(case, real):
        if real is not None and mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = with_real(case.body, real)
        response = case.call(session=session, timeout=10)
        seen.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    one()
    return seen


@pytest.fixture
def _unlimited(monkeypatch):
    monkeypatch.setattr("wgdisco.registry.io.http.ENROL_BURST", 1_000_000)


def fuzzed(tmp_path, who: str, count: int) -> dict[str, set[int]]:
    seen = {}

    async def scenario(registry):
        registry.api.stun = lambda _key: StunRecord(["198.51.100.10:3478"], "name", "secret", 300)
        async with registry.request("127.9.8.3", "GET", "/v1/events"):  # bob listens, so that there are orders
            seen.update(await asyncio.to_thread(fuzz, registry.port, SOURCES[who], count))
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

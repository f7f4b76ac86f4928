"""Ask a registry's API for whatever its document allows and forbids, and check the answers against it (schemathesis).

As a program, at a registry's address, from whatever host it runs on: `BASE_URL COUNT`; prints which statuses came.
"""

import json
import sys

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks as conformance

from wgdisco.keys import PublicKey
from wgdisco.registry.openapi import document
from wgdisco.registry.operations import API

load_all_checks()
CHECKS = [
    not_a_server_error,
    conformance.status_code_conformance,
    conformance.content_type_conformance,
    conformance.response_schema_conformance,
    conformance.negative_data_rejection,
]
# They have no end
STREAMS = {"/v1/events", "/v1/view/events"}


class From(HTTPAdapter):
    """Requests that come from one address."""

    def __init__(self, source: str | None) -> None:
        self.source = None if source is None else (source, 0)
        super().__init__()

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, source_address=self.source, **options)


def closed(told: dict) -> dict:
    """The document, of which no answer may have more than it says."""
    told = json.loads(json.dumps(told))
    components = told["components"]["schemas"]
    for name, schema in components.items():
        if not name.endswith(("Request", "Receipt")):
            components[name] = exact(schema, is_part=True)
    for operations in told["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                for content in answer["content"].values():
                    content["schema"] = exact(content["schema"])
    return told


def exact(schema, *, is_part=False):
    """The schema, of which no object may have more than it says; a part of `allOf` leaves that to the whole."""
    if not isinstance(schema, dict):
        return [exact(one) for one in schema] if isinstance(schema, list) else schema
    if "$ref" in schema:
        return schema if is_part else {"allOf": [schema], "unevaluatedProperties": False}
    found = dict(schema)
    for word in ("items", "anyOf"):
        if word in schema:
            found[word] = exact(schema[word])
    if "properties" in schema:
        found["properties"] = {name: exact(one) for name, one in schema["properties"].items()}
    if "allOf" in schema:
        found["allOf"] = [exact(one, is_part=True) for one in schema["allOf"]]
    if not is_part and ("properties" in schema or "allOf" in schema):
        found["unevaluatedProperties"] = False
    return found


def key(number: int) -> str:
    """Of alice, bob and eve in test_http.py."""
    return PublicKey(bytes([number]) * 32).to_text()


# What nobody guesses, to be put where it belongs
REAL = [
    {
        "peer": key(3),
        "public_key": key(3),
        "endpoint": "192.0.2.7:4500",
        "offers": ["192.168.7.0/24"],
        "name": "robert",
        "groups": ["all"],
        "expires": "24h",
    },
    {
        "peer": key(2),
        "public_key": key(2),
        "endpoint": "[2001:db8::7]:53",
        "offers": ["0.0.0.0/0", "::/0"],
        "nat": "eim/apdf/-",
        "name": None,
        "groups": None,
        "ephemeral": True,
    },
    {
        "peer": key(4),
        "public_key": key(4),
        "endpoint": "10.1.2.3:9",
        "offers": ["127.9.8.0/24"],
        "nat": None,
        "name": "carol",
        "groups": ["dev"],
        "expires": 60,
    },
]


def with_real(body, real: dict):
    if isinstance(body, list):
        return [with_real(one, real) for one in body]
    if not isinstance(body, dict):
        return body
    return {name: real.get(name, with_real(value, real)) for name, value in body.items()}


def fuzz(base_url: str, source: str | None, count: int, *, streams: bool = False) -> dict[str, set[int]]:
    """Ask for everything `count` times in each mode, from `source`; which statuses came, by operation.

    With `streams` for these too: whoever may not have them.
    """
    schema = schemathesis.openapi.from_dict(closed(document(API)))
    schema.config.update(base_url=base_url)
    schema.config.checks.negative_data_rejection.expected_statuses = ["400", "403", "404", "413", "429"]
    seen: dict[str, set[int]] = {}
    with requests.Session() as session:
        session.mount("http://", From(source))
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path in STREAMS and not streams:
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


if __name__ == "__main__":
    base_url, count = sys.argv[1:]
    print(json.dumps({label: sorted(seen) for label, seen in fuzz(base_url, None, int(count)).items()}))

"""The registry's API inside the tunnel as an OpenAPI 3.1 document: its paths here, its records from `api.py`.

Who asks is told by the address it asks from, so that there is no security scheme to name.
"""

import types
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from wgdisco.api import (
    HEARTBEAT_LEAST,
    HEARTBEAT_MOST,
    MAX_CANDIDATES,
    RECEIPT_MAX_SIZE,
    SCHEMA,
    CandidateKind,
    CandidateRecord,
    CandidatesRequest,
    EnrolRequest,
    MemberRecord,
    OffersRequest,
    PunchRequest,
    Receipt,
    RotateRequest,
    SelfRecord,
    StunRecord,
)
from wgdisco.offers import OFFERS_MAX

Schema = dict[str, Any]

_KEY: Schema = {"type": "string", "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$", "description": "a public key"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
# What a type alone does not say, by the name of a field, and by record and field where that is not enough
_FIELDS: dict[str, Schema] = {
    "public_key": _KEY,
    "registry_key": _KEY,
    "next_key": _KEY,
    "peer": _KEY,
    "priority": {"type": "integer", "minimum": 0, "maximum": (1 << 32) - 1},
    "CandidateRecord.kind": {"enum": [kind.value for kind in CandidateKind]},
    "MemberRecord.kind": {"enum": ["member", "device"]},
    "MemberRecord.role": {"enum": ["member", "admin"]},
    "EnrolRequest.name": {"type": "string", "maxLength": 255},
    "CandidatesRequest.candidates": {"maxItems": MAX_CANDIDATES},
    "CandidatesRequest.heartbeat": {"type": "integer", "minimum": HEARTBEAT_LEAST, "maximum": HEARTBEAT_MOST},
    "OffersRequest.offers": {"maxItems": OFFERS_MAX},
    "Receipt.receipt": {"type": "string", "minLength": 1, "maxLength": RECEIPT_MAX_SIZE},
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `answer` is of `status`; a dict of schemas stands for an object of these properties.

    `refusals` are the statuses it may answer with besides, and besides those of every path.
    """

    method: str
    path: str
    summary: str
    answer: type | Schema | None
    body: type | Schema | None = None
    status: int = 200
    refusals: tuple[int, ...] = ()


# The addresses of no member, a name that is not ours
_ALL = (403, 421)
# No JSON, too much of it, another content type, a disk that is full
_CHANGES = (400, 413, 415, 503)
_REFUSALS = {
    400: "the body is not what it should be",
    403: "who asks may not: no member, or not this member",
    404: "what is asked about is not there",
    409: "not now, or not with this",
    413: "the body is too large",
    415: "Content-Type is not application/json",
    421: "by that name nothing is served",
    429: "too often: wait a second",
    503: "the registry cannot store this now",
}
_EVENTS: Schema = {"type": "string", "description": "server-sent events"}

OPERATIONS = (
    Operation("get", "/v1/self", "Its own record, and the network's", SelfRecord),
    Operation(
        "get", "/v1/members", "Who shares a group with it", {"members": {"type": "array", "items": MemberRecord}}
    ),
    Operation("get", "/v1/events", "The same as it changes, and orders to punch", _EVENTS),
    Operation("get", "/v1/stun", "Where to ask how its NAT behaves", StunRecord, refusals=(404,)),
    Operation(
        "get",
        "/v1/health",
        "Whether the registry answers",
        {"status": {"const": "ok"}, "epoch": _COUNT, "time": _COUNT},
    ),
    Operation("get", "/v1/openapi.json", "This document", {"type": "object"}),
    Operation(
        "put",
        "/v1/self/candidates",
        "Where else it may be reached, and behind what NAT",
        {"candidates": {"type": "array", "items": CandidateRecord, "maxItems": MAX_CANDIDATES}},
        CandidatesRequest,
        refusals=(429,),
    ),
    Operation("put", "/v1/self/offers", "Subnets behind it", SelfRecord, OffersRequest, refusals=(429,)),
    Operation("post", "/v1/self/rotate", "The key it will go over to", SelfRecord, RotateRequest, refusals=(429,)),
    Operation(
        "post",
        "/v1/receipt",
        "What it kept for a registry that was restored",
        {"receipt": {"type": "string"}, "recalled": {"type": "boolean"}},
        Receipt,
    ),
    Operation(
        "post",
        "/v1/punch",
        "An order for both to punch, or no more need of the relay",
        {"order?": _COUNT},
        PunchRequest,
        status=202,
        refusals=(404, 409, 429),
    ),
    Operation("post", "/v1/enrol", "Become a member", SelfRecord, EnrolRequest, refusals=(404, 409, 429)),
)


def document(operations: Sequence[Operation] = OPERATIONS) -> dict[str, Any]:
    """The document, ready for JSON."""
    components: dict[str, Schema] = {}
    paths: dict[str, Any] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method] = _operation(one, components)
    error: Schema = {"schema": {"const": SCHEMA}, "error": {"type": "string"}}
    components["Error"] = _object(error, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "wgdisco registry",
            "version": "1",
            "description": "Inside the tunnel, at the registry's addresses, TCP port 80. Who asks is told by the"
            " address it asks from; what it does not share a group with does not exist for it.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(one: Operation, components: dict[str, Schema]) -> dict[str, Any]:
    answers: dict[str, Any] = {str(one.status): {"description": one.summary, **_content(one.answer, components)}}
    refusals = {*_ALL, *one.refusals, *(() if one.method == "get" else _CHANGES)}
    for status in sorted(refusals):
        schema = {"$ref": "#/components/schemas/Error"}
        answers[str(status)] = {
            "description": _REFUSALS[status],
            "content": {"application/json": {"schema": schema}},
        }
    told: dict[str, Any] = {"summary": one.summary, "responses": answers}
    if one.body is not None:
        told["requestBody"] = {"required": True, **_content(one.body, components)}
    return told


def _content(what: type | Schema | None, components: dict[str, Schema]) -> dict[str, Any]:
    if what is None:
        return {}
    if what is _EVENTS:
        return {"content": {"text/event-stream": {"schema": _EVENTS}}}
    if isinstance(what, dict):
        schema = (
            what if isinstance(what.get("type"), str) else _object({"schema": {"const": SCHEMA}, **what}, components)
        )
    else:
        # over the wire a record bears the number of the format, which a request may leave out
        is_request = what.__name__.endswith("Request") or what is Receipt
        number = {"properties": {"schema": {"const": SCHEMA}}, **({} if is_request else {"required": ["schema"]})}
        schema = {"allOf": [_of(what, components), number]}
    return {"content": {"application/json": {"schema": schema}}}


def _object(properties: dict[str, Any], components: dict[str, Schema]) -> Schema:
    """An object of these; a name with a question mark need not be there."""
    found: Schema = {"type": "object", "properties": {}, "required": []}
    for name, what in properties.items():
        items = what.get("items")
        schema = {**what, "items": _of(items, components)} if isinstance(items, type) else what
        found["properties"][name.removesuffix("?")] = schema
        if not name.endswith("?"):
            found["required"].append(name)
    return found


def _of(kind: Any, components: dict[str, Schema]) -> Schema:
    """The schema of a type: a record of its own becomes a component."""
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if is_dataclass(kind) and isinstance(kind, type):
        if kind.__name__ not in components:
            components[kind.__name__] = {}  # it may hold itself
            components[kind.__name__] = _record(kind, components)
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of(one, components) for one in inner]}
    if origin is list:
        return {"type": "array", "items": _of(inner[0], components)}
    raise TypeError(f"there is no schema for {kind}")


_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def _record(kind: type, components: dict[str, Schema]) -> Schema:
    hints, properties = get_type_hints(kind), {}
    for field in fields(kind):
        schema = _of(hints[field.name], components)
        more = _FIELDS.get(f"{kind.__name__}.{field.name}", _FIELDS.get(field.name))
        if more is not None and "anyOf" in schema:
            schema = {"anyOf": [more, {"type": "null"}]}
        elif more is not None:
            schema = {**schema, **more}
        properties[field.name] = schema
    is_request = kind.__name__.endswith("Request")
    needed = [one.name for one in fields(kind) if not is_request or one.default is MISSING]
    about = (kind.__doc__ or "").partition("\n\n")[0].replace("`", "")
    return {"type": "object", "description": about, "properties": properties, "required": needed}

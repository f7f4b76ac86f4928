"""What may be asked of the registry's API inside the tunnel: every path, in the words of OpenAPI.

Who asks is told by the address it asks from, so that there is no security scheme to name.
"""

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
    NetworkRecord,
    OffersRequest,
    PathWord,
    PunchRequest,
    Reason,
    Receipt,
    RotateRequest,
    SelfRecord,
    StunRecord,
)
from wgdisco.offers import OFFERS_MAX
from wgdisco.paths import PATHS_MAX, RTT_MAX, UNIX_MAX, PathRecord, PathsRequest
from wgdisco.proof import LeaveRequest
from wgdisco.registry.admin import GROUPS_MAX, LIFETIME_MAX, USES_MAX
from wgdisco.registry.openapi import Api, Operation, Schema, json_object, list_of, or_null

_NUMBER: Schema = {"const": SCHEMA}
_TEXT, _FLAG, _COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "integer", "minimum": 0}
_KEY: Schema = {"type": "string", "pattern": "^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$"}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 255}
_ROLE: Schema = {"enum": ["member", "admin"]}
_COUNTS: Schema = {"type": "object", "additionalProperties": _COUNT}
_63_BITS: Schema = {"type": "integer", "minimum": 0, "maximum": (1 << 63) - 1}

_DETAILS: dict[str, Schema] = {
    "public_key": _KEY,
    "registry_key": _KEY,
    "next_key": _KEY,
    "peer": _KEY,
    "priority": {"type": "integer", "minimum": 0, "maximum": (1 << 32) - 1},
    "CandidateRecord.kind": {"enum": [kind.value for kind in CandidateKind]},
    "MemberRecord.kind": {"enum": ["member", "device"]},
    "MemberRecord.role": _ROLE,
    "EnrolRequest.name": {"type": "string", "maxLength": 255},
    "CandidatesRequest.candidates": {"maxItems": MAX_CANDIDATES},
    "CandidatesRequest.heartbeat": {"type": "integer", "minimum": HEARTBEAT_LEAST, "maximum": HEARTBEAT_MOST},
    "OffersRequest.offers": {"maxItems": OFFERS_MAX},
    "Receipt.receipt": {"type": "string", "minLength": 1, "maxLength": RECEIPT_MAX_SIZE},
    "PathRecord.path": {"enum": [word.value for word in PathWord]},
    "PathRecord.reason": {"enum": [reason.value for reason in Reason]},
    "PathRecord.rtt_ms": {"type": "number", "minimum": 0, "maximum": RTT_MAX},
    "PathRecord.handshake_at": {"type": "integer", "minimum": 0, "maximum": UNIX_MAX},
    "PathRecord.rx_bytes": _63_BITS,
    "PathRecord.tx_bytes": _63_BITS,
    "PathsRequest.paths": {"maxItems": PATHS_MAX},
}


def _told(record: type) -> Schema:
    """A record over the wire bears the number of the format."""
    return {"allOf": [record, json_object(schema=_NUMBER)]}


def _asked(record: type) -> Schema:
    """A request may."""
    return {"allOf": [record, json_object(schema_=_NUMBER)]}


# No member, or not this one; a name that is not ours. And: no JSON, too late, too much of it, no room to store it
_READ = (403, 421)
_CHANGE = (*_READ, 400, 408, 413, 415, 503)
_STATUSES = {
    400: "the body is not what it should be",
    403: "who asks may not: no member, or not this one",
    404: "what is asked about is not there",
    408: "the body came too slowly",
    409: "not now, or not with this",
    413: "the body is too large",
    415: "Content-Type is not application/json",
    421: "by that name nothing is served",
    429: "too often: wait a second",
    503: "the registry cannot store this now",
}
_EVENTS: Schema = {"type": "string", "description": "server-sent events"}
_STREAM = "text/event-stream"

_MEMBERS = (
    Operation("get", "/v1/self", "Its own record, and the network's", _told(SelfRecord), refusals=_READ),
    Operation(
        "get",
        "/v1/members",
        "Who shares a group with it",
        json_object(schema=_NUMBER, members=list_of(MemberRecord)),
        refusals=_READ,
    ),
    Operation(
        "get", "/v1/events", "The same as it changes, and orders to punch", _EVENTS, refusals=_READ, media=_STREAM
    ),
    Operation("get", "/v1/stun", "Where to ask how its NAT behaves", _told(StunRecord), refusals=(*_READ, 404)),
    Operation(
        "get",
        "/v1/health",
        "Whether the registry answers",
        json_object(schema=_NUMBER, status={"const": "ok"}, epoch=_COUNT, time=_COUNT),
        refusals=_READ,
    ),
    Operation("get", "/v1/openapi.json", "This document", {"type": "object"}, refusals=_READ),
    Operation(
        "put",
        "/v1/self/candidates",
        "Where else it may be reached, and behind what NAT",
        json_object(schema=_NUMBER, candidates=list_of(CandidateRecord, maxItems=MAX_CANDIDATES)),
        _asked(CandidatesRequest),
        refusals=(*_CHANGE, 429),
    ),
    Operation(
        "put",
        "/v1/self/paths",
        "How it reaches others; how many of that it may know of",
        json_object(schema=_NUMBER, paths=_COUNT),
        _asked(PathsRequest),
        refusals=(*_CHANGE, 429),
    ),
    Operation(
        "put",
        "/v1/self/offers",
        "Subnets behind it",
        _told(SelfRecord),
        _asked(OffersRequest),
        refusals=(*_CHANGE, 429),
    ),
    Operation(
        "post",
        "/v1/self/rotate",
        "The key it will go over to",
        _told(SelfRecord),
        _asked(RotateRequest),
        refusals=(*_CHANGE, 429),
    ),
    Operation(
        "delete",
        "/v1/self",
        "It is a member no longer",
        json_object(schema=_NUMBER),
        _asked(LeaveRequest),
        status=202,
        refusals=(*_CHANGE, 429),
    ),
    Operation(
        "post",
        "/v1/receipt",
        "What it kept for a registry that was restored",
        json_object(schema=_NUMBER, receipt=_TEXT, recalled=_FLAG),
        _asked(Receipt),
        refusals=_CHANGE,
    ),
    Operation(
        "post",
        "/v1/punch",
        "An order for both to punch, or no more need of the relay",
        json_object(schema=_NUMBER, order_=_COUNT),
        _asked(PunchRequest),
        status=202,
        refusals=(*_CHANGE, 404, 409, 429),
    ),
    Operation(
        "post",
        "/v1/enrol",
        "Who has a join link becomes a member",
        _told(SelfRecord),
        _asked(EnrolRequest),
        refusals=(*_CHANGE, 404, 409, 429),
    ),
)

_ROW: Schema = {
    "allOf": [
        MemberRecord,
        json_object(
            online=_FLAG,
            seen_at=or_null(_COUNT),
            handshake_at=or_null(_COUNT),
            rx_bytes=_COUNT,
            tx_bytes=_COUNT,
            paths=list_of(PathRecord),
            paths_at=or_null(_COUNT),
            history=json_object(interval={"type": "number"}, rx=list_of(_COUNT), tx=list_of(_COUNT)),
        ),
    ]
}
_INVITATION = json_object(
    id=_KEY,
    name=or_null(_TEXT),
    groups=list_of(_TEXT),
    role=_ROLE,
    uses_left={"type": "integer"},
    expires_at=_COUNT,
    state={"enum": ["pending", "used", "expired"]},
    used_by=list_of(_TEXT),
    ephemeral=_FLAG,
)
_TIME: Schema = {"anyOf": [{"type": "string"}, {"type": "number", "minimum": 1, "maximum": LIFETIME_MAX}]}
_DONE = json_object(schema=_NUMBER)

_PEOPLE = (
    Operation(
        "get",
        "/v1/view",
        "What the network looks like to it",
        json_object(
            schema=_NUMBER,
            time=_COUNT,
            serial=or_null(_COUNT),
            network=NetworkRecord,
            self=json_object(public_key=_KEY, name=_TEXT, role=_ROLE),
            members=list_of(_ROW),
            invitations=list_of(_INVITATION),
            drops=_COUNTS,
            relay=json_object(is_there_=_FLAG, packets_=_COUNT, bytes_=_COUNT, drops_=_COUNTS),
        ),
        refusals=(*_READ, 429),
    ),
    Operation("get", "/v1/view/events", "The same as it changes", _EVENTS, refusals=(*_READ, 429), media=_STREAM),
    Operation(
        "post",
        "/v1/invite",
        "An admin makes a join link",
        json_object(schema=_NUMBER, id=_KEY, link=_TEXT, qr=_TEXT, expires_at=_COUNT, was_revoked=_FLAG),
        json_object(
            schema_=_NUMBER,
            name_=or_null(_NAME),
            groups_=or_null(list_of(_NAME, maxItems=GROUPS_MAX)),
            admin_=_FLAG,
            uses_={"type": "integer", "minimum": 1, "maximum": USES_MAX},
            expires_=or_null(_TIME),
            ephemeral_={"anyOf": [_FLAG, _TIME, {"type": "null"}]},
        ),
        refusals=(*_CHANGE, 409, 429),
    ),
    Operation(
        "post",
        "/v1/invite/cancel",
        "An admin takes one back",
        _DONE,
        json_object(schema_=_NUMBER, id=_KEY),
        refusals=(*_CHANGE, 404, 409, 429),
    ),
    Operation(
        "post",
        "/v1/rename",
        "An admin renames a member",
        _DONE,
        json_object(schema_=_NUMBER, public_key=_KEY, name=_NAME),
        refusals=(*_CHANGE, 404, 409, 429),
    ),
    Operation(
        "post",
        "/v1/revoke",
        "An admin revokes a member",
        json_object(schema=_NUMBER, told=list_of(_TEXT), unseen=list_of(_TEXT)),
        json_object(schema_=_NUMBER, public_key=_KEY),
        refusals=(*_CHANGE, 404, 409, 429),
    ),
)

API = Api(
    {
        "title": "wgdisco registry",
        "version": str(SCHEMA),
        "description": "Inside the tunnel, at the registry's addresses, TCP port 80. Who asks is told by the address it"
        " asks from; what it does not share a group with does not exist for it.",
    },
    (*_MEMBERS, *_PEOPLE),
    _STATUSES,
    _DETAILS,
    json_object(schema=_NUMBER, error=_TEXT),
)

"""An OpenAPI 3.1 document of operations on records: schemas are made of dataclasses, as `asdict` has them."""

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

# A JSON schema, in which a dataclass stands for the schema of its records
Schema = dict[str, Any]

_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `answer` is of `status`, `refusals` the statuses it may answer with besides.

    `media` is the answer's type. A `body` is JSON.
    """

    method: str
    path: str
    summary: str
    answer: Schema
    body: Schema | None = None
    status: int = 200
    refusals: tuple[int, ...] = ()
    media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Api:
    """`info` is the document's, `statuses` say in words what each refusal is.

    `details` are what a type alone does not say, by the name of a field, or by record and field. A refusal is a
    `refusal`.
    """

    info: Schema
    operations: Sequence[Operation]
    statuses: Mapping[int, str]
    details: Mapping[str, Schema]
    refusal: Schema


def json_object(**properties: Any) -> Schema:
    """The schema of an object; a name that ends with an underscore need not be there."""
    return {
        "type": "object",
        "properties": {name.removesuffix("_"): schema for name, schema in properties.items()},
        "required": [name for name in properties if not name.endswith("_")],
    }


def list_of(items: Any, **more: int) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": items, **more}


def or_null(schema: Any) -> Schema:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def document(api: Api) -> dict[str, Any]:
    """The document, ready for JSON."""
    schemas = _Schemas(api.details)
    paths: dict[str, Any] = {}
    for one in api.operations:
        told: dict[str, Any] = {"summary": one.summary}
        if one.body is not None:
            content = {"application/json": {"schema": schemas.resolved(one.body)}}
            told["requestBody"] = {"required": True, "content": content}
        answers = {one.status: (one.summary, one.media, one.answer)}
        for status in one.refusals:
            answers[status] = (api.statuses[status], "application/json", api.refusal)
        told["responses"] = {
            str(status): {"description": text, "content": {media: {"schema": schemas.resolved(schema)}}}
            for status, (text, media, schema) in sorted(answers.items())
        }
        paths.setdefault(one.path, {})[one.method] = told
    return {"openapi": "3.1.0", "info": api.info, "paths": paths, "components": {"schemas": schemas.components}}


class _Schemas:
    def __init__(self, details: Mapping[str, Schema]) -> None:
        self.components: dict[str, Schema] = {}
        self._details = details

    def resolved(self, schema: Any) -> Any:
        """The schema with references in the place of dataclasses."""
        if isinstance(schema, dict):
            return {name: self.resolved(part) for name, part in schema.items()}
        if isinstance(schema, list):
            return [self.resolved(part) for part in schema]
        return self._of(schema) if isinstance(schema, type) else schema

    def _of(self, kind: Any) -> Schema:
        if kind in _SIMPLE:
            return {"type": _SIMPLE[kind]}
        if is_dataclass(kind) and isinstance(kind, type):
            if kind.__name__ not in self.components:
                self.components[kind.__name__] = self._record(kind)
            return {"$ref": f"#/components/schemas/{kind.__name__}"}
        origin, inner = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType):
            return {"anyOf": [self._of(one) for one in inner]}
        if origin is list:
            return {"type": "array", "items": self._of(inner[0])}
        raise TypeError(f"there is no schema for {kind}")

    def _record(self, kind: Any) -> Schema:
        """What we tell has all fields; what we are told may lack those that have a default."""
        hints, is_request = get_type_hints(kind), kind.__name__.endswith("Request")
        properties = {
            name: self._field(kind.__name__, name, hints[name]) for name in (one.name for one in fields(kind))
        }
        needed = [one.name for one in fields(kind) if not is_request or one.default is MISSING]
        about = (kind.__doc__ or "").partition("\n\n")[0].replace("`", "")
        return {"type": "object", "description": about, "properties": properties, "required": needed}

    def _field(self, record: str, name: str, kind: Any) -> Schema:
        schema = self._of(kind)
        more = self._details.get(f"{record}.{name}", self._details.get(name))
        if more is None:
            return schema
        return or_null(more) if {"type": "null"} in schema.get("anyOf", ()) else {**schema, **more}

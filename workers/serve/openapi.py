"""The service's OpenAPI 3.1 document, of the schemas that requests and messages are checked against.

OpenAPI 3.1 has JSON Schema 2020-12 inside, so the topics' schemas are taken as they are; only their references change.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from importlib.metadata import version
from typing import Any, Final

from workers.config import ServeSettings
from workers.messages import json_schemas
from workers.serve.tag_requests import DOCUMENT_SCHEMA, OPTIONS_SCHEMA, REQUEST_SCHEMA

__all__ = ["openapi_document"]

Json = dict[str, Any]

_COMMON: Final = "urn:el4ner:schemas:common:v1#/$defs/"
_COMPONENTS: Final = "#/components/schemas/"
_NOT_READY: Final = "Not ready: models are being loaded, the service stops, or an engine is away."
_PROBLEMS: Final[Mapping[int, str]] = {
    400: "The body is not JSON, the Host header is not allowed, or the body's length is stated twice.",
    401: "The token is missing or wrong.",
    408: "The body did not come in time.",
    413: "The body is too large, or has too many texts.",
    415: "The body is not application/json.",
    422: "The JSON is not a request, or no text of it could be tagged; `documents` says why of each then.",
    429: "Too much is accepted and not answered yet. Retry-After says in how many seconds to come back.",
    500: "An engine failed on the texts.",
    503: _NOT_READY,
    504: "Not answered in time.",
}
_EXAMPLES: Final[Json] = {
    "texts": {"value": {"texts": ["Ada Lovelace met Charles Babbage in London."]}},
    "documents": {
        "value": {
            "documents": [
                {"id": "a1", "text": "Ada Lovelace met Charles Babbage in London.", "metadata": {"from": "x"}}
            ],
            "options": {"min_confidence": 0.1, "overlaps": "nested"},
        }
    },
}
_RETRY: Final = frozenset({429, 503})

_PROBLEM: Final[Json] = {
    "title": "Problem",
    "description": "What is wrong (RFC 9457).",
    "type": "object",
    "required": ["title", "status", "code", "detail"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable: the same in logs and dead letters."},
        "detail": {"type": "string", "description": "What, where, and how to mend it."},
        "documents": {"type": "array", "items": {"$ref": f"{_COMPONENTS}TaggedDocument"}},
    },
}
_POOL: Final[Json] = {
    "title": "Pool",
    "type": "object",
    "required": ["name", "text_kind", "sentences", "fingerprint", "types"],
    "properties": {
        "name": {"type": "string"},
        "text_kind": {"enum": ["prose", "log"]},
        "sentences": {"type": "integer", "minimum": 1},
        "fingerprint": {"type": "string", "description": "Of all that the method reads of it."},
        "types": {
            "type": "array",
            "items": {
                "title": "PoolType",
                "type": "object",
                "required": ["name", "description"],
                "properties": {"name": {"type": "string"}, "description": {"type": "string"}},
            },
        },
    },
}


def openapi_document(settings: ServeSettings, pools: Collection[str]) -> Json:
    """The document of a service with these settings and pools."""
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "el4ner",
            "version": version("el4ner"),
            "description": "Marks the named entities in text, with an ensemble of small language models.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": _paths(),
        "components": {"schemas": _schemas(settings, pools)},
    }
    if settings.has_token:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
    return document


def _paths() -> Json:
    read = {"400": _problem(400), "401": _problem(401)}
    tag: Json = {
        "operationId": "tag",
        "summary": "Tag one or many texts",
        "description": "Texts of several requests are asked together. A text that cannot be tagged has the status "
        "failed and an error in its place, and costs the others nothing.",
        "requestBody": {
            "required": True,
            "content": {"application/json": {**_json("TagRequest")["application/json"], "examples": _EXAMPLES}},
        },
        "responses": {
            "200": {"description": "A tagged document for each text, in their order.", "content": _json("TagAnswer")},
            **{str(status): _problem(status) for status in _PROBLEMS},
        },
    }
    pools: Json = {
        "operationId": "pools",
        "summary": "The pools that are hosted here, and their entity types",
        "responses": {
            "200": {"description": "The pools.", "content": _json("Pools")},
            **read,
            "503": _problem(503),
        },
    }
    return {"/v1/tag": {"post": tag}, "/v1/pools": {"get": pools}}


def _problem(status: int) -> Json:
    problem: Json = {
        "description": _PROBLEMS[status],
        "content": {"application/problem+json": {"schema": {"$ref": f"{_COMPONENTS}Problem"}}},
    }
    if status in _RETRY:
        problem["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}, "description": "Seconds."}}
    return problem


def _json(name: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"{_COMPONENTS}{name}"}}}


def _schemas(settings: ServeSettings, pools: Collection[str]) -> Json:
    request = copy.deepcopy(dict(REQUEST_SCHEMA))
    properties = request["properties"]
    for name in ("texts", "documents"):
        properties[name]["maxItems"] = settings.max_texts
    properties["documents"]["items"] = {"$ref": f"{_COMPONENTS}Document"}
    properties["options"] = {"$ref": f"{_COMPONENTS}Options"}
    properties["pool"] = {"enum": sorted(pools), "description": properties["pool"]["description"]}
    # Either, and not both. As oneOf, generators of clients would make two classes of it.
    request["if"] = {"required": ["texts"]}
    request["then"] = {"not": {"required": ["documents"]}}
    request["else"] = {"required": ["documents"]}
    tagged = _own(json_schemas.load("tagged-documents"))
    documents = {"type": "array", "items": {"$ref": f"{_COMPONENTS}TaggedDocument"}}
    schemas: Json = {
        "TagRequest": request,
        "Document": copy.deepcopy(dict(DOCUMENT_SCHEMA)),
        "Options": copy.deepcopy(dict(OPTIONS_SCHEMA)),
        "TagAnswer": {
            "title": "TagAnswer",
            "type": "object",
            "required": ["documents"],
            "properties": {"documents": documents},
        },
        "TaggedDocument": {**tagged, "title": "TaggedDocument", "description": "As in the topic tagged-documents."},
        "Pools": {
            "title": "Pools",
            "type": "object",
            "required": ["default", "pools"],
            "properties": {
                "default": {"type": "string", "description": "The pool of texts that name none."},
                "pools": {"type": "array", "items": {"$ref": f"{_COMPONENTS}Pool"}},
            },
        },
        "Pool": _POOL,
        "Problem": _PROBLEM,
    }
    shared = json_schemas.load(json_schemas.COMMON)["$defs"]
    wanted = _references(schemas)
    while missing := wanted - schemas.keys():
        for name in missing:
            schemas[name] = _own(shared[name[0].lower() + name[1:]])
        wanted = _references(schemas)
    return schemas


def _own(schema: Any) -> Any:
    """The schema with its references to shared parts as references to components."""
    if isinstance(schema, list):
        return [_own(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    own = {key: _own(value) for key, value in schema.items() if key not in ("$schema", "$id")}
    reference = own.get("$ref")
    if isinstance(reference, str):
        name = reference.removeprefix(_COMMON).removeprefix("#/$defs/")
        own["$ref"] = f"{_COMPONENTS}{name[0].upper()}{name[1:]}"
    return own


def _references(schema: Any) -> set[str]:
    if isinstance(schema, Mapping):
        found = set().union(*map(_references, schema.values())) if schema else set()
        reference = schema.get("$ref")
        return found | {reference.removeprefix(_COMPONENTS)} if isinstance(reference, str) else found
    return set().union(*map(_references, schema)) if isinstance(schema, list) else set()

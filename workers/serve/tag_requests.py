"""From a request's body to documents: what is read, and what is refused as a whole.

:data:`REQUEST_SCHEMA` is what the body is checked against, and what the service's OpenAPI document shows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import jsonschema_rs
import orjson

from el4ner.nearest import choices, nearest_hint
from el4ner.text.overlaps import OverlapPolicy
from el4ner.types import Document
from workers.http.problems import ProblemError
from workers.messages import json_schemas
from workers.messages.nesting import MOST_METADATA_LEVELS, is_nested_too_deep, may_be_nested_too_deep

__all__ = ["DOCUMENT_SCHEMA", "OPTIONS_SCHEMA", "REQUEST_SCHEMA", "TagOptions", "TextToTag", "read_tag_request"]

_COMMON: Final = json_schemas.load(json_schemas.COMMON)["$defs"]

DOCUMENT_SCHEMA: Final[Mapping[str, Any]] = {
    "title": "Document",
    "description": "A text to tag, as in the topic documents. Unlike there, a field that is not known is an error.",
    "type": "object",
    "required": ["text"],
    "additionalProperties": False,
    "properties": {
        "text": {"type": "string"},
        "id": {**_COMMON["documentId"], "description": "Without one: its position in the request, from 0."},
        "pool": {**_COMMON["poolName"], "description": "Without one: the request's."},
        "revision": _COMMON["revision"],
        "metadata": {"type": "object", "description": "Handed on to the tagged document, unread."},
    },
}

OPTIONS_SCHEMA: Final[Mapping[str, Any]] = {
    "title": "Options",
    "description": "What may differ from the service's configuration.",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "min_confidence": {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Entities below it are left out; without one: method.min_confidence.",
        },
        "overlaps": {
            "enum": ["flat", "nested"],
            "description": "Whether an entity may lie inside another one; without it: method.overlaps.",
        },
    },
}

REQUEST_SCHEMA: Final[Mapping[str, Any]] = {
    "title": "TagRequest",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "texts": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string"},
            "description": "Texts alone. Either these, or documents.",
        },
        "documents": {
            "type": "array",
            "minItems": 1,
            "items": DOCUMENT_SCHEMA,
            "description": "Texts with an id, a pool or metadata of their own.",
        },
        "pool": {**_COMMON["poolName"], "description": "The pool of all texts that name none."},
        "options": OPTIONS_SCHEMA,
    },
}
_VALIDATOR: Final = jsonschema_rs.Draft202012Validator(dict(REQUEST_SCHEMA), mask="the value", offline=True)


@dataclass(frozen=True, slots=True)
class TagOptions:
    """What a request wants otherwise than the service is configured; None: as configured."""

    min_confidence: float | None = None
    overlaps: OverlapPolicy | None = None


@dataclass(frozen=True, slots=True)
class TextToTag:
    """One text of a request."""

    document: Document
    options: TagOptions
    metadata: Mapping[str, Any] | None = None


def read_tag_request(body: bytes, *, pools: Collection[str], max_texts: int) -> list[TextToTag]:
    """The texts of a request.

    Raises:
        ProblemError: 400: no JSON; 413: too many texts; 422: JSON that says something else, or a pool that is not here.
    """
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        detail = f"the body is not JSON in UTF-8: {error}"
        raise ProblemError(HTTPStatus.BAD_REQUEST, "json", detail) from None
    for name in ("texts", "documents"):
        # First, since each of a million items might have a mistake that takes its time to be found.
        if isinstance(data, dict) and isinstance(items := data.get(name), list) and len(items) > max_texts:
            detail = (
                f"the request has {len(items)} {name}, more than serve.max_texts = {max_texts}: send several requests"
            )
            raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-many-texts", detail)
    if (mistakes := json_schemas.mistakes_in(_VALIDATOR, data)) is not None:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "schema", f"not a tag request: {mistakes}")
    if ("texts" in data) == ("documents" in data):
        detail = "not a tag request: /: expected texts or documents, one of the two"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "schema", detail)
    items = data["documents"] if "documents" in data else [{"text": text} for text in data["texts"]]
    for number, item in enumerate(items if may_be_nested_too_deep(body) else ()):
        if "metadata" in item and is_nested_too_deep(item["metadata"]):
            detail = f"not a tag request: /documents/{number}/metadata: is nested more than {MOST_METADATA_LEVELS} deep"
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "schema", detail)
    pool = data.get("pool")
    if pool is not None and pool not in pools:
        hint = f"{nearest_hint(pool, pools)}; there are: {choices(sorted(pools))}"
        detail = f"/pool: no pool {pool!r} is hosted here{hint}"
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "unknown-pool", detail)
    options = TagOptions(**data.get("options", {}))
    return [
        TextToTag(
            Document(
                id=item.get("id", str(number)),
                text=item["text"],
                pool=item.get("pool", pool),
                revision=int(item.get("revision", 0)),
            ),
            options,
            item.get("metadata"),
        )
        for number, item in enumerate(items)
    ]

"""The values of :mod:`el4ner.types` as plain JSON data and back: the one place that knows how they look outside.

``X_to_json`` gives what ``orjson`` can write; ``X_from_json`` expects what the JSON Schemas in ``schemas/`` allow (the
caller has validated it), passes over unknown fields, and checks what a schema cannot say: that every offset fits the
document's text.
"""

from el4ner.serialize.json_bytes import canonical, dumps, fingerprint
from el4ner.serialize.stage_results import (
    answers_from_json,
    answers_to_json,
    candidates_from_json,
    candidates_to_json,
    entities_from_json,
    entities_to_json,
    manifest_from_json,
    manifest_to_json,
    types_from_json,
    types_to_json,
    usage_from_json,
    usage_to_json,
)
from el4ner.serialize.tagged_documents import (
    document_from_json,
    document_to_json,
    entity_from_json,
    entity_to_json,
    tagged_from_json,
    tagged_to_json,
    verdict_from_json,
    verdict_to_json,
)

__all__ = [
    "answers_from_json",
    "answers_to_json",
    "candidates_from_json",
    "candidates_to_json",
    "canonical",
    "document_from_json",
    "document_to_json",
    "dumps",
    "entities_from_json",
    "entities_to_json",
    "entity_from_json",
    "entity_to_json",
    "fingerprint",
    "manifest_from_json",
    "manifest_to_json",
    "tagged_from_json",
    "tagged_to_json",
    "types_from_json",
    "types_to_json",
    "usage_from_json",
    "usage_to_json",
    "verdict_from_json",
    "verdict_to_json",
]

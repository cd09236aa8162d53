"""Documents and their entities, as JSON: what users hand in and get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from el4ner.errors import MessageError
from el4ner.types import Document, Entity, TaggedDocument, Verdict

__all__ = [
    "Json",
    "check_offsets",
    "document_from_json",
    "document_to_json",
    "entity_from_json",
    "entity_to_json",
    "tagged_from_json",
    "tagged_to_json",
    "verdict_from_json",
    "verdict_to_json",
]

Json = Mapping[str, Any]


def document_to_json(document: Document) -> dict[str, Any]:
    """A document."""
    return {"id": document.id, "revision": document.revision, "text": document.text, "pool": document.pool}


def document_from_json(data: Json) -> Document:
    """Unknown fields are passed over."""
    return Document(id=data["id"], text=data["text"], pool=data.get("pool"), revision=data.get("revision", 0))


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """What the verifier said."""
    return {"holds": verdict.holds, "probability": verdict.probability, "verifier": verdict.verifier}


def verdict_from_json(data: Json) -> Verdict:
    """Unknown fields are passed over."""
    return Verdict(data["holds"], float(data["probability"]), data.get("verifier"))


def entity_to_json(entity: Entity) -> dict[str, Any]:
    """An entity, as ``el4ner tag --format json`` prints it."""
    return {
        "start": entity.start,
        "end": entity.end,
        "text": entity.text,
        "type": entity.type,
        "confidence": entity.confidence,
        "proposed_by": list(entity.proposed_by),
        "votes": dict(entity.votes),
        "verdict": None if entity.verdict is None else verdict_to_json(entity.verdict),
    }


def entity_from_json(data: Json) -> Entity:
    """Unknown fields are passed over."""
    verdict = data.get("verdict")
    return Entity(
        start=data["start"],
        end=data["end"],
        text=data["text"],
        type=data["type"],
        confidence=float(data["confidence"]),
        proposed_by=tuple(data["proposed_by"]),
        votes=dict(data["votes"]),
        verdict=None if verdict is None else verdict_from_json(verdict),
    )


def tagged_to_json(tagged: TaggedDocument) -> dict[str, Any]:
    """A tagged document, as ``el4ner tag --format json`` prints it."""
    return {
        "id": tagged.id,
        "text": tagged.text,
        "entities": [entity_to_json(entity) for entity in tagged.entities],
        "pool": tagged.pool,
    }


def tagged_from_json(data: Json) -> TaggedDocument:
    """Raises ``MessageError`` if an entity is not where it says."""
    text = data["text"]
    entities = tuple(entity_from_json(entity) for entity in data["entities"])
    for index, entity in enumerate(entities):
        check_offsets(text, entity.start, entity.end, entity.text, f"/entities/{index}")
    return TaggedDocument(id=data["id"], text=text, entities=entities, pool=data["pool"])


def check_offsets(text: str, start: int, end: int, surface: str, at: str) -> None:
    """Raises ``MessageError`` if the span is not where it says. ``at``: where in the JSON that is."""
    if not 0 <= start <= end <= len(text) or text[start:end] != surface:
        raise MessageError(f"{at}: the document's text at {start}:{end} is not the span's {surface[:80]!r}")

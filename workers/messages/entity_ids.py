"""The ids of a document's entities, as its messages have them: of the names that its mentions have in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from el4ner.canonical.in_document import full_names
from el4ner.canonical.names import entity_id

__all__ = ["entity_ids", "with_entity_ids"]


def entity_ids(tagged: Mapping[str, Any]) -> list[str]:
    """The id of each entity of a tagged document, in their order.

    They follow from the types and texts of the document's entities alone, so every process gives the same ones.
    """
    entities = tagged["entities"]
    names = full_names([(entity["type"], entity["text"]) for entity in entities])
    return [entity_id(entity["type"], name) for entity, name in zip(entities, names, strict=True)]


def with_entity_ids(tagged: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    """The tagged document with the ids (:func:`entity_ids`) in its entities. The one that was handed in stays as it
    is."""
    entities = [{**entity, "entity_id": each} for entity, each in zip(tagged["entities"], ids, strict=True)]
    return {**tagged, "entities": entities}

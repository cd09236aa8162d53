"""A tagged document as the page gets it: bounded, its text in pieces, every other string with its controls escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from el4ner.pools.review_queue import QueuedSentence
from el4ner.serialize import entity_to_json
from workers.printable import escaped
from workers.ui.text_pieces import text_pieces

__all__ = ["MOST_CHARS", "shown_document", "shown_sentence", "shown_string"]

MOST_CHARS: Final = 4_000
"""Of a document's text; the rest is counted."""
_MOST_ENTITIES: Final = 400
_MOST_STRING: Final = 300
_MOST_WORDS: Final = 8


def shown_string(value: Any) -> str:
    """A name, code or message from a message: in one line, cut, and without anything that a screen would obey."""
    text = str(value)
    return escaped(text if len(text) <= _MOST_STRING else f"{text[:_MOST_STRING]}…", lines=False)


def shown_document(value: Mapping[str, Any], *, place: str = "", timestamp_ms: int | None = None) -> dict[str, Any]:
    """``value``: as the topic ``tagged-documents`` has it, valid by its schema. ``place``: ``PARTITION-OFFSET``."""
    whole: str = value["text"] or ""
    text = whole[:MOST_CHARS]
    spans = [entity for entity in value["entities"] if entity["start"] < len(text)][:_MOST_ENTITIES]
    error = value["error"]
    return {
        "id": shown_string(value["id"]),
        "place": place,
        "timestamp": timestamp_ms,
        "revision": value["revision"],
        "pool": None if value["pool"] is None else shown_string(value["pool"]),
        "status": value["status"],
        "missing": list(value["missing"]),
        "error": None
        if error is None
        else {"stage": error.get("stage"), "code": error["code"], "message": shown_string(error["message"])},
        "readable": value["text"] is not None,
        "cut_chars": len(whole) - len(text),
        "cut_entities": len(value["entities"]) - len(spans),
        "pieces": text_pieces(text, [(entity["start"], min(entity["end"], len(text))) for entity in spans]),
        "entities": [_shown_entity(entity) for entity in spans],
        "made_by": _made_by(value["manifests"]),
    }


def shown_sentence(sentence: QueuedSentence, *, pool: str, place: str, timestamp_ms: int) -> dict[str, Any]:
    """A sentence of a review queue, as the page shows a document; with ``start`` in it, what looking at it is worth
    (``value``: mistakes that are to be expected), and the words that are news, those that count most first."""
    text = sentence.text
    spans = sentence.entities[:_MOST_ENTITIES]
    words = sorted(sentence.new_words, key=lambda word: -sentence.new_words[word])
    return {
        "id": shown_string(sentence.document),
        "place": place,
        "start": sentence.start,
        "timestamp": timestamp_ms,
        "revision": 0,
        "pool": shown_string(pool),
        "status": "complete",
        "readable": True,
        "cut_chars": 0,
        "pieces": text_pieces(text, [(entity.start, entity.end) for entity in spans]),
        "entities": [_shown_entity(entity_to_json(entity)) for entity in spans],
        "made_by": None,
        "value": round(sentence.value, 4),
        "new_words": [shown_string(word) for word in words[:_MOST_WORDS]],
        "more_words": max(0, len(words) - _MOST_WORDS),
    }


def _shown_entity(entity: Mapping[str, Any]) -> dict[str, Any]:
    verdict = entity["verdict"]
    return {
        "start": entity["start"],
        "end": entity["end"],
        "text": shown_string(entity["text"]),
        "type": shown_string(entity["type"]),
        "entity_id": entity.get("entity_id"),
        "confidence": entity["confidence"],
        "boundary": entity.get("boundary"),
        "proposed_by": [shown_string(name) for name in entity["proposed_by"]],
        "votes": [[shown_string(voter), shown_string(kind)] for voter, kind in entity["votes"].items()],
        "verdict": None
        if verdict is None
        else {
            "holds": verdict["holds"],
            "probability": verdict["probability"],
            "verifier": None if verdict["verifier"] is None else shown_string(verdict["verifier"]),
        },
    }


def _made_by(manifests: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of the stage that decided the types; None: no stage has answered."""
    manifest = manifests.get("classify") or manifests.get("extract")
    if manifest is None:
        return None
    return {
        "mode": manifest["mode"],
        "members": [shown_string(name) for name in manifest["members"]],
        "missing_members": [shown_string(name) for name in manifest.get("missing_members", ())],
        "pool": shown_string(manifest["pool"]),
        "pool_fingerprint": shown_string(manifest["pool_fingerprint"]),
        "prompt_version": shown_string(manifest["prompt_version"]),
    }

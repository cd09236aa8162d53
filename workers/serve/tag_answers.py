"""From what became of a text to JSON: the value that the topic ``tagged-documents`` would have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from el4ner.errors import DocumentError
from el4ner.participation import StageName
from el4ner.serialize import entity_to_json
from el4ner.types import TaggedDocument
from workers.http.problems import ProblemError
from workers.messages.entity_ids import entity_ids, with_entity_ids
from workers.serve.tag_requests import TextToTag

__all__ = ["Tagged", "tag_answer"]


@dataclass(frozen=True, slots=True)
class Tagged:
    """What became of a text.

    ``document``: None: it could not be tagged. ``manifests``: who answered, by stage, as JSON. ``error``: why a stage
    gave up, ``failed_at``; ``by_engine``: it was the engine's failure, and not the text's.
    """

    document: TaggedDocument | None
    manifests: Mapping[StageName, Mapping[str, Any]]
    error: DocumentError | None = None
    failed_at: StageName | None = None
    by_engine: bool = False


def tag_answer(texts: Sequence[TextToTag], results: Sequence[Tagged], *, with_ids: bool = False) -> dict[str, Any]:
    """The body of the answer. ``with_ids``: entities have their ``entity_id``.

    Raises:
        ProblemError: no text of the request could be tagged; it has all of them too.
    """
    documents = [_value(*pair) for pair in zip(texts, results, strict=True)]
    body = {"documents": [with_entity_ids(each, entity_ids(each)) for each in documents] if with_ids else documents}
    if any(result.document is not None for result in results):
        return body
    by_engine = next((result for result in results if result.by_engine), None)
    status = HTTPStatus.UNPROCESSABLE_ENTITY if by_engine is None else HTTPStatus.INTERNAL_SERVER_ERROR
    error = (results[0] if by_engine is None else by_engine).error
    assert error is not None
    which = "" if len(texts) == 1 else f"none of the {len(texts)} texts could be tagged; the first reason: "
    raise ProblemError(status, error.code, f"{which}{error}", more=body)


def _value(text: TextToTag, result: Tagged) -> dict[str, Any]:
    document, tagged = text.document, result.document
    value: dict[str, Any] = {
        "id": document.id,
        "revision": document.revision,
        "text": document.text,
        "pool": document.pool if tagged is None else tagged.pool,
        "status": "complete" if result.error is None else "failed" if tagged is None else "partial",
        "entities": [] if tagged is None else [entity_to_json(entity) for entity in tagged.entities],
        "manifests": dict(result.manifests),
        "missing": [],
        "error": None,
    }
    if result.error is not None:
        value["error"] = {"stage": result.failed_at, "code": result.error.code, "message": str(result.error)}
    if text.metadata is not None:
        value["metadata"] = text.metadata
    return value

"""The values of :mod:`el4ner.types` as plain JSON data and back: the one place that knows how they look outside.

``X_to_json`` gives what ``orjson`` can write; ``X_from_json`` expects what the JSON Schemas in ``schemas/`` allow (the
caller has validated it) and checks what a schema cannot say: that every offset fits the document's text. Sentences are
written without their text, since the document's is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from el4ner.errors import MessageError
from el4ner.types import (
    Document,
    DocumentAnswers,
    DocumentCandidates,
    DocumentEntities,
    DocumentTypes,
    Entity,
    Manifest,
    Mode,
    Sentence,
    SentenceAnswers,
    SentenceCandidates,
    SentenceEntities,
    SentenceTypes,
    Span,
    SpanCandidate,
    Speaker,
    TaggedDocument,
    TypedSpan,
    Usage,
    Verdict,
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

Json = Mapping[str, Any]


def dumps(data: Any) -> bytes:
    """Compact UTF-8 JSON."""
    return orjson.dumps(data)


def canonical(data: Any) -> bytes:
    """The same bytes for equal data: keys are sorted."""
    return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)


def fingerprint(*parts: Any) -> str:
    """A stable name of JSON data: 32 hexadecimal digits."""
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]


def document_to_json(document: Document) -> dict[str, Any]:
    """A document."""
    return {"id": document.id, "revision": document.revision, "text": document.text, "pool": document.pool}


def document_from_json(data: Json) -> Document:
    """Unknown fields are passed over."""
    return Document(id=data["id"], text=data["text"], pool=data.get("pool"), revision=data.get("revision", 0))


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """Who produced a result."""
    evidence = {} if manifest.evidence is None else {"evidence": manifest.evidence}
    missing = {"missing_members": list(manifest.missing_members)} if manifest.missing_members else {}
    return {
        "mode": manifest.mode.value,
        "members": dict(manifest.members),
        "prompt_version": manifest.prompt_version,
        "pool": manifest.pool,
        "pool_fingerprint": manifest.pool_fingerprint,
        "retriever": manifest.retriever,
        **evidence,
        **missing,
    }


def manifest_from_json(data: Json) -> Manifest:
    """Unknown fields are passed over."""
    return Manifest(
        mode=Mode(data["mode"]),
        members=dict(data["members"]),
        prompt_version=data["prompt_version"],
        pool=data["pool"],
        pool_fingerprint=data["pool_fingerprint"],
        retriever=data["retriever"],
        evidence=data.get("evidence"),
        missing_members=tuple(data.get("missing_members", ())),
    )


def usage_to_json(usage: Usage) -> dict[str, int]:
    """Token counts."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "new_tokens": usage.new_tokens,
    }


def usage_from_json(data: Json) -> Usage:
    """Unknown fields are passed over."""
    return Usage(data["prompt_tokens"], data["cached_tokens"], data["new_tokens"])


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
        _check_offsets(text, entity.start, entity.end, entity.text, f"/entities/{index}")
    return TaggedDocument(id=data["id"], text=text, entities=entities, pool=data["pool"])


def candidates_to_json(result: DocumentCandidates) -> dict[str, Any]:
    """Extraction's result."""
    return {
        **_envelope_to_json(result),
        "sentences": [
            {
                "start": item.sentence.start,
                "end": item.sentence.end,
                "demonstrations": list(item.demonstrations),
                "candidates": [_candidate_to_json(candidate) for candidate in item.candidates],
                "dropped": item.dropped,
            }
            for item in result.sentences
        ],
    }


def candidates_from_json(data: Json) -> DocumentCandidates:
    """Raises ``MessageError`` if a sentence or span is not where it says."""
    document = document_from_json(data["document"])
    sentences = []
    for index, item in enumerate(data["sentences"]):
        at = f"/sentences/{index}"
        sentences.append(
            SentenceCandidates(
                sentence=_sentence(document.text, item, at),
                demonstrations=tuple(item["demonstrations"]),
                candidates=tuple(
                    _candidate(document.text, candidate, f"{at}/candidates/{position}")
                    for position, candidate in enumerate(item["candidates"])
                ),
                dropped=item.get("dropped", 0),
            )
        )
    return DocumentCandidates(
        document, manifest_from_json(data["producer"]), tuple(sentences), usage_from_json(data["usage"])
    )


def answers_to_json(result: DocumentAnswers) -> dict[str, Any]:
    """What some members say of candidates. Numbers are written as they are: what is read is equal, bit by bit."""
    return {
        **_envelope_to_json(result),
        "sources": [
            {
                "name": speaker.name,
                "voter": speaker.voter,
                "fingerprint": speaker.fingerprint,
                "features": list(speaker.features),
                "by_states": speaker.by_states,
            }
            for speaker in result.speakers
        ],
        "sentences": [
            {
                "start": item.sentence.start,
                "end": item.sentence.end,
                "demonstrations": list(item.demonstrations),
                "candidates": [_candidate_to_json(candidate) for candidate in item.candidates],
                "votes": [dict(votes) for votes in item.votes],
                "said": item.said,
            }
            for item in result.sentences
        ],
    }


def answers_from_json(data: Json) -> DocumentAnswers:
    """Raises ``MessageError`` if a sentence or span is not where it says, or not every candidate has its answers."""
    document = document_from_json(data["document"])
    speakers = tuple(
        Speaker(one["name"], one["voter"], one["fingerprint"], tuple(one["features"]), one["by_states"])
        for one in data["sources"]
    )
    features = sum(len(speaker.features) for speaker in speakers)
    sentences = []
    for index, item in enumerate(data["sentences"]):
        at = f"/sentences/{index}"
        answers = SentenceAnswers(
            sentence=_sentence(document.text, item, at),
            demonstrations=tuple(item["demonstrations"]),
            candidates=tuple(
                _candidate(document.text, candidate, f"{at}/candidates/{position}")
                for position, candidate in enumerate(item["candidates"])
            ),
            votes=tuple(dict(votes) for votes in item["votes"]),
            said=tuple(tuple(map(tuple, span)) for span in item["said"]),
        )
        _check_answers(answers, features, at)
        sentences.append(answers)
    manifest = manifest_from_json(data["producer"])
    return DocumentAnswers(document, manifest, speakers, tuple(sentences), usage_from_json(data["usage"]))


def _check_answers(answers: SentenceAnswers, features: int, at: str) -> None:
    """``features``: of all speakers; 0 where members vote."""
    spans = len(answers.candidates)
    if len(answers.said if features else answers.votes) != spans or (answers.votes if features else answers.said):
        raise MessageError(f"{at}: expected one {'said' if features else 'votes'} for each of {spans} candidates")
    kinds = {len(feature) for span in answers.said for feature in span}
    if len(kinds) > 1 or any(len(span) != features for span in answers.said):
        raise MessageError(f"{at}/said: expected {features} equally long lists for each candidate")


def types_to_json(result: DocumentTypes) -> dict[str, Any]:
    """Classification's result."""
    return {
        **_envelope_to_json(result),
        "sentences": [
            {
                "start": item.sentence.start,
                "end": item.sentence.end,
                "demonstrations": list(item.demonstrations),
                "typed": [_typed_to_json(typed) for typed in item.typed],
            }
            for item in result.sentences
        ],
    }


def types_from_json(data: Json) -> DocumentTypes:
    """Raises ``MessageError`` if a sentence or span is not where it says."""
    document = document_from_json(data["document"])
    sentences = []
    for index, item in enumerate(data["sentences"]):
        at = f"/sentences/{index}"
        sentences.append(
            SentenceTypes(
                sentence=_sentence(document.text, item, at),
                demonstrations=tuple(item["demonstrations"]),
                typed=tuple(
                    _typed(document.text, typed, f"{at}/typed/{position}")
                    for position, typed in enumerate(item["typed"])
                ),
            )
        )
    return DocumentTypes(
        document, manifest_from_json(data["producer"]), tuple(sentences), usage_from_json(data["usage"])
    )


def entities_to_json(result: DocumentEntities) -> dict[str, Any]:
    """Validation's result."""
    return {
        **_envelope_to_json(result),
        "sentences": [
            {
                "start": item.sentence.start,
                "end": item.sentence.end,
                "validated": [
                    {**_typed_to_json(typed), "verdict": verdict_to_json(verdict)} for typed, verdict in item.validated
                ],
            }
            for item in result.sentences
        ],
    }


def entities_from_json(data: Json) -> DocumentEntities:
    """Raises ``MessageError`` if a sentence or span is not where it says."""
    document = document_from_json(data["document"])
    sentences = []
    for index, item in enumerate(data["sentences"]):
        at = f"/sentences/{index}"
        sentences.append(
            SentenceEntities(
                sentence=_sentence(document.text, item, at),
                validated=tuple(
                    (
                        _typed(document.text, validated, f"{at}/validated/{position}"),
                        verdict_from_json(validated["verdict"]),
                    )
                    for position, validated in enumerate(item["validated"])
                ),
            )
        )
    return DocumentEntities(
        document, manifest_from_json(data["producer"]), tuple(sentences), usage_from_json(data["usage"])
    )


def _envelope_to_json(
    result: DocumentCandidates | DocumentAnswers | DocumentTypes | DocumentEntities,
) -> dict[str, Any]:
    """What every stage's result begins with."""
    return {
        "document": document_to_json(result.document),
        "producer": manifest_to_json(result.manifest),
        "usage": usage_to_json(result.usage),
    }


def _candidate_to_json(candidate: SpanCandidate) -> dict[str, Any]:
    span = candidate.span
    return {"start": span.start, "end": span.end, "text": span.text, "proposed_by": list(candidate.proposed_by)}


def _candidate(text: str, data: Json, at: str) -> SpanCandidate:
    _check_offsets(text, data["start"], data["end"], data["text"], at)
    return SpanCandidate(Span(data["start"], data["end"], data["text"]), tuple(data["proposed_by"]))


def _typed_to_json(typed: TypedSpan) -> dict[str, Any]:
    return {
        **_candidate_to_json(typed.candidate),
        "type": typed.type,
        "confidence": typed.confidence,
        "votes": dict(typed.votes),
    }


def _typed(text: str, data: Json, at: str) -> TypedSpan:
    return TypedSpan(_candidate(text, data, at), data["type"], float(data["confidence"]), dict(data["votes"]))


def _sentence(text: str, data: Json, at: str) -> Sentence:
    start, end = data["start"], data["end"]
    if not 0 <= start <= end <= len(text):
        raise MessageError(f"{at}: sentence {start}:{end} is outside the document's {len(text)} characters")
    return Sentence(start, end, text[start:end])


def _check_offsets(text: str, start: int, end: int, surface: str, at: str) -> None:
    if not 0 <= start <= end <= len(text) or text[start:end] != surface:
        raise MessageError(f"{at}: the document's text at {start}:{end} is not the span's {surface[:80]!r}")

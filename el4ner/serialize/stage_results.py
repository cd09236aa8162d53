"""What the stages give, as JSON: who made it (the manifest), what it cost, and what was found in each sentence.

Every result has the same beginning, and its sentences are written without their text, since the document's is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from el4ner.errors import MessageError
from el4ner.serialize.near_taught import TaughtRows, near_from_json, near_to_json, taught_from_json, taught_to_json
from el4ner.serialize.tagged_documents import (
    Json,
    check_offsets,
    document_from_json,
    document_to_json,
    verdict_from_json,
    verdict_to_json,
)
from el4ner.types import (
    Document,
    DocumentAnswers,
    DocumentCandidates,
    DocumentEntities,
    DocumentTypes,
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
    TypedSpan,
    Usage,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "answers_from_json",
    "answers_to_json",
    "candidates_from_json",
    "candidates_to_json",
    "entities_from_json",
    "entities_to_json",
    "manifest_from_json",
    "manifest_to_json",
    "types_from_json",
    "types_to_json",
    "usage_from_json",
    "usage_to_json",
]


def manifest_to_json(manifest: Manifest) -> dict[str, Any]:
    """Who produced a result."""
    evidence = {} if manifest.evidence is None else {"evidence": manifest.evidence}
    missing = {"missing_members": list(manifest.missing_members)} if manifest.missing_members else {}
    base = {} if manifest.pool_base is None else {"pool_base": manifest.pool_base}
    return {
        "mode": manifest.mode.value,
        "members": dict(manifest.members),
        "prompt_version": manifest.prompt_version,
        "pool": manifest.pool,
        "pool_fingerprint": manifest.pool_fingerprint,
        "retriever": manifest.retriever,
        **evidence,
        **missing,
        **base,
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
        pool_base=data.get("pool_base"),
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


# --- the results of the stages ----------------------------------------------------------------------------------


def candidates_to_json(result: DocumentCandidates) -> dict[str, Any]:
    """Extraction's result."""
    return {
        **_envelope_to_json(result),
        "sentences": [
            {
                **_place_to_json(item.sentence),
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
    sentences = tuple(
        SentenceCandidates(
            sentence, tuple(item["demonstrations"]), _candidates(document, item, at), item.get("dropped", 0)
        )
        for sentence, item, at in _sentences(document, data)
    )
    return DocumentCandidates(document, manifest_from_json(data["producer"]), sentences, usage_from_json(data["usage"]))


def answers_to_json(result: DocumentAnswers) -> dict[str, Any]:
    """What some members say of candidates. Numbers are written as they are: what is read is equal, bit by bit."""
    taught: TaughtRows = {}
    near = [None if item.near is None else near_to_json(item.near, taught) for item in result.sentences]
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
        **({"types": list(result.types)} if result.types else {}),
        **({"taught": taught_to_json(taught)} if taught else {}),
        "sentences": [
            {
                **_place_to_json(item.sentence),
                "demonstrations": list(item.demonstrations),
                "candidates": [_candidate_to_json(candidate) for candidate in item.candidates],
                "votes": [dict(votes) for votes in item.votes],
                "said": [] if item.said is None else item.said.tolist(),
                **({} if of_sentence is None else {"near": of_sentence}),
            }
            for item, of_sentence in zip(result.sentences, near, strict=True)
        ],
    }


def answers_from_json(data: Json) -> DocumentAnswers:
    """Raises ``MessageError`` if a sentence or span is not where it says, or not every candidate has its answers."""
    document = document_from_json(data["document"])
    speakers = tuple(
        Speaker(source["name"], source["voter"], source["fingerprint"], tuple(source["features"]), source["by_states"])
        for source in data["sources"]
    )
    features = sum(len(speaker.features) for speaker in speakers)
    taught = taught_from_json(data)
    sentences = tuple(
        SentenceAnswers(
            sentence,
            tuple(item["demonstrations"]),
            _candidates(document, item, at),
            tuple(dict(votes) for votes in item["votes"]),
            _said(item, features, at),
            near_from_json(item, taught, at),
        )
        for sentence, item, at in _sentences(document, data)
    )
    manifest = manifest_from_json(data["producer"])
    types = tuple(data.get("types", ()))
    return DocumentAnswers(document, manifest, speakers, sentences, usage_from_json(data["usage"]), types)


def _said(item: Json, features: int, at: str) -> npt.NDArray[np.float32] | None:
    """``features``: of all speakers; 0 where members vote."""
    spans, votes, said = len(item["candidates"]), item["votes"], item["said"]
    if len(said if features else votes) != spans or (votes if features else said):
        raise MessageError(f"{at}: expected one {'said' if features else 'votes'} for each of {spans} candidates")
    kinds = {len(feature) for span in said for feature in span}
    if len(kinds) > 1 or any(len(span) != features for span in said):
        raise MessageError(f"{at}/said: expected {features} equally long lists for each candidate")
    if not said:
        return None
    import numpy as np  # most processes read no answers, and do without

    return np.asarray(said, dtype=np.float32)


def types_to_json(result: DocumentTypes) -> dict[str, Any]:
    """Classification's result."""
    return {
        **_envelope_to_json(result),
        "sentences": [
            {
                **_place_to_json(item.sentence),
                "demonstrations": list(item.demonstrations),
                "typed": [_typed_to_json(typed) for typed in item.typed],
            }
            for item in result.sentences
        ],
    }


def types_from_json(data: Json) -> DocumentTypes:
    """Raises ``MessageError`` if a sentence or span is not where it says."""
    document = document_from_json(data["document"])
    sentences = tuple(
        SentenceTypes(
            sentence,
            tuple(item["demonstrations"]),
            tuple(
                _typed(document.text, typed, f"{at}/typed/{position}") for position, typed in enumerate(item["typed"])
            ),
        )
        for sentence, item, at in _sentences(document, data)
    )
    return DocumentTypes(document, manifest_from_json(data["producer"]), sentences, usage_from_json(data["usage"]))


def entities_to_json(result: DocumentEntities) -> dict[str, Any]:
    """Validation's result."""
    return {
        **_envelope_to_json(result),
        "sentences": [
            {
                **_place_to_json(item.sentence),
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
    sentences = tuple(
        SentenceEntities(
            sentence,
            tuple(
                (
                    _typed(document.text, validated, f"{at}/validated/{position}"),
                    verdict_from_json(validated["verdict"]),
                )
                for position, validated in enumerate(item["validated"])
            ),
        )
        for sentence, item, at in _sentences(document, data)
    )
    return DocumentEntities(document, manifest_from_json(data["producer"]), sentences, usage_from_json(data["usage"]))


# --- what the results have in common ----------------------------------------------------------------------------


def _envelope_to_json(
    result: DocumentCandidates | DocumentAnswers | DocumentTypes | DocumentEntities,
) -> dict[str, Any]:
    """What every stage's result begins with."""
    return {
        "document": document_to_json(result.document),
        "producer": manifest_to_json(result.manifest),
        "usage": usage_to_json(result.usage),
    }


def _place_to_json(sentence: Sentence) -> dict[str, int]:
    return {"start": sentence.start, "end": sentence.end}


def _sentences(document: Document, data: Json) -> Iterator[tuple[Sentence, Json, str]]:
    """The sentences of a result, each with what is said of it and where in the JSON that is."""
    length = len(document.text)
    for index, item in enumerate(data["sentences"]):
        at, start, end = f"/sentences/{index}", item["start"], item["end"]
        if not 0 <= start <= end <= length:
            raise MessageError(f"{at}: sentence {start}:{end} is outside the document's {length} characters")
        yield Sentence(start, end, document.text[start:end]), item, at


def _candidate_to_json(candidate: SpanCandidate) -> dict[str, Any]:
    span = candidate.span
    boundary = {} if candidate.boundary is None else {"boundary": candidate.boundary}
    return {
        "start": span.start,
        "end": span.end,
        "text": span.text,
        "proposed_by": list(candidate.proposed_by),
        **boundary,
    }


def _candidates(document: Document, item: Json, at: str) -> tuple[SpanCandidate, ...]:
    return tuple(
        _candidate(document.text, candidate, f"{at}/candidates/{position}")
        for position, candidate in enumerate(item["candidates"])
    )


def _candidate(text: str, data: Json, at: str) -> SpanCandidate:
    check_offsets(text, data["start"], data["end"], data["text"], at)
    span = Span(data["start"], data["end"], data["text"])
    return SpanCandidate(span, tuple(data["proposed_by"]), data.get("boundary"))


def _typed_to_json(typed: TypedSpan) -> dict[str, Any]:
    return {
        **_candidate_to_json(typed.candidate),
        "type": typed.type,
        "confidence": typed.confidence,
        "votes": dict(typed.votes),
    }


def _typed(text: str, data: Json, at: str) -> TypedSpan:
    return TypedSpan(_candidate(text, data, at), data["type"], float(data["confidence"]), dict(data["votes"]))

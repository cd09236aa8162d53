"""Hypothesis strategies for el4ner's values: offsets always fit, everything else is anything that is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from el4ner.serialize import candidates_to_json, dumps, entities_to_json, types_to_json
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
from workers.join.rules import Closed, Open, ReceivedAnswer
from workers.messages.envelope import Origin

# What UTF-8 can carry: no lone surrogates.
texts = st.text(st.characters(codec="utf-8"), max_size=40)
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
probabilities = st.floats(0, 1)
votes = st.dictionaries(names, names, max_size=2)
verdicts = st.builds(Verdict, st.booleans(), probabilities, st.none() | names)
usages = st.builds(Usage, *[st.integers(0, 10**9)] * 3)
manifests = st.builds(
    Manifest,
    st.sampled_from(Mode),
    st.dictionaries(names, texts, max_size=2),
    texts,
    names,
    texts,
    texts,
    st.none() | texts,
    st.lists(names, max_size=2).map(tuple),
)
documents = st.builds(Document, names, texts, st.none() | names, st.integers(0, 2**53 - 1))


@st.composite
def spans(draw: st.DrawFn, text: str) -> Span:
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, len(text)))
    return Span(start, end, text[start:end])


@st.composite
def sentences(draw: st.DrawFn, text: str) -> Sentence:
    span = draw(spans(text))
    return Sentence(span.start, span.end, span.text)


@st.composite
def candidates(draw: st.DrawFn, text: str) -> SpanCandidate:
    return SpanCandidate(draw(spans(text)), tuple(draw(st.lists(names, max_size=2))), draw(st.none() | probabilities))


@st.composite
def typed_spans(draw: st.DrawFn, text: str) -> TypedSpan:
    return TypedSpan(draw(candidates(text)), draw(names), draw(probabilities), draw(votes))


demonstrations = st.lists(st.integers(0, 10**6), max_size=3).map(tuple)


@st.composite
def document_candidates(draw: st.DrawFn) -> DocumentCandidates:
    document = draw(documents)
    sentence = st.builds(
        SentenceCandidates,
        sentences(document.text),
        demonstrations,
        st.lists(candidates(document.text), max_size=2).map(tuple),
        st.integers(0, 9),
    )
    return DocumentCandidates(document, draw(manifests), tuple(draw(st.lists(sentence, max_size=2))), draw(usages))


speakers = st.builds(Speaker, names, names, texts, st.lists(texts, min_size=1, max_size=2).map(tuple), st.booleans())


@st.composite
def sentence_answers(draw: st.DrawFn, text: str, features: int) -> SentenceAnswers:
    """``features`` 0: members vote."""
    found = tuple(draw(st.lists(candidates(text), max_size=2)))
    numbers = st.lists(st.floats(-50, 0, width=32), min_size=3 * features, max_size=3 * features)
    said = [draw(numbers) for _ in found if features]
    return SentenceAnswers(
        draw(sentences(text)),
        draw(demonstrations),
        found,
        tuple(draw(votes) for _ in found) if not features else (),
        np.asarray(said, dtype=np.float32).reshape(len(said), features, 3) if said else None,
    )


@st.composite
def document_answers(draw: st.DrawFn) -> DocumentAnswers:
    document = draw(documents)
    spoken = tuple(draw(st.lists(speakers, max_size=2)))
    features = sum(len(one.features) for one in spoken)
    answers = tuple(draw(st.lists(sentence_answers(document.text, features), max_size=2)))
    return DocumentAnswers(document, draw(manifests), spoken, answers, draw(usages))


@st.composite
def document_types(draw: st.DrawFn) -> DocumentTypes:
    document = draw(documents)
    sentence = st.builds(
        SentenceTypes,
        sentences(document.text),
        demonstrations,
        st.lists(typed_spans(document.text), max_size=2).map(tuple),
    )
    return DocumentTypes(document, draw(manifests), tuple(draw(st.lists(sentence, max_size=2))), draw(usages))


@st.composite
def document_entities(draw: st.DrawFn) -> DocumentEntities:
    document = draw(documents)
    validated = st.tuples(typed_spans(document.text), verdicts)
    sentence = st.builds(SentenceEntities, sentences(document.text), st.lists(validated, max_size=2).map(tuple))
    return DocumentEntities(document, draw(manifests), tuple(draw(st.lists(sentence, max_size=2))), draw(usages))


@st.composite
def entities(draw: st.DrawFn, text: str) -> Entity:
    typed = draw(typed_spans(text))
    span = typed.candidate.span
    return Entity(
        span.start,
        span.end,
        span.text,
        typed.type,
        typed.confidence,
        typed.candidate.proposed_by,
        typed.votes,
        draw(st.none() | verdicts),
    )


@st.composite
def tagged_documents(draw: st.DrawFn) -> TaggedDocument:
    text = draw(texts)
    return TaggedDocument(draw(names), text, tuple(draw(st.lists(entities(text), max_size=3))), draw(names))


# --- the join ---

origins = st.builds(Origin, st.integers(-1, 10**9), st.integers(-1, 2**41), st.integers(0, 3))
revisions = st.integers(0, 2**53 - 1)
closed = st.builds(
    Closed,
    st.integers(-1, 2**53 - 1),
    st.integers(-1, 10**9),
    st.integers(0, 3),
    st.sampled_from(["complete", "partial", "failed", "deleted"]),
    st.integers(-1, 10**9),
)


@st.composite
def open_documents(draw: st.DrawFn) -> Open:
    """A document that is open, with answers that are stage messages, or anything else."""
    name, revision, origin, trace = draw(names), draw(revisions), draw(origins), draw(st.none() | texts)
    stages = st.sampled_from(["extract", "classify", "validate"])

    def answer(*, failed: bool) -> ReceivedAnswer:
        stage = draw(stages)
        result = {"extract": document_candidates(), "classify": document_types(), "validate": document_entities()}
        encode: Mapping[str, Callable[[Any], dict[str, Any]]] = {
            "extract": candidates_to_json,
            "classify": types_to_json,
            "validate": entities_to_json,
        }
        valid = {"stage": stage, "status": "ok", **encode[stage](draw(result[stage]))}
        if failed:
            error = {"code": "engine", "message": draw(texts)}
            valid = {"stage": stage, "status": "failed", "document": valid["document"], "error": error}
        value = draw(st.just(dumps(valid)) | (st.just(b"{}") if failed else st.binary(max_size=20)))
        place = draw(st.just((-1, -1)) | st.tuples(st.integers(0, 10**9), st.integers(-1, 2**41)))
        return ReceivedAnswer(name, revision, stage, failed, value, origin, trace, place)

    best = answer(failed=False) if draw(st.booleans()) else None
    failed = answer(failed=True) if draw(st.booleans()) else None
    return Open(revision, origin, draw(st.integers(0, 2**41)), trace, best, failed, draw(st.integers(-1, 10**9)))

"""Hypothesis strategies for el4ner's values: offsets always fit, everything else is anything that is allowed."""

from __future__ import annotations

from hypothesis import strategies as st

from el4ner.types import (
    Document,
    DocumentCandidates,
    DocumentEntities,
    DocumentTypes,
    Entity,
    Manifest,
    Mode,
    Sentence,
    SentenceCandidates,
    SentenceEntities,
    SentenceTypes,
    Span,
    SpanCandidate,
    TaggedDocument,
    TypedSpan,
    Usage,
    Verdict,
)

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
    return SpanCandidate(draw(spans(text)), tuple(draw(st.lists(names, max_size=2))))


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

"""Between a document's offsets and those of its sentences: the one place that turns the one into the other.

A stage sees each sentence of a document's clean text (:mod:`~el4ner.text.controls`) *apart*: as a text of its own,
whose offsets begin at 0. What comes from outside and goes there has the offsets of the original document. A coloured
log line is so the same question as its plain twin, for models, retrieval and memories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from el4ner.pools import Pool
from el4ner.stages.extract import without_parts_of_atoms
from el4ner.text.controls import CleanText
from el4ner.text.words import function_words
from el4ner.types import (
    NONE_TYPE,
    Document,
    DocumentCandidates,
    DocumentTypes,
    Sentence,
    SentenceAnswers,
    SentenceCandidates,
    SentenceEntities,
    SentenceTypes,
    Span,
    SpanCandidate,
    TypedSpan,
)

__all__ = [
    "SegmentedDocument",
    "answers_in",
    "candidates_apart",
    "candidates_in",
    "entities_in",
    "merged",
    "original_candidates",
    "sentence_apart",
    "sentences_apart",
    "types_apart",
    "types_in",
]


class SegmentedDocument(NamedTuple):
    """A document, its pool, its clean text, and where the sentences of that are in it."""

    document: Document
    pool: Pool
    view: CleanText
    sentences: list[Sentence]


# --- from the document to the stages ----------------------------------------------------------------------------


def sentences_apart(item: SegmentedDocument) -> list[Sentence]:
    """A document's sentences, each apart."""
    return [_alone(sentence) for sentence in item.sentences]


def candidates_apart(item: DocumentCandidates) -> list[SentenceCandidates]:
    """A document's sentences with their candidates, each apart."""
    view = CleanText.of(item.document.text)
    return [sentence_apart(sentence, view) for sentence in item.sentences]


def types_apart(item: DocumentTypes) -> list[SentenceTypes]:
    """As :func:`candidates_apart`, with types."""
    view = CleanText.of(item.document.text)
    return [_typed_apart(sentence, view) for sentence in item.sentences]


def sentence_apart(item: SentenceCandidates, view: CleanText) -> SentenceCandidates:
    """A sentence and its candidates in the clean text, apart. They stay in the original text where one of them is not
    in the clean text (another version may have proposed it), since each has to be answered for."""
    if _is_apart(item.sentence, view):
        return item
    sentence, spans = _apart(item.sentence, [candidate.span for candidate in item.candidates], view)
    candidates = tuple(at(span, candidate) for span, candidate in zip(spans, item.candidates, strict=True))
    return SentenceCandidates(sentence, item.demonstrations, candidates, item.dropped)


def _typed_apart(item: SentenceTypes, view: CleanText) -> SentenceTypes:
    if _is_apart(item.sentence, view):
        return item
    sentence, spans = _apart(item.sentence, [typed.candidate.span for typed in item.typed], view)
    typed = tuple(
        TypedSpan(at(span, typed.candidate), typed.type, typed.confidence, typed.votes)
        for span, typed in zip(spans, item.typed, strict=True)
    )
    return SentenceTypes(sentence, item.demonstrations, typed)


def _is_apart(sentence: Sentence, view: CleanText) -> bool:
    """Whether it stands in its document as it does apart: a document's first sentence, mostly."""
    return view.is_original and sentence.start == 0 and sentence.end == len(sentence.text)


def _apart(sentence: Sentence, spans: Sequence[Span], view: CleanText) -> tuple[Sentence, list[Span]]:
    if not view.is_original:
        clean = _clean_spans(spans, sentence, view)
        if clean is not None:
            start, end = view.inside(sentence.start, sentence.end)
            sentence, spans = Sentence(start, end, view.text[start:end]), clean
    return _alone(sentence), [_moved(span, -sentence.start) for span in spans]


def _clean_spans(spans: Sequence[Span], sentence: Sentence, view: CleanText) -> list[Span] | None:
    """None where one of them is not the same text in the clean one."""
    if view.original[sentence.start : sentence.end] != sentence.text:
        return None
    clean = []
    for span in spans:
        start, end = view.inside(span.start, span.end)
        if start == end or view.text[start:end] != span.text or view.outside(start, end) != (span.start, span.end):
            return None
        clean.append(Span(start, end, span.text))
    return clean


def _alone(sentence: Sentence) -> Sentence:
    return Sentence(0, len(sentence.text), sentence.text)


def at(span: Span, candidate: SpanCandidate) -> SpanCandidate:
    """The candidate at another place."""
    # Not by replace(), which takes five times as long: every span passes here several times.
    return SpanCandidate(span, candidate.proposed_by, candidate.boundary)


def _moved(span: Span, by: int) -> Span:
    return span if not by else Span(span.start + by, span.end + by, span.text)


# --- from the stages to the document ----------------------------------------------------------------------------


def candidates_in(item: SegmentedDocument, answers: Sequence[SentenceCandidates]) -> list[SentenceCandidates]:
    """What was extracted from a document's sentences apart, in the document."""
    in_clean_text = [
        SentenceCandidates(
            sentence,
            answer.demonstrations,
            tuple(at(_moved(candidate.span, sentence.start), candidate) for candidate in answer.candidates)
            if sentence.start
            else answer.candidates,
            answer.dropped,
        )
        for sentence, answer in zip(item.sentences, answers, strict=True)
    ]
    whole = without_parts_of_atoms(in_clean_text, item.view.text, item.pool)
    return [original_candidates(candidates, item.view) for candidates in whole]


def original_candidates(sentence: SentenceCandidates, view: CleanText) -> SentenceCandidates:
    """What was extracted from the clean text, in the original. A candidate with a separator inside becomes the words
    between separators: no span holds one."""
    if view.is_original:
        return sentence
    proposed: dict[Span, SpanCandidate] = {}
    for candidate in sentence.candidates:
        stretches = view.stretches(candidate.span.start, candidate.span.end)
        for start, end in stretches:
            span = Span(start, end, view.original[start:end])
            if len(stretches) > 1 and span.text.lower() in function_words():
                continue
            known = proposed.get(span)
            proposed[span] = at(span, candidate) if known is None else merged(known, candidate)
    start, end = view.outside(sentence.sentence.start, sentence.sentence.end)
    return replace(
        sentence,
        sentence=Sentence(start, end, view.original[start:end]),
        candidates=tuple(candidate for _, candidate in sorted(proposed.items())),
    )


def merged(candidate: SpanCandidate, again: SpanCandidate) -> SpanCandidate:
    """The same span, by whoever proposed it; the larger probability counts."""
    proposed_by = tuple(dict.fromkeys((*candidate.proposed_by, *again.proposed_by)))
    known = [value for value in (candidate.boundary, again.boundary) if value is not None]
    return SpanCandidate(candidate.span, proposed_by, max(known, default=None))


def types_in(item: DocumentCandidates, answers: Sequence[SentenceTypes]) -> list[SentenceTypes]:
    """The types of a document's candidates: one for each, in the same order."""
    return [
        SentenceTypes(
            sentence.sentence,
            sentence.demonstrations,
            tuple(
                TypedSpan(candidate, typed.type, typed.confidence, typed.votes)
                for candidate, typed in zip(sentence.candidates, answer.typed, strict=True)
            ),
        )
        for sentence, answer in zip(item.sentences, answers, strict=True)
    ]


def answers_in(item: DocumentCandidates, answers: Sequence[SentenceAnswers]) -> list[SentenceAnswers]:
    """As :func:`types_in`, for what members said."""
    return [
        replace(answer, sentence=sentence.sentence, candidates=sentence.candidates)
        for sentence, answer in zip(item.sentences, answers, strict=True)
    ]


def entities_in(item: DocumentTypes, answers: Sequence[SentenceEntities]) -> list[SentenceEntities]:
    """As :func:`types_in`, for verdicts: of those that have a type."""
    placed = []
    for sentence, answer in zip(item.sentences, answers, strict=True):
        entities = [typed for typed in sentence.typed if typed.type != NONE_TYPE]
        verdicts = [verdict for _, verdict in answer.validated]
        placed.append(SentenceEntities(sentence.sentence, tuple(zip(entities, verdicts, strict=True))))
    return placed

"""Stages work on a document's clean text (:mod:`~el4ner.text.controls`); what they take and give has the original's
offsets. A coloured log line is so the same question as its plain twin, for models, retrieval and memories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from el4ner.text.controls import CleanText
from el4ner.text.words import function_words
from el4ner.types import (
    NONE_TYPE,
    Sentence,
    SentenceAnswers,
    SentenceCandidates,
    SentenceEntities,
    SentenceTypes,
    Span,
    SpanCandidate,
)

__all__ = ["answers_of", "clean_candidates", "clean_types", "entities_of", "original_candidates", "types_of"]


def original_candidates(found: SentenceCandidates, view: CleanText) -> SentenceCandidates:
    """What was extracted from the clean text, in the original. A candidate with a separator inside becomes the words
    between separators: no span holds one."""
    if view.is_original:
        return found
    proposed: dict[Span, dict[str, None]] = {}
    for candidate in found.candidates:
        stretches = view.stretches(candidate.span.start, candidate.span.end)
        for start, end in stretches:
            span = Span(start, end, view.original[start:end])
            if len(stretches) > 1 and span.text.lower() in function_words():
                continue
            proposed.setdefault(span, {}).update(dict.fromkeys(candidate.proposed_by))
    return replace(
        found,
        sentence=_original_sentence(found.sentence, view),
        candidates=tuple(SpanCandidate(span, tuple(names)) for span, names in sorted(proposed.items())),
    )


def clean_candidates(item: SentenceCandidates, view: CleanText) -> SentenceCandidates:
    """A sentence and its candidates in the clean text; as it is where a candidate is not in that (another version may
    have proposed it), since each has to be answered for."""
    if view.is_original:
        return item
    spans = _clean_spans([candidate.span for candidate in item.candidates], item.sentence, view)
    if spans is None:
        return item
    candidates = (replace(candidate, span=span) for candidate, span in zip(item.candidates, spans, strict=True))
    return SentenceCandidates(
        _clean_sentence(item.sentence, view), item.demonstrations, tuple(candidates), item.dropped
    )


def clean_types(item: SentenceTypes, view: CleanText) -> SentenceTypes:
    """As :func:`clean_candidates`, with types."""
    if view.is_original:
        return item
    spans = _clean_spans([typed.candidate.span for typed in item.typed], item.sentence, view)
    if spans is None:
        return item
    typed = (
        replace(own, candidate=replace(own.candidate, span=span)) for own, span in zip(item.typed, spans, strict=True)
    )
    return SentenceTypes(_clean_sentence(item.sentence, view), item.demonstrations, tuple(typed))


def types_of(item: SentenceCandidates, answer: SentenceTypes) -> SentenceTypes:
    """The answer to an item's clean candidates, said of its own: one for each, in the same order."""
    if answer.sentence is item.sentence:
        return answer
    typed = (replace(own, candidate=given) for own, given in zip(answer.typed, item.candidates, strict=True))
    return SentenceTypes(item.sentence, item.demonstrations, tuple(typed))


def answers_of(item: SentenceCandidates, answer: SentenceAnswers) -> SentenceAnswers:
    """As :func:`types_of`, for what members said."""
    if answer.sentence is item.sentence:
        return answer
    return replace(answer, sentence=item.sentence, candidates=item.candidates)


def entities_of(item: SentenceTypes, answer: SentenceEntities) -> SentenceEntities:
    """As :func:`types_of`, for verdicts: of those that have a type."""
    if answer.sentence is item.sentence:
        return answer
    entities = [typed for typed in item.typed if typed.type != NONE_TYPE]
    verdicts = (verdict for _, verdict in answer.validated)
    return SentenceEntities(item.sentence, tuple(zip(entities, verdicts, strict=True)))


def _original_sentence(sentence: Sentence, view: CleanText) -> Sentence:
    start, end = view.outside(sentence.start, sentence.end)
    return Sentence(start, end, view.original[start:end])


def _clean_sentence(sentence: Sentence, view: CleanText) -> Sentence:
    start, end = view.inside(sentence.start, sentence.end)
    return Sentence(start, end, view.text[start:end])


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

"""What each stage's answer depends on, and how it is said again of the same text or of a line like it.

Spans are told by the pieces of a template (:meth:`~el4ner.text.templates.Template.anchor`), never by their surfaces, so
that what comes out is a piece of the new text. A span that cannot be told so makes its sentence a miss.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from el4ner.text.templates import Anchor, Template
from el4ner.types import (
    NONE_TYPE,
    Sentence,
    SentenceAnswers,
    SentenceCandidates,
    SentenceEntities,
    SentenceTypes,
    Span,
    SpanCandidate,
    TypedSpan,
    Verdict,
)

__all__ = ["AnswersCarry", "ClassifyCarry", "ExtractCarry", "Found", "Said", "ValidateCarry"]


class Found(NamedTuple):
    """What extraction found in a sentence: anchors, and for each who proposed it."""

    demonstrations: tuple[int, ...]
    anchors: tuple[Anchor, ...]
    proposed_by: tuple[tuple[str, ...], ...]
    dropped: int


class ExtractCarry:
    """Candidates and demonstrations depend on the sentence's text alone."""

    lines = 1

    def text(self, item: Sentence) -> str:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        return item.text

    def key(self, item: Sentence, view: Template) -> Hashable | None:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        del item
        return view.key

    def keep(self, answer: SentenceCandidates, view: Template) -> Found | None:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        anchors = _anchors(view, (candidate.span for candidate in answer.candidates))
        if anchors is None:
            return None
        proposed_by = tuple(candidate.proposed_by for candidate in answer.candidates)
        return Found(answer.demonstrations, anchors, proposed_by, answer.dropped)

    def settle(self, kept: Sequence[Found]) -> Found:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        return kept[0]

    def recall(self, item: Sentence, kept: Found, view: Template) -> SentenceCandidates:
        """See :class:`~el4ner.repeats.answer_memory.Carry`. Pieces keep their order, so the candidates stay sorted."""
        candidates = tuple(
            SpanCandidate(view.locate(anchor), names)
            for anchor, names in zip(kept.anchors, kept.proposed_by, strict=True)
        )
        return SentenceCandidates(item, kept.demonstrations, candidates, kept.dropped)


class _CandidatesCarry:
    """What is said of candidates depends on the text, the demonstrations and the candidates."""

    def text(self, item: SentenceCandidates) -> str:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        return item.sentence.text

    def key(self, item: SentenceCandidates, view: Template) -> Hashable | None:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        anchors = _anchors(view, (candidate.span for candidate in item.candidates))
        if anchors is None:
            return None
        return view.key, item.demonstrations, anchors, tuple(candidate.proposed_by for candidate in item.candidates)


class ClassifyCarry(_CandidatesCarry):
    """Each candidate is typed in its own place.

    One line may be an odd one (a user called ``mysql``), so several are asked about before a template's types stand.
    """

    lines = 3

    def keep(self, answer: SentenceTypes, view: Template) -> tuple[TypedSpan, ...] | None:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        del view
        return tuple(replace(typed, candidate=_NOBODY) for typed in answer.typed)

    def settle(self, kept: Sequence[tuple[TypedSpan, ...]]) -> tuple[TypedSpan, ...]:
        """See :class:`~el4ner.repeats.answer_memory.Carry`. Each span gets the type with the most confidence in all
        lines."""
        if len(kept) == 1:
            return kept[0]
        return tuple(_agreed(said) for said in zip(*kept, strict=True))

    def recall(self, item: SentenceCandidates, kept: tuple[TypedSpan, ...], view: Template) -> SentenceTypes:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        del view
        typed = (replace(one, candidate=own) for one, own in zip(kept, item.candidates, strict=True))
        return SentenceTypes(item.sentence, item.demonstrations, tuple(typed))


class Said(NamedTuple):
    """What members said of candidates."""

    votes: tuple[Mapping[str, str], ...]
    said: npt.NDArray[np.float32] | None


class AnswersCarry(_CandidatesCarry):
    """Answers of members that are decided about elsewhere, so that what several lines of a template agree on is not
    known here: for equal texts alone, without a miner."""

    lines = 1

    def keep(self, answer: SentenceAnswers, view: Template) -> Said | None:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        del view
        return Said(answer.votes, answer.said)

    def settle(self, kept: Sequence[Said]) -> Said:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        return kept[0]

    def recall(self, item: SentenceCandidates, kept: Said, view: Template) -> SentenceAnswers:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        del view
        return SentenceAnswers(item.sentence, item.demonstrations, item.candidates, kept.votes, kept.said)


class ValidateCarry:
    """Verdicts depend on the text, the demonstrations and the spans that have a type, with that type."""

    lines = 1

    def text(self, item: SentenceTypes) -> str:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        return item.sentence.text

    def key(self, item: SentenceTypes, view: Template) -> Hashable | None:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        spans = _entities(item)
        anchors = _anchors(view, (typed.candidate.span for typed in spans))
        if anchors is None:
            return None
        return view.key, item.demonstrations, anchors, tuple(typed.type for typed in spans)

    def keep(self, answer: SentenceEntities, view: Template) -> tuple[Verdict, ...] | None:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        del view
        return tuple(verdict for _, verdict in answer.validated)

    def settle(self, kept: Sequence[tuple[Verdict, ...]]) -> tuple[Verdict, ...]:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        return kept[0]

    def recall(self, item: SentenceTypes, kept: tuple[Verdict, ...], view: Template) -> SentenceEntities:
        """See :class:`~el4ner.repeats.answer_memory.Carry`."""
        del view
        return SentenceEntities(item.sentence, tuple(zip(_entities(item), kept, strict=True)))


_NOBODY = SpanCandidate(Span(0, 0, ""), ())
"""In the place of a candidate that is not kept: the item that asks has its own."""


def _agreed(said: Sequence[TypedSpan]) -> TypedSpan:
    """The type that has the most confidence in sum (of equals the first), as one that chose it said it; the confidence
    is its mean over all lines, those that chose otherwise counting 0."""
    sums: dict[str, float] = {}
    for one in said:
        sums[one.type] = sums.get(one.type, 0.0) + one.confidence
    best = max(sums, key=lambda label: sums[label])
    chosen = next(one for one in said if one.type == best)
    return replace(chosen, confidence=sums[best] / len(said))


def _entities(item: SentenceTypes) -> list[TypedSpan]:
    return [typed for typed in item.typed if typed.type != NONE_TYPE]


def _anchors(view: Template, spans: Iterable[Span]) -> tuple[Anchor, ...] | None:
    """Spans told by the pieces of their sentence; None if one of them cannot be, or is not what it says it is."""
    anchors = []
    for span in spans:
        anchor = view.anchor(span.start, span.end)
        if anchor is None or view.line[span.start : span.end] != span.text:
            return None
        anchors.append(anchor)
    return tuple(anchors)

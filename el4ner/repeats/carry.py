"""What each stage's answer depends on, and how it is said again of the same text or of a line like it.

Spans are told by the pieces of a template (:meth:`~el4ner.text.templates.Template.anchor`), never by their surfaces, so
that what comes out is a piece of the new text. A span that cannot be told so makes its sentence a miss.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from el4ner.repeats.entries import Answer, Carry, Kept
from el4ner.repeats.line_key import LineKey
from el4ner.text.templates import Anchor, Template
from el4ner.types import (
    NONE_TYPE,
    NearTaught,
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

__all__ = [
    "NOBODY",
    "AgreedTypes",
    "AnswersCarry",
    "ClassifyCarry",
    "ExtractCarry",
    "ExtractedAnchors",
    "KeptAnswers",
    "PlaceVotes",
    "ValidateCarry",
]

CLEAR: Final = 0.75
"""The share of all confidence that a place's type has where lines agree on it well enough."""


class ExtractedAnchors(NamedTuple):
    """What extraction found in a sentence: anchors, and for each who proposed it and how likely that is."""

    demonstrations: tuple[int, ...]
    anchors: tuple[Anchor, ...]
    proposed_by: tuple[tuple[str, ...], ...]
    boundaries: tuple[float | None, ...]
    dropped: int


class ExtractCarry(Carry[Sentence, SentenceCandidates, ExtractedAnchors]):
    """Candidates and demonstrations depend on the sentence's text alone."""

    by_view = True

    @override
    def text(self, item: Sentence) -> str:
        return item.text

    @override
    def key(self, item: Sentence, view: Template) -> Hashable | None:
        del item
        return view.key

    @override
    def keep(self, answer: SentenceCandidates, view: Template) -> ExtractedAnchors | None:
        anchors = _anchors(view, (candidate.span for candidate in answer.candidates))
        if anchors is None:
            return None
        proposed_by = tuple(candidate.proposed_by for candidate in answer.candidates)
        boundaries = tuple(candidate.boundary for candidate in answer.candidates)
        return ExtractedAnchors(answer.demonstrations, anchors, proposed_by, boundaries, answer.dropped)

    @override
    def recall(self, item: Sentence, kept: ExtractedAnchors, view: Template) -> SentenceCandidates:
        # Pieces keep their order, so the candidates stay sorted.
        candidates = tuple(
            SpanCandidate(view.locate(anchor), names, boundary)
            for anchor, names, boundary in zip(kept.anchors, kept.proposed_by, kept.boundaries, strict=True)
        )
        return SentenceCandidates(item, kept.demonstrations, candidates, kept.dropped)


class _CandidatesCarry(Carry[SentenceCandidates, Answer, Kept]):
    """What is said of candidates depends on the text, the demonstrations and the candidates."""

    @override
    def text(self, item: SentenceCandidates) -> str:
        return item.sentence.text

    @override
    def key(self, item: SentenceCandidates, view: Template) -> Hashable | None:
        anchors = _anchors(view, (candidate.span for candidate in item.candidates))
        if anchors is None:
            return None
        said = tuple((candidate.proposed_by, candidate.boundary) for candidate in item.candidates)
        return LineKey(view.key, (item.demonstrations, anchors, said))


class PlaceVotes(NamedTuple):
    """What several lines say of the span in one place: for each type, the confidences in sum, and a line that chose it
    as it said it."""

    sums: Mapping[str, float]
    choices: Mapping[str, TypedSpan]


class AgreedTypes(NamedTuple):
    """What the lines of a template say of each of its spans, and what that comes to."""

    lines: int
    said: tuple[PlaceVotes, ...]
    agreed: tuple[TypedSpan, ...]

    @classmethod
    def of(cls, lines: int, said: tuple[PlaceVotes, ...]) -> AgreedTypes:
        """What ``lines`` lines said, with what it comes to."""
        return cls(lines, said, tuple(_agreed(in_place, lines) for in_place in said))


class ClassifyCarry(_CandidatesCarry[SentenceTypes, AgreedTypes]):
    """Each candidate is typed in its own place.

    One line may be an odd one (a user called ``mysql``), so several are asked about before a template's types stand:
    a place gets the type with the most confidence in all of them.
    """

    lines = 3
    most = 6

    @override
    def keep(self, answer: SentenceTypes, view: Template) -> AgreedTypes | None:
        del view
        # Not by replace(), which takes several times as long: every new sentence passes here.
        typed = tuple(TypedSpan(NOBODY, said.type, said.confidence, said.votes) for said in answer.typed)
        return AgreedTypes(1, tuple(PlaceVotes({t.type: t.confidence}, {t.type: t}) for t in typed), typed)

    @override
    def add(self, kept: AgreedTypes | None, new: AgreedTypes) -> AgreedTypes:
        if kept is None:
            return new
        said = tuple(_together(*both) for both in zip(kept.said, new.said, strict=True))
        return AgreedTypes.of(kept.lines + new.lines, said)

    @override
    def is_disputed(self, kept: AgreedTypes) -> bool:
        return any(max(said.sums.values()) < CLEAR * sum(said.sums.values()) for said in kept.said)

    @override
    def differs(self, kept: AgreedTypes, new: AgreedTypes) -> bool:
        return [typed.type for typed in kept.agreed] != [typed.type for typed in new.agreed]

    @override
    def recall(self, item: SentenceCandidates, kept: AgreedTypes, view: Template) -> SentenceTypes:
        del view
        pairs = zip(kept.agreed, item.candidates, strict=True)
        typed = tuple(TypedSpan(candidate, span.type, span.confidence, span.votes) for span, candidate in pairs)
        return SentenceTypes(item.sentence, item.demonstrations, typed)


class KeptAnswers(NamedTuple):
    """What members said of candidates."""

    votes: tuple[Mapping[str, str], ...]
    said: npt.NDArray[np.float32] | None
    near: NearTaught | None = None


class AnswersCarry(_CandidatesCarry[SentenceAnswers, KeptAnswers]):
    """Answers of members that are decided about elsewhere, so that what several lines of a template agree on is not
    known here: for equal texts alone, without a miner."""

    @override
    def keep(self, answer: SentenceAnswers, view: Template) -> KeptAnswers | None:
        del view
        return KeptAnswers(answer.votes, answer.said, answer.near)

    @override
    def recall(self, item: SentenceCandidates, kept: KeptAnswers, view: Template) -> SentenceAnswers:
        """
        Raises:
            ValueError: it is of another number of candidates.
        """
        del view
        count = len(item.candidates)
        by_span = [kept.said, None if kept.near is None else kept.near.cosines]
        if len(kept.votes) not in (0, count) or any(
            len(numbers) != count for numbers in by_span if numbers is not None
        ):
            raise ValueError("not one answer for each candidate")
        return SentenceAnswers(item.sentence, item.demonstrations, item.candidates, kept.votes, kept.said, kept.near)


class ValidateCarry(Carry[SentenceTypes, SentenceEntities, tuple[Verdict, ...]]):
    """Verdicts depend on the text, the demonstrations and the spans that have a type, with that type."""

    @override
    def text(self, item: SentenceTypes) -> str:
        return item.sentence.text

    @override
    def key(self, item: SentenceTypes, view: Template) -> Hashable | None:
        spans = _entities(item)
        anchors = _anchors(view, (typed.candidate.span for typed in spans))
        if anchors is None:
            return None
        return LineKey(view.key, (item.demonstrations, anchors, tuple(typed.type for typed in spans)))

    @override
    def keep(self, answer: SentenceEntities, view: Template) -> tuple[Verdict, ...] | None:
        del view
        return tuple(verdict for _, verdict in answer.validated)

    @override
    def recall(self, item: SentenceTypes, kept: tuple[Verdict, ...], view: Template) -> SentenceEntities:
        del view
        return SentenceEntities(item.sentence, tuple(zip(_entities(item), kept, strict=True)))


NOBODY = SpanCandidate(Span(0, 0, ""), ())
"""In the place of a candidate that is not kept: the item that asks has its own."""


def _together(one: PlaceVotes, other: PlaceVotes) -> PlaceVotes:
    sums = {label: one.sums.get(label, 0.0) + other.sums.get(label, 0.0) for label in {**one.sums, **other.sums}}
    return PlaceVotes(sums, {**other.choices, **one.choices})


def _agreed(said: PlaceVotes, lines: int) -> TypedSpan:
    """The type that has the most confidence in sum (of equals the first); its confidence is the mean over all lines,
    those that chose otherwise counting 0."""
    best = max(said.sums, key=lambda label: said.sums[label])
    return replace(said.choices[best], confidence=min(1.0, said.sums[best] / lines))


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

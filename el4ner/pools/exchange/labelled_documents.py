"""A labelled text as a tool has it: of any length, with spans that may overlap. And how it becomes sentences."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from el4ner.pools.pool import LeftOut, PoolSentence
from el4ner.text.segment import TextKind, segment
from el4ner.types import Span

__all__ = ["DocumentItem", "LabelledDocument", "UnusableSpan", "in_sentences", "without_overlaps"]


@dataclass(frozen=True, slots=True)
class UnusableSpan:
    """A place where the file marks something that no pool can have. What surrounds it is no example of anything."""

    start: int
    end: int
    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class LabelledDocument:
    """A text and its labelled spans, sorted. ``where`` is its ``file:line``; or a file, of which the text is all or a
    part that begins in ``first_line``."""

    text: str
    spans: tuple[tuple[Span, str], ...]
    where: str
    unusable: tuple[UnusableSpan, ...] = ()
    first_line: int | None = None

    @property
    def place(self) -> str:
        """For messages: file and line."""
        return self.where if self.first_line is None else f"{self.where}:{self.first_line}"

    @classmethod
    def of(cls, sentence: PoolSentence) -> LabelledDocument:
        """The same text, by the reader of a pool's files."""
        return cls(sentence.text, sentence.spans, sentence.where)


DocumentItem: TypeAlias = LabelledDocument | LeftOut
"""What a reader of a tool's files makes of one record."""


def in_sentences(document: LabelledDocument, kind: TextKind, max_chars: int) -> Iterator[LabelledDocument]:
    """The sentences of a text, as documents of a stream are cut by :func:`~el4ner.text.segment.segment`.

    Sentences that a span reaches across stay one, so that every span is in exactly one. White space around them goes.
    """
    spans, unusable = deque(document.spans), deque(sorted(document.unusable, key=lambda mark: mark.start))
    marks = [(span.start, span.end) for span, _ in spans] + [(mark.start, mark.end) for mark in unusable]
    line, counted = document.first_line, 0
    pieces = segment(document.text, kind, max_chars=max_chars)
    for start, end in _united([*((piece.start, piece.end) for piece in pieces), *marks]):
        if line is not None:
            line, counted = line + document.text.count("\n", counted, start), start
        inside = []
        while spans and spans[0][0].start < end:
            span, label = spans.popleft()
            inside.append((Span(span.start - start, span.end - start, span.text), label))
        refused = []
        while unusable and unusable[0].start < end:
            mark = unusable.popleft()
            refused.append(replace(mark, start=mark.start - start, end=mark.end - start))
        yield LabelledDocument(document.text[start:end], tuple(inside), document.where, tuple(refused), line)


def _united(places: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Places that share a character become one; in order."""
    current: tuple[int, int] | None = None
    for start, end in sorted(places):
        if current is None:
            current = start, end
        elif start < current[1]:
            current = current[0], max(end, current[1])
        else:
            yield current
            current = start, end
    if current is not None:
        yield current


def without_overlaps(spans: Iterable[tuple[Span, str]]) -> tuple[tuple[Span, str], ...]:
    """The longest of spans that overlap, the first of two that are as long; sorted."""
    kept: list[tuple[Span, str]] = []
    for candidate in sorted(spans, key=lambda item: (item[0].start - item[0].end, item)):
        place = bisect_left(kept, candidate)
        before, after = kept[place - 1 : place], kept[place : place + 1]
        if all(span.end <= candidate[0].start for span, _ in before) and all(
            candidate[0].end <= span.start for span, _ in after
        ):
            kept.insert(place, candidate)
    return tuple(kept)

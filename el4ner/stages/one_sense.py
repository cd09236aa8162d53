"""One sense a document (Gale, Church and Yarowsky 1992): what a text calls by one name is mostly of one type.

A stage reads each sentence for itself. Here the mentions of one surface in a document are put together, behind
classification and behind the memory of earlier answers, so that what is remembered of a sentence never depends on the
document that it was in.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from el4ner.text.overlaps import resolve_overlaps
from el4ner.text.white_space import as_read
from el4ner.types import NONE_TYPE, Entity, SentenceTypes, Span, TypedSpan

__all__ = ["with_one_sense"]

_CERTAIN: Final = 1e-6


def with_one_sense(sentences: Sequence[SentenceTypes], labels: int) -> tuple[SentenceTypes, ...]:
    """A document's sentences, in which mentions of one surface have one type.

    Mentions vote for their label, ``none`` too, each by the log-odds of its confidence against the other labels
    together (what a product of experts comes to, of whom only the first choice is known). The type with the most votes
    is that of all mentions that have one; those without one get it where it has more votes than ``none``. No mention
    loses its type to ``none``, and one inside of a longer entity (*York*, in *New York*) neither votes nor changes.

    A mention that changes gets the mean log-odds of those that had the type. A mean, since mentions of one surface are
    compared with the same spans of the pool, and are no independent evidence.

    Args:
        sentences: of one document, with its offsets.
        labels: how many there are to choose from, none included.
    """
    held = _Held(_reported(sentences))
    mentions: dict[str, list[TypedSpan]] = {}
    for sentence in sentences:
        for typed in sentence.typed:
            if typed.candidate.span not in held:
                mentions.setdefault(as_read(typed.candidate.span.text), []).append(typed)
    changed = {
        before.candidate.span: after
        for group in mentions.values()
        for before, after in zip(group, _agreed(group, labels), strict=True)
        if after is not before
    }
    return tuple(
        replace(sentence, typed=tuple(changed.get(typed.candidate.span, typed) for typed in sentence.typed))
        for sentence in sentences
    )


def _agreed(mentions: Sequence[TypedSpan], labels: int) -> Sequence[TypedSpan]:
    by_label: dict[str, list[float]] = {}
    for typed in mentions:
        by_label.setdefault(typed.type, []).append(_log_odds(typed.confidence))
    if len(by_label) == 1:
        return mentions
    against_each = math.log(max(1, labels - 1))
    votes = {
        label: math.fsum(max(0.0, log_odds + against_each) for log_odds in believed)
        for label, believed in sorted(by_label.items())
    }
    none = votes.pop(NONE_TYPE, 0.0)
    sense = max(votes, key=lambda label: votes[label])
    log_odds = math.fsum(by_label[sense]) / len(by_label[sense])
    return [
        replace(typed, type=sense, confidence=1 / (1 + math.exp(-log_odds)))
        if typed.type != sense and (typed.type != NONE_TYPE or votes[sense] > none)
        else typed
        for typed in mentions
    ]


def _log_odds(confidence: float) -> float:
    inside = min(max(confidence, _CERTAIN), 1 - _CERTAIN)
    return math.log(inside / (1 - inside))


def _reported(sentences: Iterable[SentenceTypes]) -> tuple[Entity, ...]:
    """What would be reported if there were no other step behind."""
    return resolve_overlaps(
        Entity(typed.candidate.span.start, typed.candidate.span.end, "", typed.type, typed.confidence)
        for sentence in sentences
        for typed in sentence.typed
        if typed.type != NONE_TYPE
    )


class _Held:
    """Spans that lie inside of a longer entity. ``entities``: sorted, without overlaps."""

    def __init__(self, entities: Sequence[Entity]) -> None:
        self._entities = entities
        self._starts = [entity.start for entity in entities]

    def __contains__(self, span: Span) -> bool:
        place = bisect_right(self._starts, span.start) - 1
        if place < 0:
            return False
        outer = self._entities[place]
        return span.end <= outer.end and (span.start, span.end) != (outer.start, outer.end)

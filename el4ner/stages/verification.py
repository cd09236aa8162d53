"""Would validation pay? The verifier's verdicts on sentences of the pool itself, where the truth is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from el4ner.engines.base import Engine
from el4ner.evidence import Evidence
from el4ner.evidence.span_memory import PoolSpans, drawn
from el4ner.models.progress import NO_PROGRESS, Progress
from el4ner.stages.context import StageContext
from el4ner.stages.extract import SentenceInput
from el4ner.stages.pool_evidence import pool_spans
from el4ner.stages.validate import validate
from el4ner.types import NONE_TYPE, Sentence, SentenceEntities, SentenceTypes, SpanCandidate, TypedSpan

__all__ = ["VerifiedPool", "VerifiedSentence", "leave_one_out_types", "verify_pool"]

_BATCH: Final = 8
Demonstrate = Callable[[Sequence[Sentence]], Sequence[SentenceInput]]
"""The demonstrations of each sentence: never the sentence itself."""


@dataclass(frozen=True, slots=True)
class VerifiedSentence:
    """A pool sentence as a document of its own: its typed spans with their verdicts, and its labels as (start, end,
    type)."""

    result: SentenceEntities
    gold: tuple[tuple[int, int, str], ...]


@dataclass(frozen=True, slots=True)
class VerifiedPool:
    """``seconds``: of the verifier alone, for all sentences; those without any entity are not asked about."""

    sentences: tuple[VerifiedSentence, ...]
    seconds: float


def verify_pool(
    context: StageContext,
    verifier: Engine,
    demonstrate: Demonstrate,
    *,
    limit: int,
    clock: Callable[[], float],
    progress: Progress = NO_PROGRESS,
) -> VerifiedPool | None:
    """Ask about every span that leave-one-out calls an entity, with demonstrations, as the validation stage does.

    Args:
        context: of the pool, with its evidence; None is returned where it has none.
        verifier: who is asked.
        demonstrate: stage 1.
        limit: the most sentences; which ones is drawn by a hash of their text.
        clock: gives seconds.
        progress: is told of each sentence.
    """
    if context.evidence is None:
        return None
    spans = pool_spans(context)
    places = _by_chance(spans.texts, limit)
    progress.start(f"types of {len(places)} sentences of pool {context.pool.name}", 0)
    typed = leave_one_out_types(context.evidence, spans, places, list(context.pool.types))
    gold = _gold(spans, list(context.pool.types))
    progress.start(f"asking {verifier.name} about pool {context.pool.name}", len(places))
    judged: list[SentenceEntities] = []
    seconds = 0.0
    for start in range(0, len(places), _BATCH):
        sentences = [_whole(spans.texts[place]) for place in places[start : start + _BATCH]]
        shown = [item.demonstrations for item in demonstrate(sentences)]
        batch = [
            SentenceTypes(*each) for each in zip(sentences, shown, typed[start : start + len(sentences)], strict=True)
        ]
        began = clock()
        judged += validate(batch, verifier, context)[0]
        seconds += clock() - began
        progress.advance(len(sentences))
    progress.done()
    verified = [VerifiedSentence(result, gold[place]) for result, place in zip(judged, places, strict=True)]
    return VerifiedPool(tuple(verified), seconds)


def leave_one_out_types(
    evidence: Evidence, spans: PoolSpans, places: Sequence[int], types: Sequence[str]
) -> list[tuple[TypedSpan, ...]]:
    """The proposals of pool sentences with their types, as the whole ensemble decides them without the sentence's own
    labels; only the few weights of the calibration have seen these too.

    Args:
        evidence: the pool's.
        spans: the pool's, as the evidence was made from.
        places: in ``spans.texts``, ascending.
        types: the pool's, in its order.
    """
    rows = spans.rows(places)
    if not len(rows):
        return [() for _ in places]
    said = np.concatenate([source.leave_one_out(spans, rows, places) for source in evidence.sources], axis=1)
    decisions = evidence.calibration.steps[-1].combination.decide(said)
    labels = [*types, NONE_TYPE]
    chosen = {
        row: (labels[kind], min(1.0, confidence))
        for row, kind, confidence in zip(
            rows.tolist(), decisions.chosen.tolist(), decisions.confidence.tolist(), strict=True
        )
    }
    return [
        tuple(
            TypedSpan(SpanCandidate(span, ()), *chosen[row])
            for row, span in zip(spans.rows([place]).tolist(), spans.spans[place], strict=True)
            if spans.proposed[row]
        )
        for place in places
    ]


def _by_chance(texts: Sequence[str], limit: int) -> list[int]:
    """Places of different texts."""
    first = {text: place for place, text in reversed(list(enumerate(texts)))}
    different = list(first)
    return sorted(first[different[index]] for index in drawn(different, limit))


def _gold(spans: PoolSpans, types: Sequence[str]) -> list[tuple[tuple[int, int, str], ...]]:
    labels = spans.labels.tolist()
    return [
        tuple(
            (span.start, span.end, types[labels[row]])
            for row, span in enumerate(spans_of, start=start)
            if labels[row] < len(types)
        )
        for spans_of, start in zip(spans.spans, spans.first_rows.tolist(), strict=False)
    ]


def _whole(text: str) -> Sentence:
    return Sentence(0, len(text), text)

"""Stage 3: span classification. Every member gives each candidate a type, or none; the ensemble votes.

``paper``: members write the types, the majority wins (section 3.3). ``scored``, which is not in the paper: by the
evidence of the pool's labelled spans (:mod:`el4ner.evidence`); without any, members' log-probabilities over the type
names and ``none`` are turned into probabilities, and their mean decides.

Asking and deciding are apart (:mod:`~el4ner.stages.asking`, :mod:`~el4ner.stages.deciding`), since members may run in
processes of their own: then what they said is decided about by :mod:`~el4ner.stages.combine`, with the same functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from el4ner.engines.base import CandidateScore, Engine
from el4ner.evidence import Evidence
from el4ner.stages.asking import question, scored, written
from el4ner.stages.context import StageContext
from el4ner.stages.deciding import by_majority, by_mean, judged
from el4ner.types import Mode, SentenceCandidates, SentenceTypes, TypedSpan, Usage

__all__ = ["classify", "softmax"]


def classify(
    batch: Sequence[SentenceCandidates], engines: Sequence[Engine], context: StageContext
) -> tuple[list[SentenceTypes], Usage]:
    """A typed span for every candidate of every sentence, in order; ``none`` stays in the result."""
    asked = [item for item in batch if item.candidates]
    if context.settings.mode is Mode.PAPER:
        typed, usage = _by_votes(asked, engines, context)
    elif context.evidence is None:
        typed, usage = _by_scores(asked, engines, context)
    else:
        typed, usage = _by_evidence(asked, context.evidence)
    answers = iter(typed)
    return [
        SentenceTypes(item.sentence, item.demonstrations, next(answers) if item.candidates else ()) for item in batch
    ], usage


def _by_votes(
    batch: Sequence[SentenceCandidates], engines: Sequence[Engine], context: StageContext
) -> tuple[list[tuple[TypedSpan, ...]], Usage]:
    votes, usage = written(batch, engines, context)
    tie_winner = engines[-1].name if engines else ""
    return [
        by_majority(item.candidates, votes_of, tie_winner) for item, votes_of in zip(batch, votes, strict=True)
    ], usage


def _by_scores(
    batch: Sequence[SentenceCandidates], engines: Sequence[Engine], context: StageContext
) -> tuple[list[tuple[TypedSpan, ...]], Usage]:
    scores, usage = scored(batch, engines, context)
    names = [engine.name for engine in engines]
    return [
        by_mean(item.candidates, of_item, names, context.labels) for item, of_item in zip(batch, scores, strict=True)
    ], usage


def _by_evidence(batch: Sequence[SentenceCandidates], evidence: Evidence) -> tuple[list[tuple[TypedSpan, ...]], Usage]:
    judgements, usage = evidence.judge([question(item) for item in batch])
    return [judged(item.candidates, of_item) for item, of_item in zip(batch, judgements, strict=True)], usage


def softmax(scores: Sequence[CandidateScore]) -> list[float]:
    """The candidates' probabilities, given that one of them is the answer."""
    top = max(score.logprob for score in scores)
    weights = [math.exp(score.logprob - top) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]

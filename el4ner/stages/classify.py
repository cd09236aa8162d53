"""Stage 3: span classification. Every member gives each candidate a type, or none; the ensemble votes.

``paper``: members write the types, the majority wins (section 3.3). ``scored``, which is not in the paper: by the
evidence of the pool's labelled spans (:mod:`el4ner.evidence`); without any, members' log-probabilities over the type
names and ``none`` are turned into probabilities, and their mean decides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from el4ner.engines.base import CandidateScore, Engine, GenerateRequest
from el4ner.evidence import Evidence, Question
from el4ner.evidence.judges import log_softmax
from el4ner.stages.answers import parse_typed_lines
from el4ner.stages.context import STOP, StageContext
from el4ner.stages.in_context import type_scores
from el4ner.types import NONE_TYPE, Mode, SentenceCandidates, SentenceTypes, Span, SpanCandidate, TypedSpan, Usage

__all__ = ["classify", "majority", "softmax"]


def classify(
    batch: Sequence[SentenceCandidates], engines: Sequence[Engine], context: StageContext
) -> tuple[list[SentenceTypes], Usage]:
    """A typed span for every candidate of every sentence, in order; ``none`` stays in the result."""
    asked = [item for item in batch if item.candidates]
    if context.settings.mode is Mode.PAPER:
        typed, usage = _voted(asked, engines, context, _written, majority)
    elif context.evidence is None:
        typed, usage = _voted(asked, engines, context, _scored, _mean)
    else:
        typed, usage = _judged(asked, context.evidence)
    found = iter(typed)
    return [
        SentenceTypes(item.sentence, item.demonstrations, next(found) if item.candidates else ()) for item in batch
    ], usage


def _judged(batch: Sequence[SentenceCandidates], evidence: Evidence) -> tuple[list[tuple[TypedSpan, ...]], Usage]:
    """By the pool's evidence (:mod:`el4ner.evidence`)."""
    judgements, usage = evidence.judge([_question(item) for item in batch])
    return [
        tuple(
            TypedSpan(candidate, found.type, found.confidence, found.votes)
            for candidate, found in zip(item.candidates, own, strict=True)
        )
        for item, own in zip(batch, judgements, strict=True)
    ], usage


def _question(item: SentenceCandidates) -> Question:
    start = item.sentence.start
    spans = [candidate.span for candidate in item.candidates]
    own = tuple(Span(span.start - start, span.end - start, span.text) for span in spans)
    return Question(item.sentence.text, own, item.demonstrations)


def _voted(
    batch: Sequence[SentenceCandidates], engines: Sequence[Engine], context: StageContext, ask: _Ask, decide: _Decide
) -> tuple[list[tuple[TypedSpan, ...]], Usage]:
    """By the members' votes alone."""
    labels = [*context.pool.types, NONE_TYPE]
    beliefs: list[list[dict[str, Mapping[str, float]]]] = [[{} for _ in item.candidates] for item in batch]
    usage = Usage()
    for engine in engines if batch else ():
        results, used = ask(batch, engine, labels, context)
        usage += used
        for sentence_beliefs, sentence_results in zip(beliefs, results, strict=True):
            for belief, result in zip(sentence_beliefs, sentence_results, strict=True):
                if result is not None:
                    belief[engine.name] = result
    tie_winner = engines[-1].name if engines else ""
    return [
        tuple(
            _typed(candidate, belief, decide(belief, tie_winner))
            for candidate, belief in zip(item.candidates, sentence_beliefs, strict=True)
        )
        for item, sentence_beliefs in zip(batch, beliefs, strict=True)
    ], usage


Belief = Mapping[str, float]
"""A member's probability of each type, or of those that it named."""


def _typed(candidate: SpanCandidate, belief: Mapping[str, Belief], decision: tuple[str, float]) -> TypedSpan:
    votes = {name: max(probabilities, key=lambda label: probabilities[label]) for name, probabilities in belief.items()}
    return TypedSpan(candidate, decision[0], decision[1], votes)


def majority(belief: Mapping[str, Belief], tie_winner: str) -> tuple[str, float]:
    """The type with the most votes and its share of them; a tie goes to the member ``tie_winner``, then to the first.

    Without any vote the candidate is ``none``: nobody called it an entity.
    """
    votes = {name: max(named, key=lambda label: named[label]) for name, named in belief.items()}
    if not votes:
        return NONE_TYPE, 1.0
    counts = Counter(votes.values())
    best = max(counts.values())
    leaders = [label for label, count in counts.items() if count == best]
    winner = votes[tie_winner] if votes.get(tie_winner) in leaders else leaders[0]
    return winner, best / len(votes)


def _mean(belief: Mapping[str, Belief], tie_winner: str) -> tuple[str, float]:
    del tie_winner
    if not belief:
        return NONE_TYPE, 1.0
    members = list(belief.values())
    mean = {label: sum(member[label] for member in members) / len(members) for label in members[0]}
    winner = max(mean, key=lambda label: mean[label])
    return winner, min(1.0, mean[winner])


def _written(
    batch: Sequence[SentenceCandidates], engine: Engine, labels: Sequence[str], context: StageContext
) -> tuple[list[list[Belief | None]], Usage]:
    """Paper mode: one answer a sentence, a line a span. A span without a line, or with an unknown type, is no vote."""
    surfaces = [list(dict.fromkeys(candidate.span.text for candidate in item.candidates)) for item in batch]
    # Every span is written again with its type: room for that, and no more than the model can read.
    room = [min(1024, 16 + sum(len(s.encode()) // 2 + 8 for s in names)) for names in surfaces]
    results = engine.generate(
        [
            GenerateRequest(
                context.prompt(
                    engine,
                    "paper_classify",
                    item.demonstrations,
                    reserve=most,
                    sentence=item.sentence.text,
                    surfaces=names,
                ),
                most,
                STOP,
            )
            for item, names, most in zip(batch, surfaces, room, strict=True)
        ]
    )
    usage = sum((result.usage for result in results), Usage())
    answers: list[list[Belief | None]] = []
    for item, result in zip(batch, results, strict=True):
        written = parse_typed_lines(f"-{result.text}", labels)
        chosen = [written.get(candidate.span.text) for candidate in item.candidates]
        answers.append([None if label is None else {label: 1.0} for label in chosen])
    return answers, usage


def _scored(
    batch: Sequence[SentenceCandidates], engine: Engine, labels: Sequence[str], context: StageContext
) -> tuple[list[list[Belief | None]], Usage]:
    """Scored mode without evidence: the member's probabilities of the labels in context."""
    answers, usage = type_scores([_question(item) for item in batch], engine, context)
    return [
        [dict(zip(labels, np.exp(row).tolist(), strict=True)) for row in log_softmax(answer)] for answer in answers
    ], usage


_Ask = Callable[
    [Sequence[SentenceCandidates], Engine, Sequence[str], StageContext], tuple[list[list[Belief | None]], Usage]
]
_Decide = Callable[[Mapping[str, Belief], str], tuple[str, float]]


def softmax(scores: Sequence[CandidateScore]) -> list[float]:
    """The candidates' probabilities, given that one of them is the answer."""
    top = max(score.logprob for score in scores)
    weights = [math.exp(score.logprob - top) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]

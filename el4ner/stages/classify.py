"""Stage 3: span classification. Every member gives each candidate a type, or none; the ensemble votes.

``paper``: members write the types, the majority wins (section 3.3). ``scored``: members' log-probabilities over the
type names and ``none`` are turned into probabilities, and their mean decides. The latter is not in the paper.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from el4ner.engines.base import CandidateScore, Engine, GenerateRequest, ScoreItem, ScoreRequest
from el4ner.stages.answers import parse_typed_lines
from el4ner.stages.context import STOP, StageContext
from el4ner.types import NONE_TYPE, Mode, SentenceCandidates, SentenceTypes, SpanCandidate, TypedSpan, Usage

__all__ = ["classify", "majority", "softmax"]


def classify(
    batch: Sequence[SentenceCandidates], engines: Sequence[Engine], context: StageContext
) -> tuple[list[SentenceTypes], Usage]:
    """A typed span for every candidate of every sentence, in order; ``none`` stays in the result."""
    asked = [item for item in batch if item.candidates]
    labels = [*context.pool.types, NONE_TYPE]
    votes = _scored if context.settings.mode is Mode.SCORED else _written
    beliefs: list[list[dict[str, Mapping[str, float]]]] = [[{} for _ in item.candidates] for item in asked]
    usage = Usage()
    for engine in engines if asked else ():
        results, used = votes(asked, engine, labels, context)
        usage += used
        for sentence_beliefs, sentence_results in zip(beliefs, results, strict=True):
            for belief, result in zip(sentence_beliefs, sentence_results, strict=True):
                if result is not None:
                    belief[engine.name] = result
    decide = _mean if context.settings.mode is Mode.SCORED else majority
    tie_winner = engines[-1].name if engines else ""
    typed = iter(
        [
            tuple(
                _typed(candidate, belief, decide(belief, tie_winner))
                for candidate, belief in zip(item.candidates, sentence_beliefs, strict=True)
            )
            for item, sentence_beliefs in zip(asked, beliefs, strict=True)
        ]
    )
    return [
        SentenceTypes(item.sentence, item.demonstrations, next(typed) if item.candidates else ()) for item in batch
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
    """Scored mode: every label as the continuation of ``- span:`` behind the sentence's shared prompt."""
    continuations = tuple(f" {label}" for label in labels)
    requests = []
    surfaces = []
    for item in batch:
        names = list(dict.fromkeys(candidate.span.text for candidate in item.candidates))
        surfaces.append(names)
        tails = [context.prompts.block("scored", "item", surface=name) for name in names]
        reserve = max(len(tail.encode()) for tail in tails) + 64
        prompt = context.prompt(engine, "scored", item.demonstrations, reserve=reserve, sentence=item.sentence.text)
        requests.append(ScoreRequest(prompt, tuple(ScoreItem(tail, continuations) for tail in tails)))
    results = engine.score(requests)
    usage = sum((result.usage for result in results), Usage())
    answers: list[list[Belief | None]] = []
    for item, names, result in zip(batch, surfaces, results, strict=True):
        by_name = {
            name: dict(zip(labels, softmax(scores), strict=True))
            for name, scores in zip(names, result.scores, strict=True)
        }
        answers.append([by_name[candidate.span.text] for candidate in item.candidates])
    return answers, usage


def softmax(scores: Sequence[CandidateScore]) -> list[float]:
    """The candidates' probabilities, given that one of them is the answer."""
    top = max(score.logprob for score in scores)
    weights = [math.exp(score.logprob - top) for score in scores]
    total = sum(weights)
    return [weight / total for weight in weights]

"""What members say of candidates, each for itself, before anything is decided (:mod:`~el4ner.stages.deciding`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

import numpy as np

from el4ner.engines import checks
from el4ner.engines.base import Engine, GenerateRequest
from el4ner.evidence import SentenceQuestion, Source
from el4ner.evidence.corrections_apart import NearSource
from el4ner.evidence.judges import Floats, log_softmax
from el4ner.stages.answers import parse_typed_lines
from el4ner.stages.context import STOP, StageContext
from el4ner.stages.in_context import type_scores
from el4ner.text.white_space import as_read
from el4ner.types import Mode, NearTaught, SentenceAnswers, SentenceCandidates, Usage

__all__ = ["ask_members", "question", "scored", "written"]


def ask_members(
    batch: Sequence[SentenceCandidates],
    engines: Sequence[Engine],
    sources: Sequence[Source],
    context: StageContext,
    near: NearSource | None = None,
) -> tuple[list[SentenceAnswers], Usage]:
    """Stage 3 without the decision: in paper mode ``engines`` are asked, in scored mode ``sources``, and ``near`` for
    what was taught and is like a candidate."""
    asked = [item for item in batch if item.candidates]
    if context.settings.mode is Mode.PAPER:
        votes, usage = written(asked, engines, context)
        written_votes = iter(votes)
        return [
            SentenceAnswers(
                item.sentence,
                item.demonstrations,
                item.candidates,
                votes=tuple(next(written_votes)) if item.candidates else (),
            )
            for item in batch
        ], usage
    scores, usage = _said(asked, sources)
    taught: Iterator[NearTaught | None] = repeat(None)
    if near is not None:
        mentioned, used = near.near([question(item) for item in asked])
        taught, usage = iter(mentioned), usage + used
    answers = iter(scores)
    return [
        SentenceAnswers(
            item.sentence,
            item.demonstrations,
            item.candidates,
            said=next(answers) if item.candidates else None,
            near=next(taught) if item.candidates else None,
        )
        for item in batch
    ], usage


def written(
    batch: Sequence[SentenceCandidates], engines: Sequence[Engine], context: StageContext
) -> tuple[list[list[dict[str, str]]], Usage]:
    """Paper mode: for each sentence and candidate the type that each member wrote. An answer has a line for each span;
    a span without a line, or with an unknown type, has no vote of that member."""
    votes: list[list[dict[str, str]]] = [[{} for _ in item.candidates] for item in batch]
    usage = Usage()
    for engine in engines if batch else ():
        labels, used = _written(batch, engine, context)
        usage += used
        for votes_of, labels_of in zip(votes, labels, strict=True):
            for vote, label in zip(votes_of, labels_of, strict=True):
                if label is not None:
                    vote[engine.name] = label
    return votes, usage


def scored(
    batch: Sequence[SentenceCandidates], engines: Sequence[Engine], context: StageContext
) -> tuple[list[Floats], Usage]:
    """Scored mode without evidence: for each sentence the members' log-probabilities in context, ``[spans, members,
    types + none]``."""
    questions = [question(item) for item in batch]
    by_sentence: list[list[Floats]] = [[] for _ in batch]
    usage = Usage()
    for engine in engines if batch else ():
        answers, used = type_scores(questions, engine, context)
        usage += used
        for scores, answer in zip(by_sentence, answers, strict=True):
            scores.append(log_softmax(answer))
    return [np.stack(scores, axis=1) for scores in by_sentence], usage


def question(item: SentenceCandidates) -> SentenceQuestion:
    """The sentence with its candidates."""
    return SentenceQuestion(
        item.sentence.text,
        tuple(candidate.span for candidate in item.candidates),
        item.demonstrations,
        tuple(candidate.boundary for candidate in item.candidates),
    )


def _said(batch: Sequence[SentenceCandidates], sources: Sequence[Source]) -> tuple[list[Floats], Usage]:
    """For each sentence ``[spans, features of all sources, types + none]``."""
    questions = [question(item) for item in batch]
    by_sentence: list[list[Floats]] = [[] for _ in batch]
    usage = Usage()
    for source in sources if batch else ():
        answers, used = source.answer(questions)
        usage += used
        for scores, answer in zip(by_sentence, answers, strict=True):
            scores.append(answer)
    return [np.concatenate(scores, axis=1) for scores in by_sentence], usage


def _written(
    batch: Sequence[SentenceCandidates], engine: Engine, context: StageContext
) -> tuple[list[list[str | None]], Usage]:
    surfaces = [list(dict.fromkeys(as_read(candidate.span.text) for candidate in item.candidates)) for item in batch]
    # Every span is written again with its type: room for that, and no more than the model can read.
    room = [min(1024, 16 + sum(len(s.encode()) // 2 + 8 for s in names)) for names in surfaces]
    results = checks.generate(
        engine,
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
        ],
    )
    usage = sum((result.usage for result in results), Usage())
    answers: list[list[str | None]] = []
    for item, result in zip(batch, results, strict=True):
        lines = parse_typed_lines(f"-{result.text}", context.labels)
        answers.append([lines.get(as_read(candidate.span.text)) for candidate in item.candidates])
    return answers, usage

"""A member's answers in the few-shot prompt: log-probabilities of the type names behind each span. Not in the paper,
where members write the types."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from el4ner.engines import checks
from el4ner.engines.base import Engine, ScoreItem, ScoreRequest
from el4ner.evidence.judges import Floats
from el4ner.evidence.sources import SentenceQuestion
from el4ner.stages.context import StageContext
from el4ner.text.white_space import as_read
from el4ner.types import NONE_TYPE, Usage

__all__ = ["type_scores"]


def type_scores(
    questions: Sequence[SentenceQuestion], engine: Engine, context: StageContext
) -> tuple[list[Floats], Usage]:
    """For each question ``[spans, types + none]``: every label as the continuation of ``- span:`` behind the sentence's
    prompt. Summed log-probabilities of the whole name; not normalised."""
    labels = [*context.pool.types, NONE_TYPE]
    continuations = tuple(f" {label}" for label in labels)
    requests = []
    surfaces = []
    for question in questions:
        names = list(dict.fromkeys(span.text for span in question.spans))
        surfaces.append(names)
        tails = [context.prompts.block("scored", "item", surface=as_read(name)) for name in names]
        reserve = max((len(tail.encode()) for tail in tails), default=0) + 64
        prompt = context.prompt(engine, "scored", question.demonstrations, reserve=reserve, sentence=question.text)
        requests.append(ScoreRequest(prompt, tuple(ScoreItem(tail, continuations) for tail in tails)))
    results = checks.score(engine, requests)
    answers: list[Floats] = []
    for question, names, result in zip(questions, surfaces, results, strict=True):
        row = {name: [score.logprob for score in each] for name, each in zip(names, result.scores, strict=True)}
        scores = [row[span.text] for span in question.spans]
        answers.append(np.asarray(scores, dtype=np.float32).reshape(len(scores), len(labels)))
    return answers, sum((result.usage for result in results), Usage())

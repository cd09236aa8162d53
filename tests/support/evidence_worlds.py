"""Made-up pools whose truth is known, and sources that know as much of it as a test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from el4ner.evidence.judges import Floats, Ints, log_softmax
from el4ner.evidence.sources import InContextSource, SentenceQuestion
from el4ner.evidence.span_memory import PoolSpans
from el4ner.types import Span, Usage

TYPES = ("person", "place")
KINDS = len(TYPES) + 1
NONE = len(TYPES)


def made_spans(seed: int = 0, *, sentences: int = 40, proposed: float = 0.9) -> PoolSpans:
    """Sentences of four words, each word a span with a label by chance; most of them proposed. All words differ."""
    rng = np.random.default_rng(seed)
    texts, spans = [], []
    for number in range(sentences):
        words = [f"w{number:03}{letter}" for letter in "abcd"]
        texts.append(" ".join(words))
        spans.append(tuple(Span(6 * place, 6 * place + 5, word) for place, word in enumerate(words)))
    count = 4 * sentences
    return PoolSpans(
        tuple(texts),
        tuple(spans),
        rng.integers(0, KINDS, count),
        np.repeat(np.arange(sentences), 4),
        rng.random(count) < proposed,
    )


def noisy(labels: Ints, strength: float, seed: int, *, features: int = 1) -> Floats:
    """Log-probabilities ``[spans, features, types + none]`` that see the labels through noise; strength 0: nothing."""
    scores = np.random.default_rng(seed).standard_normal((len(labels), features, KINDS)).astype(np.float32)
    scores[np.arange(len(labels)), :, labels] += strength
    return log_softmax(scores)


class KnownSource:
    """Says of every surface of the made spans what it is told to; counts the surfaces and the pools that it is asked
    about."""

    def __init__(
        self, name: str, spans: PoolSpans, evidence: Floats, *, fingerprint: str = "f", voter: str = ""
    ) -> None:
        self.name = name
        self.voter = voter or name
        self.fingerprint = fingerprint
        self.features = tuple(f"feature {number}" for number in range(evidence.shape[1]))
        self.evidence = evidence
        surfaces = [span.text for own in spans.spans for span in own]
        self.by_surface: Mapping[str, Floats] = dict(zip(surfaces, evidence, strict=True))
        self.asked: list[str] = []
        self.estimated = 0

    def answer(self, questions: Sequence[SentenceQuestion]) -> tuple[list[Floats], Usage]:
        self.asked += [span.text for question in questions for span in question.spans]
        answers = [np.stack([self.by_surface[span.text] for span in question.spans]) for question in questions]
        return answers, Usage(sum(map(len, answers)), 0, 0)

    def leave_one_out(self, spans: PoolSpans, rows: Ints, sentences: Sequence[int]) -> Floats:
        self.estimated += 1
        return self.evidence[rows]


def in_context(member: str, spans: PoolSpans, evidence: Floats) -> tuple[InContextSource, list[SentenceQuestion]]:
    """A source in context that knows ``evidence`` ``[spans, 1, kinds]``, and the questions that it is asked."""
    known = KnownSource(member, spans, evidence)
    questions: list[SentenceQuestion] = []

    def ask(asked: Sequence[SentenceQuestion]) -> tuple[list[Floats], Usage]:
        questions.extend(asked)
        answers, usage = known.answer(asked)
        return [answer[:, 0] for answer in answers], usage

    def retrieve(texts: Sequence[str], surfaces: Sequence[Sequence[str]]) -> list[tuple[int, ...]]:
        assert len(texts) == len(surfaces)
        return [(len(text),) for text in texts]

    return InContextSource(member, "f", ask, retrieve), questions

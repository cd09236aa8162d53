"""Who says something about a span's type: a member by its states or by its answers in context, and what extraction
found of the span's boundaries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from el4ner.evidence.encoders import SpanEncoder
from el4ner.evidence.judges import Floats, Ints, Prototypes, log_softmax, neighbours
from el4ner.evidence.span_memory import PoolSpans, SpanMemory
from el4ner.evidence.span_sums import SpanSums
from el4ner.types import Span, Speaker, Usage

__all__ = [
    "BOUNDARIES",
    "TAUGHT",
    "BoundarySource",
    "Described",
    "InContextSource",
    "SentenceQuestion",
    "Source",
    "StateKind",
    "StateSource",
    "described",
]

StateKind = Literal["neighbours", "prototypes"]
BOUNDARIES: Final = "boundaries"
"""The name of the source that is no member, and of the proposer whose answers it passes on."""
TAUGHT: Final = "taught"
"""The name of the source that is no member either: what a person said."""
LAYER_NAMES: Final = ("middle", "last")
LEAST: Final = 1e-5
"""The least probability, and the least of the opposite, that is taken as it is said."""
FOLDS: Final = 10
"""Prototypes are estimated without a tenth of the sentences to judge that tenth: leaving out one sentence at a time
would mean as many inversions as there are sentences."""


@dataclass(frozen=True, slots=True)
class SentenceQuestion:
    """A sentence with the spans that are asked about (offsets are the sentence's), and its demonstrations.

    ``boundaries``: how likely each span is an entity, as :class:`~el4ner.types.SpanCandidate` has it; empty: nobody
    says so of any.
    """

    text: str
    spans: tuple[Span, ...]
    demonstrations: tuple[int, ...] = ()
    boundaries: tuple[float | None, ...] = ()


class Described(Protocol):
    """What there is to know of a source without asking it: also of one in another process, by its
    :class:`~el4ner.types.Speaker`."""

    @property
    def name(self) -> str:
        """Of the source, unique in an ensemble."""

    @property
    def voter(self) -> str:
        """Whose vote it is: the member's name."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the answers may."""

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the kinds of evidence, in the order of the answers."""


class Source(Described, Protocol):
    """Log-probabilities over the pool's types and none, of one or several kinds (features)."""

    def answer(self, questions: Sequence[SentenceQuestion]) -> tuple[list[Floats], Usage]:
        """For each question ``[spans, features, types + none]``."""

    def leave_one_out(self, spans: PoolSpans, rows: Ints, sentences: Sequence[int]) -> Floats:
        """What it would say of the pool's own spans, if their sentence were not in the pool.

        ``sentences`` are places in ``spans.texts`` and ``rows`` the rows of their spans, both ascending; the result is
        ``[rows, features, types + none]``.
        """


def described(source: Source) -> Speaker:
    """The source as whoever hears its answers knows it."""
    return Speaker(
        source.name, source.voter, source.fingerprint, source.features, not isinstance(source, InContextSource)
    )


class StateSource:
    """A span encoder with its memory of the pool.

    It answers two questions apart: which type a span has if it is an entity, by the pool's entities alone; and whether
    it is one, by what the pool shows of both. What is no entity is mostly a piece of one, or one with a word too many,
    and so looks like that type: asked together it would take votes from the type that it shows.

    Args:
        encoder: makes new spans comparable.
        memory: of the pool's spans.
        spans: the pool's.
        kinds: how many types there are, none included.
        using: the kinds of evidence.
        by_boundaries: somebody else tells where an entity begins and ends (:class:`BoundarySource`), so that a piece of
            one is no example of what is no entity.
        kind: behind the encoder's name, where it has more than one source.
        prototypes: of each layer the rules by entities and by all examples, where they are known.
    """

    def __init__(
        self,
        encoder: SpanEncoder,
        memory: SpanMemory,
        spans: PoolSpans,
        kinds: int,
        using: Sequence[StateKind],
        *,
        by_boundaries: bool = False,
        kind: str = "",
        prototypes: Sequence[tuple[Prototypes, Prototypes]] | None = None,
    ) -> None:
        self._encoder = encoder
        self.memory = memory
        self.kinds = kinds
        self._last: tuple[tuple[SentenceQuestion, ...], Floats] | None = None
        self._kind, self._by_boundaries = kind, by_boundaries
        self._using = tuple(using)
        self._owners = spans.sentences
        self._entities = np.flatnonzero(spans.labels < kinds - 1)
        everything = np.ones(len(spans.labels), dtype=np.bool_)
        self._examples = self._examples_of(spans, kinds)
        self._labels = spans.labels
        self.name, self.voter = f"{encoder.name} {kind}".rstrip(), encoder.name
        # With prepared vectors it is the same whatever number type the queries are read in.
        read_by = encoder.fingerprint
        if memory.prepared is not None:
            read_by = f"{encoder.states_fingerprint} prepared {memory.prepared}"
        self.fingerprint = f"states{'' if by_boundaries else ' and pieces'} {spans.fingerprint} {read_by}"
        self.features = tuple(
            f"{way} {layer}{question}"
            for way in self._using
            for layer in LAYER_NAMES[: len(memory.vectors)]
            for question in ("", " entity")
        )
        self._prototypes = prototypes or []
        if prototypes is None and "prototypes" in using:
            self._prototypes = [self._rules(layer, everything) for layer in memory.vectors]
        # Taken out of the memory once: every batch of the stream is compared with them. Entities, which are examples
        # too, stand first, so that they need no copy of their own.
        self._in_order = np.concatenate([self._entities, np.setdiff1d(self._examples, self._entities)])
        self._known = [layer[self._in_order] for layer in memory.vectors] if "neighbours" in using else []

    def with_taught(self, added: Floats, rows: Ints, spans: PoolSpans, kinds: int) -> StateSource:
        """The same encoder, with what it has read of a pool that was taught.

        Args:
            added: vectors of taught spans, ``[layers, spans, dimensions]``.
            rows: of the spans that are left of those that are known here, ascending.
            spans: these, and behind them the taught ones.
            kinds: how many types there are, none included; types that are new stand behind the others.
        """
        prototypes = None
        if "prototypes" in self._using:
            prototypes = self._taught_prototypes(added, rows, spans, kinds)
        return StateSource(
            self._encoder,
            self.memory.with_taught(added, rows),
            spans,
            kinds,
            self._using,
            by_boundaries=self._by_boundaries,
            kind=self._kind,
            prototypes=prototypes,
        )

    def _taught_prototypes(
        self, added: Floats, rows: Ints, spans: PoolSpans, kinds: int
    ) -> list[tuple[Prototypes, Prototypes]]:
        """Of each layer: from the sums of the spans that are known here, and the few that come and go."""
        gone = np.setdiff1d(np.arange(len(self._labels)), rows)
        gone = gone[np.isin(gone, self._examples)]
        come = self._examples_of(spans, kinds)
        come = come[come >= len(rows)]
        places = np.append(np.arange(self.kinds - 1), kinds - 1)
        none = self.kinds - 1
        rules = []
        for layer, (entities, others) in enumerate(self._sums):
            known, new = self.memory.vectors[layer], added[layer][come - len(rows)]
            by_kind: list[SpanSums] = []
            for sums, is_entity in ((entities, True), (others, False)):
                left = gone[(self._labels[gone] < none) == is_entity]
                right = (spans.labels[come] < kinds - 1) == is_entity
                by_kind.append(
                    (sums - SpanSums.of(known[left], self._labels[left], self.kinds)).placed(places, kinds)
                    + SpanSums.of(new[right], spans.labels[come][right], kinds)
                )
            of_entities, of_others = by_kind
            alone = SpanSums(of_entities.counts[:-1], of_entities.sums[:-1], of_entities.products)
            rules.append((alone.prototypes(), (of_entities + of_others).prototypes()))
        return rules

    @cached_property
    def _sums(self) -> list[tuple[SpanSums, SpanSums]]:
        """Of each layer those of the entities, and of the other examples."""
        others = np.setdiff1d(self._examples, self._entities)
        return [
            (
                SpanSums.of(vectors[self._entities], self._labels[self._entities], self.kinds),
                SpanSums.of(vectors[others], self._labels[others], self.kinds),
            )
            for vectors in self.memory.vectors
        ]

    def _examples_of(self, spans: PoolSpans, kinds: int) -> Ints:
        """The rows of what is an example of what it is."""
        if not self._by_boundaries:
            return np.arange(len(spans.labels))
        return np.flatnonzero(~spans.pieces(kinds - 1))

    def answer(self, questions: Sequence[SentenceQuestion]) -> tuple[list[Floats], Usage]:
        """The encoder reads the sentences, and its vectors are compared with the memory's."""
        queries, usage = self._vectors_of(questions)
        self._last = (tuple(questions), queries)
        ends = np.cumsum([len(question.spans) for question in questions])
        return list(np.split(self.compared(queries), ends))[:-1], usage

    def vectors(self, questions: Sequence[SentenceQuestion]) -> tuple[Floats, Usage]:
        """The spans' ``[layers, spans, dimensions]``. Those that were answered about last are not read again."""
        if self._last is not None and self._last[0] == tuple(questions):
            return self._last[1], Usage()
        return self._vectors_of(questions)

    def _vectors_of(self, questions: Sequence[SentenceQuestion]) -> tuple[Floats, Usage]:
        states, usage = self._encoder.encode([q.text for q in questions], [q.spans for q in questions])
        if not any(len(states_of) for states_of in states):
            layers, _, dimensions = self.memory.vectors.shape
            return np.zeros((layers, 0, dimensions), np.float32), usage
        return self.memory.comparable(np.concatenate([of_text for of_text in states if len(of_text)])), usage

    def compared(self, queries: Floats) -> Floats:
        """What is said of vectors ``[layers, spans, dimensions]``: ``[spans, features, types + none]``."""
        if not queries.shape[1]:
            return np.zeros((0, len(self.features), self.kinds), np.float32)
        features = []
        for kind in self._using:
            for layer, vectors in enumerate(queries):
                if kind == "neighbours":
                    features += self._by_neighbours(vectors, layer, None)
                else:
                    features += _both(*(rule.of_spans(vectors) for rule in self._prototypes[layer]))
        return np.stack(features, axis=1)

    def leave_one_out(self, spans: PoolSpans, rows: Ints, sentences: Sequence[int]) -> Floats:
        """Nothing is read again: the memory has the states."""
        del spans, sentences
        features = []
        for kind in self._using:
            for layer, vectors in enumerate(self.memory.vectors):
                if kind == "neighbours":
                    features += self._by_neighbours(vectors[rows], layer, self._owners[rows])
                else:
                    features += [said[rows] for said in self._cross_fitted(vectors)]
        return np.stack(features, axis=1)

    def _by_neighbours(self, queries: Floats, layer: int, owners: Ints | None) -> list[Floats]:
        """``owners``: the sentences of the queries, whose spans have no vote; None: they are not the pool's."""
        said = []
        for rows, kinds in ((self._entities, self.kinds - 1), (self._in_order, self.kinds)):
            apart = None if owners is None else (owners, self._owners[rows])
            said.append(neighbours(queries, self._known[layer][: len(rows)], self._labels[rows], kinds, apart=apart))
        return _both(*said)

    def _rules(self, vectors: Floats, among: npt.NDArray[np.bool_]) -> tuple[Prototypes, Prototypes]:
        """By the entities, and by all examples, of those ``among`` which it is made."""
        entities, examples = (rows[among[rows]] for rows in (self._entities, self._examples))
        return (
            Prototypes.of(vectors[entities], self._labels[entities], self.kinds - 1),
            Prototypes.of(vectors[examples], self._labels[examples], self.kinds),
        )

    def _cross_fitted(self, vectors: Floats) -> list[Floats]:
        fold = np.unique(self._owners, return_inverse=True)[1] % FOLDS
        said = [np.zeros((len(vectors), self.kinds), dtype=np.float32) for _ in range(2)]
        for number in range(FOLDS):
            inside = fold == number
            if inside.any():
                rules = self._rules(vectors, ~inside)
                for whole, part in zip(said, _both(*(rule.of_spans(vectors[inside]) for rule in rules)), strict=True):
                    whole[inside] = part
        return said


def _both(types: Floats, kinds: Floats) -> list[Floats]:
    """Two features ``[spans, types + none]``: of the type, which says nothing about none; and of being an entity, which
    says the same of every type.

    Args:
        types: log-probabilities ``[spans, types]`` of an entity's type.
        kinds: ``[spans, types + none]``.
    """
    none = kinds[:, -1:]
    entity = np.log(np.maximum(-np.expm1(none), 1e-6))
    return [
        np.concatenate([types, np.zeros_like(none)], axis=1),
        np.concatenate([np.repeat(entity, kinds.shape[1] - 1, axis=1), none], axis=1),
    ]


class BoundarySource:
    """Whether a span is an entity at all, as extraction found by the states of its words: the same for every type.

    Args:
        fingerprint: of what found it.
        left_out: for each of the pool's spans the probability without its own sentence; NaN: none is known.
    """

    features = ("span",)

    def __init__(self, fingerprint: str, left_out: npt.NDArray[np.float64], kinds: int) -> None:
        self.name = self.voter = BOUNDARIES
        self.fingerprint = f"boundaries {fingerprint}"
        self._left_out = left_out
        self.kinds = kinds

    def answer(self, questions: Sequence[SentenceQuestion]) -> tuple[list[Floats], Usage]:
        """No model is asked: the candidates bring it along. Of a span without, nothing is said."""
        answers = []
        for question in questions:
            known = question.boundaries or (None,) * len(question.spans)
            numbers = np.array([np.nan if value is None else value for value in known], dtype=np.float64)
            answers.append(self.said(numbers))
        return answers, Usage()

    def leave_one_out(self, spans: PoolSpans, rows: Ints, sentences: Sequence[int]) -> Floats:
        """What was found when the pool was read."""
        del spans, sentences
        return self.said(self._left_out[rows])

    def said(self, probabilities: npt.NDArray[np.float64]) -> Floats:
        """``[spans]`` → log-probabilities ``[spans, 1, types + none]``."""
        # Clipped, since a message may also say 0 or 1, which no sum of log-odds could ever outweigh.
        likely = np.where(np.isnan(probabilities), 0.5, probabilities).clip(LEAST, 1 - LEAST)
        said = np.repeat(np.log(likely)[:, None], self.kinds, axis=1)
        said[:, -1] = np.log1p(-likely)
        return said[:, None, :].astype(np.float32)


Ask = Callable[[Sequence[SentenceQuestion]], tuple[list[Floats], Usage]]
"""For each question the member's log-probabilities ``[spans, types + none]`` in the few-shot prompt."""
Retrieve = Callable[[Sequence[str], Sequence[Sequence[str]]], list[tuple[int, ...]]]
"""See :meth:`el4ner.retrieval.Retriever.retrieve`: a sentence's own copy in the pool is never returned."""


class InContextSource:
    """A member's log-probabilities of the type names, with the demonstrations in front (the paper's way, but scored).

    Args:
        member: its name.
        fingerprint: of the member, the prompts and the retriever.
        ask: the member.
        retrieve: finds the demonstrations of pool sentences for leave-one-out.
    """

    features = ("type names",)

    def __init__(self, member: str, fingerprint: str, ask: Ask, retrieve: Retrieve) -> None:
        self.name = f"{member} in context"
        self.voter = member
        self.fingerprint = f"in context {fingerprint}"
        self._ask = ask
        self._retrieve = retrieve

    def answer(self, questions: Sequence[SentenceQuestion]) -> tuple[list[Floats], Usage]:
        """The member is asked, and what it says is made to probabilities."""
        answers, usage = self._ask(questions)
        return [log_softmax(scores)[:, None, :] for scores in answers], usage

    def leave_one_out(self, spans: PoolSpans, rows: Ints, sentences: Sequence[int]) -> Floats:
        """Asks the member about every sentence: minutes."""
        answers: list[Floats] = []
        # Demonstrations are found by what is proposed, as in the stream, which knows no labels.
        flags = iter(spans.proposed[rows].tolist())
        proposed = [[span.text for span in spans.spans[place] if next(flags)] for place in sentences]
        for start in range(0, len(sentences), 8):
            texts = [spans.texts[place] for place in sentences[start : start + 8]]
            asked = [spans.spans[place] for place in sentences[start : start + 8]]
            shown = self._retrieve(texts, proposed[start : start + 8])
            questions = [SentenceQuestion(*each) for each in zip(texts, asked, shown, strict=True)]
            answers += self.answer(questions)[0]
        return np.concatenate(answers)

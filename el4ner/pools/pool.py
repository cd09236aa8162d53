"""A demonstration pool, checked when it is made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

import orjson

from el4ner.errors import PoolError
from el4ner.nearest import choices, nearest_hint
from el4ner.text.atoms import AtomKind, divisible
from el4ner.text.controls import CleanText
from el4ner.text.lexicon import Lexicon
from el4ner.text.segment import TextKind
from el4ner.types import NONE_TYPE, Span

__all__ = ["LeftOut", "Pool", "PoolSentence", "mistake_in", "without_separators"]

_SHOWN: Final = 160


@dataclass(frozen=True, slots=True)
class PoolSentence:
    """A sentence and its labelled spans, sorted, without overlaps. An entity-free sentence has no spans, and is kept:
    it shows what is *not* an entity. ``where`` is ``file:line``, for messages; it is no part of the pool's identity."""

    text: str
    spans: tuple[tuple[Span, str], ...]
    where: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A sentence that is not in the pool. ``mistake``: it is wrong; False: its annotator rejected or passed it over.
    ``advice``: what else to do about it than to mend it."""

    where: str
    reason: str
    mistake: bool = True
    advice: str = ""


@dataclass(frozen=True)
class Pool:
    """A name, entity types with a one-line description each, in the order in which prompts list them, and sentences.

    ``text_kind`` is how documents that use this pool are segmented: prose, or log lines. Sentences are kept as their
    clean texts, as documents are read (:mod:`el4ner.text.controls`). ``base``: of a pool that was taught more than its
    files have, the fingerprint of these files' pool (:mod:`el4ner.pools.taught`).

    Raises:
        PoolError: no types, no sentences, a type that is not declared or reserved, a span that is not in its sentence.
    """

    name: str
    types: Mapping[str, str]
    sentences: tuple[PoolSentence, ...]
    text_kind: TextKind = "prose"
    left_out: tuple[LeftOut, ...] = field(default=(), compare=False)
    base: str | None = field(default=None, compare=False, kw_only=True)
    fingerprint: str = field(init=False)

    def __post_init__(self) -> None:
        if not self.types:
            raise PoolError(f"pool {self.name!r} has no entity types")
        if not self.sentences:
            raise PoolError(f"pool {self.name!r} has no sentences")
        for name in self.types:
            if name.lower() == NONE_TYPE or not name.strip():
                raise PoolError(f"pool {self.name!r}: {name!r} cannot be an entity type: it means «no entity»")
        for sentence in self.sentences:
            if mistake := mistake_in(sentence, self.types):
                raise PoolError(f"{sentence.where or f'pool {self.name!r}'}: {mistake}")
        object.__setattr__(self, "sentences", tuple(without_separators(sentence) for sentence in self.sentences))
        object.__setattr__(self, "fingerprint", self._digest())

    @property
    def lineage(self) -> str:
        """The fingerprint of its files, whatever it was taught since."""
        return self.base or self.fingerprint

    @cached_property
    def lexicon(self) -> Lexicon:
        """The surfaces of the labelled spans. Made once, when it is first asked for."""
        return Lexicon(span.text for sentence in self.sentences for span, _ in sentence.spans)

    @cached_property
    def divisible(self) -> frozenset[AtomKind]:
        """The kinds of tokens, such as e-mail addresses, parts of which are labelled, and so may be proposed."""
        return divisible((sentence.text, [span for span, _ in sentence.spans]) for sentence in self.sentences)

    def _digest(self) -> str:
        """Of everything that a prompt can show: types, descriptions, order, sentences, spans. Not of name or files."""
        content = [
            list(self.types.items()),
            self.text_kind,
            [[s.text, [[span.start, span.end, label] for span, label in s.spans]] for s in self.sentences],
        ]
        return hashlib.sha256(orjson.dumps(content)).hexdigest()[:16]


def without_separators(sentence: PoolSentence) -> PoolSentence:
    """The sentence by its clean text, as documents are read.

    Raises:
        PoolError: nothing is left of a span but white space.
    """
    view = CleanText.of(sentence.text)
    if view.is_original:
        return sentence
    spans = []
    for span, label in sentence.spans:
        start, end = view.inside(span.start, span.end)
        if not view.text[start:end].strip():
            raise PoolError(
                f"{sentence.where or 'a sentence'}: span {_short(span.text)} at {span.start} has nothing but control "
                "characters, escape sequences or white space in it, which belong to no entity"
            )
        spans.append((Span(start, end, view.text[start:end]), label))
    return replace(sentence, text=view.text, spans=tuple(spans))


def mistake_in(sentence: PoolSentence, types: Iterable[str] | None = None) -> str | None:
    """What is wrong with a sentence of a pool that declares these types (None: any); None if nothing is."""
    previous: Span | None = None
    declared = None if types is None else list(types)
    for span, label in sentence.spans:
        if declared is not None and label not in declared:
            return f"type {label!r} is not declared{nearest_hint(label, declared)}; there are: {choices(declared)}"
        if not span.text or sentence.text[span.start : span.end] != span.text:
            actual = sentence.text[span.start : span.end]
            return f"span {span.start}–{span.end} is {_short(actual)}, not {_short(span.text)}"
        if not span.text.strip():
            return f"span {span.start}–{span.end} is nothing but white space: {_short(span.text)}"
        if previous is not None and span.start < previous.end:
            return (
                f"span {_short(span.text)} at {span.start} overlaps {_short(previous.text)} at {previous.start}, "
                "or is not sorted: a place in a text has one type"
            )
        previous = span
    return None


def _short(surface: str) -> str:
    """For a message: a span may be as long as a document."""
    line = repr(surface)
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"

"""Which sentences of a stream a person should look at first: where the answers are least certain, and least like what
the pool has.

What a person is shown was not seen before: of sentences that differ in numbers, times and addresses alone there is one,
none that the pool has is there, and what the sentences in front have taught counts less behind them. Sentences that a
person has looked at, and taught or dismissed, count as if they stood in front of all others.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from el4ner.pools.pool import Pool, PoolSentence
from el4ner.text.controls import CleanText
from el4ner.text.prose_words import Case, words_of
from el4ner.text.segment import segment
from el4ner.text.templates import sighted
from el4ner.types import Entity, Sentence, TaggedDocument

__all__ = ["ROOM", "QueuedSentence", "ReviewQueue"]

ROOM: Final = 1_000
"""Sentences that are remembered: the most promising ones of all that were added."""
NEW_NAME: Final = 0.1
"""What a word that looks like a name, is in no entity, and is not in the pool counts in mistakes."""
NEW_WORD: Final = 0.03
"""What any other word that the pool does not have counts."""
KNOWN: Final = 0.5
"""What an entity counts whose surface a sentence in front of it has."""
SEEN: Final = 1_000
"""So many of the sentences that were taught or dismissed last are remembered."""


@dataclass(frozen=True, slots=True)
class QueuedSentence:
    """A sentence of a document.

    Args:
        document: its id.
        start: where the sentence begins in the document's text, in code points.
        text: of the sentence.
        entities: as the document has them, with the sentence's own offsets.
        doubt: how many of them are wrong, by their confidences.
        new_words: those that neither the pool nor a sentence in front of it has, and how much each counts.
        value: what looking at it is worth: mistakes that are to be expected.
    """

    document: str
    start: int
    text: str
    entities: tuple[Entity, ...]
    doubt: float
    new_words: Mapping[str, float]
    value: float


class ReviewQueue:
    """The sentences of one pool's documents that are worth most, in bounded memory, whatever the order in which the
    documents come.

    Args:
        pool: what the documents are tagged by.
        room: how many sentences are remembered.
        max_chars: of a sentence, as ``method.max_sentence_chars``.
        reach: so many characters of a document are looked at; None: all.
    """

    def __init__(self, pool: Pool, *, room: int = ROOM, max_chars: int = 1_000, reach: int | None = None) -> None:
        self._pool = pool
        self._room = room
        self._max_chars = max_chars
        self._reach = reach
        self._known: Counter[str] = Counter()
        self._words: Counter[str] = Counter()
        for sentence in pool.sentences:
            self._count(sentence.text, 1)
        self._best: dict[str, QueuedSentence] = {}
        self._of_document: dict[str, set[str]] = {}
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def __len__(self) -> int:
        """How many sentences :meth:`first` has to choose from."""
        return min(len(self._best), self._room)

    def __contains__(self, document: str) -> bool:
        """Whether a sentence of the document with that id is remembered."""
        return document in self._of_document

    def add(self, document: TaggedDocument) -> None:
        """A document, or a newer revision of one, which takes the place of what was known of it."""
        self.forget(document.id)
        for sentence in self._sentences(document.text):
            key = _template(sentence.text)
            if key in self._known or key in self._seen:
                continue
            inside = tuple(
                replace(entity, start=entity.start - sentence.start, end=entity.end - sentence.start)
                for entity in document.entities
                if sentence.start <= entity.start and entity.end <= sentence.end
            )
            queued = self._valued(document.id, sentence.start, sentence.text, inside)
            known = self._best.get(key)
            if known is None or _order(queued) < _order(known):
                self._drop(key)
                self._best[key] = queued
                self._of_document.setdefault(document.id, set()).add(key)
        if len(self._best) > 2 * self._room:
            for key in sorted(self._best, key=lambda key: _order(self._best[key]))[self._room :]:
                self._drop(key)

    def forget(self, document: str) -> None:
        """The document with that id was deleted: nothing of it is shown."""
        for key in tuple(self._of_document.get(document, ())):
            self._drop(key)

    def learn(self, sentence: PoolSentence) -> None:
        """The pool was taught this sentence: it is shown no more, and what it says is no news in others. Documents that
        were added keep the confidences that they had."""
        words = self._count(sentence.text, 1)
        key = _template(sentence.text)
        self._drop(key)
        self._see(key, _Seen(frozenset(words), frozenset(span.text.casefold() for span, _ in sentence.spans)))
        for other, queued in self._best.items():
            if not words.keys().isdisjoint(queued.new_words):
                new = {word: weight for word, weight in queued.new_words.items() if word not in words}
                self._best[other] = replace(queued, new_words=new, value=queued.doubt + sum(new.values()))

    def unlearn(self, sentence: PoolSentence) -> None:
        """It was withdrawn, and may be shown again when it comes. Its words are news again in what is added from now
        on."""
        self._count(sentence.text, -1)
        self._seen.pop(_template(sentence.text), None)

    def dismiss(self, document: str, start: int) -> bool:
        """A person does not want to teach the document's sentence that begins there, nor one like it. False: it is not
        remembered."""
        for key in self._of_document.get(document, ()):
            sentence = self._best[key]
            if sentence.start == start:
                self._drop(key)
                surfaces = frozenset(entity.text.casefold() for entity in sentence.entities)
                self._see(key, _Seen(frozenset(_words(sentence.text)), surfaces))
                return True
        return False

    def _sentences(self, text: str) -> list[Sentence]:
        if self._reach is None:
            return segment(text, self._pool.text_kind, max_chars=self._max_chars)
        # As much more as any sentence has, so that the last one is whole.
        near = segment(text[: self._reach + self._max_chars], self._pool.text_kind, max_chars=self._max_chars)
        return [sentence for sentence in near if sentence.end <= self._reach]

    def _count(self, text: str, times: int) -> Mapping[str, tuple[int, bool]]:
        """Sentences of the pool with that text, more or fewer; its words."""
        words = _words(text)
        for counts, names in ((self._words, words), (self._known, (_template(text),))):
            for name in names:
                counts[name] += times
                if counts[name] <= 0:
                    del counts[name]
        return words

    def _see(self, key: str, seen: _Seen) -> None:
        self._seen[key] = seen
        self._seen.move_to_end(key)
        if len(self._seen) > SEEN:
            self._seen.popitem(last=False)

    def _drop(self, key: str) -> None:
        sentence = self._best.pop(key, None)
        if sentence is not None:
            keys = self._of_document[sentence.document]
            keys.discard(key)
            if not keys:
                del self._of_document[sentence.document]

    def first(self, count: int) -> list[QueuedSentence]:
        """The ``count`` sentences to look at first, in this order. Each is valued by what those in front of it leave:
        so the values fall."""
        left = sorted(self._best.values(), key=_order)[: self._room]
        words = {word for seen in self._seen.values() for word in seen.words}
        surfaces = {surface for seen in self._seen.values() for surface in seen.surfaces}
        chosen: list[QueuedSentence] = []
        while left and len(chosen) < count:
            # Values only fall: once the first one of the list keeps its place with its new value, it is the best.
            place, best = 0, _left_of(left[0], words, surfaces)
            for number, sentence in enumerate(left[1:], start=1):
                if _order(sentence) > _order(best):
                    break
                candidate = _left_of(sentence, words, surfaces)
                if _order(candidate) < _order(best):
                    place, best = number, candidate
            del left[place]
            chosen.append(best)
            words.update(_words(best.text))
            surfaces.update(entity.text.casefold() for entity in best.entities)
        return chosen

    def _valued(self, document: str, start: int, text: str, entities: tuple[Entity, ...]) -> QueuedSentence:
        inside = {place for entity in entities for place in range(entity.start, entity.end)}
        new = {
            word: NEW_NAME if name and place not in inside else NEW_WORD
            for word, (place, name) in _words(text).items()
            if word not in self._words
        }
        doubt = sum((1 - entity.confidence for entity in entities), 0.0)
        return QueuedSentence(document, start, text, entities, doubt, new, doubt + sum(new.values()))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a sentence says that somebody has looked at."""

    words: frozenset[str]
    surfaces: frozenset[str]


def _left_of(sentence: QueuedSentence, words: set[str], surfaces: set[str]) -> QueuedSentence:
    """The sentence behind others with these words and entities."""
    new = {word: weight for word, weight in sentence.new_words.items() if word not in words}
    doubt = sum(
        (1 - entity.confidence) * (KNOWN if entity.text.casefold() in surfaces else 1) for entity in sentence.entities
    )
    return replace(sentence, new_words=new, value=doubt + sum(new.values()))


def _order(sentence: QueuedSentence) -> tuple[float, str, str, int]:
    return -sentence.value, sentence.text, sentence.document, sentence.start


def _template(text: str) -> str:
    """Equal for texts that differ in numbers, times, addresses, letter case or white space alone, or in what nobody
    sees."""
    line, _, bounds, _ = sighted(CleanText.of(text).text)
    # Unlike for repeats, it is no matter what kind of number it is: a person learns nothing from the next one.
    fixed = [line[start:end] for start, end in zip(bounds[::2], bounds[1::2], strict=True)]
    return " ".join("\x00".join(fixed).casefold().split())


def _words(text: str) -> dict[str, tuple[int, bool]]:
    """The words of a text that are no function words and in no number, time or address: where each begins, and whether
    it looks like a name."""
    bounds = sighted(text).bounds
    fields = list(zip(bounds[1:-1:2], bounds[2::2], strict=True))
    shouted = text.isupper()  # then capitals say nothing
    found: dict[str, tuple[int, bool]] = {}
    for word in words_of(text):
        if not word.function and not _touches(fields, word.start, word.end):
            name = word.case is not Case.CASED or (word.proper and not shouted)
            found.setdefault(word.text.casefold(), (word.start, name))
    return found


def _touches(fields: Iterable[tuple[int, int]], start: int, end: int) -> bool:
    return any(start < last and first < end for first, last in fields)

"""A stage's memory of its answers to one pool's sentences: bounded, and the same for the same inputs in the same order.

An answer is kept under the sentence's text, and for log lines also under the line's template: what the stage's
:class:`Carry` needs to say it again of another sentence. What cannot be said again exactly is not kept.

A stage may want several lines of a template to be asked about: then their answers are summed, more lines are asked
where they disagree, and now and then one more is, so that what the first lines had wrong is put right later. The
texts answered by a template share its entry, so that they are put right too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from el4ner.text.template_miner import TemplateMiner
from el4ner.text.templates import Template, cut
from el4ner.types import Usage

__all__ = ["Answered", "Carry", "Entry", "Exchange", "RepeatCounts", "StageMemory", "Way"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class RepeatCounts:
    """Sentences that were answered from memory (``hits``) and by the stage itself (``misses``); nothing is counted
    where nothing is remembered."""

    hits: int = 0
    misses: int = 0

    def __add__(self, other: RepeatCounts) -> RepeatCounts:
        return RepeatCounts(self.hits + other.hits, self.misses + other.misses)


@dataclass(frozen=True, slots=True)
class Answered(Generic[Answer]):
    """Answers in the order of the sentences, what they cost, and which of the sentences cost it."""

    answers: list[Answer]
    usage: Usage
    asked: list[bool]


class Carry(ABC, Generic[Item, Answer, Kept]):
    """How a stage's answer to one sentence is said again of another.

    ``view`` is the template by which a sentence is looked at: with one fixed piece (only the same text is like it), or
    with fields. Where two items have equal keys, what was kept of the one's answer can be said of the other.
    """

    lines = 1
    """How many lines of a template are asked about before the others take over what they agreed on. More than one:
    :meth:`keep` and :meth:`recall` make no use of the view, so that a text can share its template's entry."""
    most = 1
    """How many lines at most, where the first ones disagree."""

    @abstractmethod
    def text(self, item: Item) -> str:
        """Of the sentence that ``item`` is about; its spans' offsets are that text's."""

    @abstractmethod
    def key(self, item: Item, view: Template) -> Hashable | None:
        """All of the item that the answer depends on, as ``view`` tells it; None where it cannot tell."""

    @abstractmethod
    def keep(self, answer: Answer, view: Template) -> Kept | None:
        """What to remember of an answer; None where ``view`` cannot tell all of its spans."""

    def add(self, kept: Kept | None, new: Kept) -> Kept:
        """What is kept of a template's lines, with one more line's answer: here the first one stands."""
        return new if kept is None else kept

    def is_disputed(self, kept: Kept) -> bool:
        """Whether the lines disagree so much that another one should be asked about."""
        del kept
        return False

    def differs(self, kept: Kept, new: Kept) -> bool:
        """Whether a line's answer is another one than what is kept comes to."""
        del kept, new
        return False

    @abstractmethod
    def recall(self, item: Item, kept: Kept, view: Template) -> Answer:
        """What was kept under the item's key, said of ``item``: with its own offsets and surfaces."""


FIRST_CHECK: Final = 64
NEXT_CHECK: Final = 8
"""One more line of a template is asked about after so many were answered from memory, then after so many times as many.
So what a template costs grows with the logarithm of its lines."""


class Entry(Generic[Kept]):
    """What is known of one text, or of one template and the texts that were answered by it."""

    __slots__ = ("answers", "check", "is_checked", "kept", "recalled", "wanted")

    def __init__(self, wanted: int) -> None:
        self.kept: Kept | None = None
        self.answers = 0
        self.wanted = wanted
        self.recalled = 0
        self.check = FIRST_CHECK
        self.is_checked = False

    def add(self, carry: Carry[Item, Answer, Kept], new: Kept) -> None:
        """A line was asked about, with this answer."""
        if self.is_checked and self.kept is not None and carry.differs(self.kept, new):
            self.wanted += carry.lines
        self.is_checked = False
        self.kept = carry.add(self.kept, new)
        self.answers += 1
        if self.answers == self.wanted == carry.lines and carry.is_disputed(self.kept):
            self.wanted = carry.most

    def use(self, lines: int) -> None:
        """A line was answered by it. Templates of which several lines are asked about are checked now and then."""
        if lines > 1:
            self.recalled += 1
            if self.recalled == self.check:
                self.check *= NEXT_CHECK
                self.wanted = self.answers + 1
                self.is_checked = True


class Way(NamedTuple, Generic[Kept]):
    """One of the ways to find an item's answer: by ``store[key]``, told by ``view``."""

    store: OrderedDict[Hashable, Entry[Kept]]
    key: Hashable
    view: Template
    lines: int

    @property
    def entry(self) -> Entry[Kept] | None:
        """What is known so far."""
        return self.store.get(self.key)

    @property
    def missing(self) -> int:
        """How many answers are to be asked for; a text that was answered needs none, whatever its template needs."""
        entry = self.entry
        if entry is None or entry.kept is None:
            return self.lines
        return entry.wanted - entry.answers if self.lines > 1 else 0

    @property
    def is_new(self) -> bool:
        """Whether fewer lines were asked about than have to be before anything stands. Later checks do not count."""
        return self.entry is None or self.entry.answers < self.lines

    def take_over(self, kept: Kept, answers: int) -> None:
        """What ``answers`` lines came to, asked by another process: it stands here as if they had been asked here."""
        entry: Entry[Kept] = Entry(answers)
        entry.kept, entry.answers = kept, answers
        self.store[self.key] = entry
        self.store.move_to_end(self.key)


class Exchange(ABC, Generic[Item, Kept]):
    """What other processes know of the same stage and pool (:mod:`el4ner.repeats.shared_answers`).

    ``ways`` has for each item its text's way, and behind it that of its template, if it has one.
    """

    @abstractmethod
    def fetch(self, items: Sequence[Item], ways: Sequence[Sequence[Way[Kept]]]) -> None:
        """Take over what others know of ways that are new here."""

    @abstractmethod
    def publish(self, ways: Sequence[Sequence[Way[Kept]]]) -> None:
        """Tell others what stands here now."""


class StageMemory(Generic[Item, Answer, Kept]):
    """One stage's answers to one pool's sentences.

    Args:
        carry: the stage's.
        size: the most texts, and the most templates, that are remembered between calls; the least recently used go
            first. 0: nothing is remembered, and every sentence is asked, repeated or not.
        miner: gives lines their templates; None: only the same text is a repeat.
        exchange: with other processes; None: this one knows only what it was asked itself.
    """

    def __init__(
        self,
        carry: Carry[Item, Answer, Kept],
        size: int,
        miner: TemplateMiner | None = None,
        exchange: Exchange[Item, Kept] | None = None,
    ) -> None:
        self.counts = RepeatCounts()
        self._carry = carry
        self._size = size
        self._miner = miner
        self._exchange = exchange
        self._texts: OrderedDict[Hashable, Entry[Kept]] = OrderedDict()
        self._templates: OrderedDict[Hashable, Entry[Kept]] = OrderedDict()

    def __len__(self) -> int:
        return max(len(self._texts), len(self._templates))

    def answer(
        self, items: Sequence[Item], ask: Callable[[list[Item]], tuple[list[Answer], Usage]]
    ) -> Answered[Answer]:
        """Answers to ``items``; ``ask`` gets those that nothing is known of, and of like ones only the first few.

        It is called again where a first answer cannot be carried to the lines like it, or where the first ones
        disagree, and not at all where everything is known. What it raises goes through; what a call of it answered
        before stays remembered.
        """
        known: dict[int, Answer] = {}
        asked = [False] * len(items)
        usage = Usage()
        ways = self._ways(items)
        if self._exchange is not None:
            self._exchange.fetch(items, ways)
        needing = ways
        waiting = self._recalled(range(len(items)), items, ways, known)
        try:
            while waiting:
                now = _firsts(waiting, needing)
                answers, used = ask([items[index] for index in now])
                usage += used
                for index, answer in zip(now, answers, strict=True):
                    known[index], asked[index] = answer, True
                    self._remember(answer, ways[index])
                self._count(misses=len(now))
                waiting = self._recalled((index for index in waiting if not asked[index]), items, ways, known)
                # What is like a line whose answer could not be carried is asked about, but each text once.
                needing = [[way for way in to_item if way.store is self._texts or way.entry] for to_item in ways]
            self._settle(items, ways, asked, known)
            if self._exchange is not None:
                self._exchange.publish([to_item for to_item, was_asked in zip(ways, asked, strict=True) if was_asked])
        finally:
            for store in (self._texts, self._templates):
                while len(store) > self._size:
                    store.popitem(last=False)
        self._count(hits=asked.count(False))
        return Answered([known[index] for index in range(len(items))], usage, asked)

    def _count(self, *, hits: int = 0, misses: int = 0) -> None:
        if self._size:
            self.counts += RepeatCounts(hits, misses)

    def _ways(self, items: Sequence[Item]) -> list[list[Way[Kept]]]:
        """For each item: by its text; and by its template, unless the text is known."""
        ways: list[list[Way[Kept]]] = []
        seen: dict[Hashable, list[Way[Kept]]] = {}
        for item in items if self._size else ():
            line = self._carry.text(item)
            whole = Template(line, cut(line, ()))
            key = self._carry.key(item, whole)
            if key in seen:
                ways.append(seen[key])
                continue
            to_item = [] if key is None else [Way(self._texts, key, whole, 1)]
            if self._miner is not None and key is not None and key not in self._texts:
                template = self._miner.template_of(line)
                like = self._carry.key(item, template)
                to_item += [] if like is None else [Way(self._templates, like, template, self._carry.lines)]
            if key is not None:
                seen[key] = to_item
            ways.append(to_item)
        return ways or [[] for _ in items]

    def _recalled(
        self, indices: Iterable[int], items: Sequence[Item], ways: list[list[Way[Kept]]], known: dict[int, Answer]
    ) -> list[int]:
        """Put what is remembered into ``known``; the indices of which nothing is."""
        unknown = []
        for index in indices:
            for way in ways[index]:
                entry = way.entry
                if entry is not None and entry.kept is not None and way.missing <= 0:
                    entry.use(way.lines)
                    way.store.move_to_end(way.key)
                    known[index] = self._carry.recall(items[index], entry.kept, way.view)
                    if way.store is not self._texts:
                        # A text that was answered is answered by the same, also when its line gets another template.
                        self._remember_text(ways[index][0], entry, known[index])
                    break
            else:
                unknown.append(index)
        return unknown

    def _remember(self, answer: Answer, ways: list[Way[Kept]]) -> None:
        for way in reversed(ways):  # the template first, whose entry may be as good for the text
            kept = self._carry.keep(answer, way.view)
            if kept is None:
                continue
            entry = way.store.setdefault(way.key, Entry(way.lines))
            entry.add(self._carry, kept)
            way.store.move_to_end(way.key)
            if way.lines > 1:
                self._remember_text(ways[0], entry, answer)
                break

    def _settle(
        self, items: Sequence[Item], ways: list[list[Way[Kept]]], asked: list[bool], known: dict[int, Answer]
    ) -> None:
        """Lines that were asked about are answered with what their templates' lines come to, as those like them are."""
        for index, to_item in enumerate(ways):
            for way in to_item if asked[index] else ():
                if way.lines > 1 and way.entry is not None and way.entry.kept is not None:
                    known[index] = self._carry.recall(items[index], way.entry.kept, way.view)

    def _remember_text(self, way: Way[Kept], entry: Entry[Kept], answer: Answer) -> None:
        if self._carry.lines == 1:  # told by the template's pieces, which a text of its own does not have
            kept = self._carry.keep(answer, way.view)
            if kept is None:
                return
            entry = Entry(1)
            entry.add(self._carry, kept)
        self._texts[way.key] = entry
        self._texts.move_to_end(way.key)


def _firsts(indices: Iterable[int], ways: Sequence[Sequence[Way[Kept]]]) -> list[int]:
    """The first of those that have a key in common, as many as are still needed."""
    needed: dict[Hashable, int] = {}
    firsts = []
    for index in indices:
        for way in ways[index]:
            needed.setdefault(way.key, way.missing)
        if all(needed[way.key] > 0 for way in ways[index]):
            firsts.append(index)
            for way in ways[index]:
                needed[way.key] -= 1
    return firsts

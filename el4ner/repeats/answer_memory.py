"""A stage's memory of its answers to one pool's sentences: bounded, and the same for the same inputs in the same order.

An answer is kept under the sentence's text, and for log lines also under the line's template; an entry is whatever the
stage's :class:`Carry` needs to say it again of another sentence. What cannot be said again exactly is not kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from el4ner.text.template_miner import TemplateMiner
from el4ner.text.templates import Template, cut
from el4ner.types import Usage

__all__ = ["Answered", "Carry", "RepeatCounts", "StageMemory"]

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
    """How many lines of a template are asked about before the others take over what they agreed on."""

    @abstractmethod
    def text(self, item: Item) -> str:
        """Of the sentence that ``item`` is about; its spans' offsets are that text's."""

    @abstractmethod
    def key(self, item: Item, view: Template) -> Hashable | None:
        """All of the item that the answer depends on, as ``view`` tells it; None where it cannot tell."""

    @abstractmethod
    def keep(self, answer: Answer, view: Template) -> Kept | None:
        """What to remember of an answer; None where ``view`` cannot tell all of its spans."""

    def settle(self, kept: Sequence[Kept]) -> Kept:
        """What the answers to several lines of a template come to: the first one stands."""
        return kept[0]

    @abstractmethod
    def recall(self, item: Item, kept: Kept, view: Template) -> Answer:
        """What was kept under the item's key, said of ``item``: with its own offsets and surfaces."""


class _Way(NamedTuple, Generic[Kept]):
    """One of the ways to find an item's answer: ``store[key]``, told by ``view``, once it has ``needed`` answers."""

    store: OrderedDict[Hashable, list[Kept]]
    key: Hashable
    view: Template
    needed: int

    @property
    def missing(self) -> int:
        return self.needed - len(self.store.get(self.key, ()))


class StageMemory(Generic[Item, Answer, Kept]):
    """One stage's answers to one pool's sentences.

    Args:
        carry: the stage's.
        size: the most texts, and the most templates, that are remembered between calls; the least recently used go
            first. 0: nothing is remembered, and every sentence is asked, repeated or not.
        miner: gives lines their templates; None: only the same text is a repeat.
    """

    def __init__(self, carry: Carry[Item, Answer, Kept], size: int, miner: TemplateMiner | None = None) -> None:
        self.counts = RepeatCounts()
        self._carry = carry
        self._size = size
        self._miner = miner
        self._texts: OrderedDict[Hashable, list[Kept]] = OrderedDict()
        self._templates: OrderedDict[Hashable, list[Kept]] = OrderedDict()

    def __len__(self) -> int:
        return max(len(self._texts), len(self._templates))

    def answer(
        self, items: Sequence[Item], ask: Callable[[list[Item]], tuple[list[Answer], Usage]]
    ) -> Answered[Answer]:
        """Answers to ``items``; ``ask`` gets those that nothing is known of, and of like ones only the first few.

        It is called again where a first answer cannot be carried to the lines like it, and not at all where
        everything is known. What it raises goes through; what a call of it answered before stays remembered.
        """
        known: dict[int, Answer] = {}
        asked = [False] * len(items)
        usage = Usage()
        ways = self._ways(items)
        depth = 2
        waiting = self._recalled(range(len(items)), items, ways, known)
        try:
            while waiting:
                now = _firsts(waiting, ways, depth)
                answers, used = ask([items[index] for index in now])
                usage += used
                for index, answer in zip(now, answers, strict=True):
                    known[index], asked[index] = answer, True
                    self._remember(answer, ways[index])
                self._count(misses=len(now))
                waiting = self._recalled((index for index in waiting if not asked[index]), items, ways, known)
                # What is left is like a line whose answer could not be carried: all of it is asked, but each text once.
                depth = 1
        finally:
            for store in (self._texts, self._templates):
                while len(store) > self._size:
                    store.popitem(last=False)
        self._count(hits=asked.count(False))
        return Answered([known[index] for index in range(len(items))], usage, asked)

    def _count(self, *, hits: int = 0, misses: int = 0) -> None:
        if self._size:
            self.counts += RepeatCounts(hits, misses)

    def _ways(self, items: Sequence[Item]) -> list[list[_Way[Kept]]]:
        """For each item: by its text; and by its template, unless the text is known or was in the batch before."""
        ways: list[list[_Way[Kept]]] = []
        seen: set[Hashable] = set()
        for item in items if self._size else ():
            line = self._carry.text(item)
            whole = Template(line, cut(line, ()))
            key = self._carry.key(item, whole)
            to_item = [] if key is None else [_Way(self._texts, key, whole, 1)]
            if self._miner is not None and key is not None and key not in self._texts and key not in seen:
                template = self._miner.template_of(line)
                like = self._carry.key(item, template)
                to_item += [] if like is None else [_Way(self._templates, like, template, self._carry.lines)]
            seen.add(key)
            ways.append(to_item)
        return ways or [[] for _ in items]

    def _recalled(
        self, indices: Iterable[int], items: Sequence[Item], ways: list[list[_Way[Kept]]], known: dict[int, Answer]
    ) -> list[int]:
        """Put what is remembered into ``known``; the indices of which nothing is."""
        unknown = []
        for index in indices:
            for way in ways[index]:
                if way.missing <= 0:
                    kept = self._carry.settle(way.store[way.key])
                    way.store.move_to_end(way.key)
                    known[index] = self._carry.recall(items[index], kept, way.view)
                    # A text that was answered is answered so again, also when its line gets another template.
                    self._remember(known[index], ways[index][:1])
                    break
            else:
                unknown.append(index)
        return unknown

    def _remember(self, answer: Answer, ways: list[_Way[Kept]]) -> None:
        for way in ways:
            kept = self._carry.keep(answer, way.view) if way.missing > 0 else None  # the first ones' answers stand
            if kept is not None:
                way.store.setdefault(way.key, []).append(kept)
            if way.key in way.store:
                way.store.move_to_end(way.key)


def _firsts(indices: Iterable[int], ways: Sequence[Sequence[_Way[Kept]]], depth: int) -> list[int]:
    """The first of those that have one of their first ``depth`` keys in common, as many as are still needed."""
    needed: dict[Hashable, int] = {}
    firsts = []
    for index in indices:
        to_item = ways[index][:depth]
        for way in to_item:
            needed.setdefault(way.key, way.missing)
        if all(needed[way.key] > 0 for way in to_item):
            firsts.append(index)
            for way in to_item:
                needed[way.key] -= 1
    return firsts

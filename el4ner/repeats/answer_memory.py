"""A stage's memory of its answers to one pool's sentences: bounded, and the same for the same inputs in the same order.

An answer is kept under the sentence's text, and for log lines also under the line's template: what the stage's
:class:`Carry` needs to say it again of another sentence. What cannot be said again exactly is not kept.

A stage may want several lines of a template to be asked about: then their answers are summed, more lines are asked
where they disagree, and now and then one more is, so that what the first lines had wrong is put right later. The
texts answered by a template share its entry, so that they are put right too.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple

from typing_extensions import override

from el4ner.repeats.entries import Answer, Carry, Entry, Exchange, Item, Kept, Way
from el4ner.text.template_miner import TemplateMiner
from el4ner.text.templates import Form, Sighting, Template, cut, sighted
from el4ner.types import Usage

__all__ = ["Answered", "Found", "LookedAt", "RepeatCounts", "StageMemory", "Subject"]


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


class Subject(ABC, Generic[Item]):
    """What a memory is asked about: an item of its stage, which need not be made as long as nobody has to be asked.

    ``key``: as :meth:`~el4ner.repeats.entries.Carry.key` gives it of the item and its text as one fixed piece.
    """

    __slots__ = ()
    key: Hashable | None

    @abstractmethod
    def sighting(self) -> Sighting:
        """Of the text."""

    @abstractmethod
    def view(self, form: Form | None) -> Template:
        """The text as one fixed piece, or as a template of ``form``."""

    @abstractmethod
    def like(self, form: Form) -> Hashable | None:
        """As :meth:`~el4ner.repeats.entries.Carry.key` gives it of the text's template, which is of ``form``."""

    @abstractmethod
    def item(self) -> Item:
        """What the stage is asked about."""


@dataclass(slots=True)
class Found(Generic[Answer, Kept]):
    """What a memory has of each subject, in their order.

    ``recalled``: what was kept of another item, and the form by which to say it of this one (None: it is of the same
    text); None where there is an answer of the item's own. ``answers``: those; where a template has put one right, it
    counts no more. ``asked``: whether it was asked about now, which has cost ``usage`` in all.
    """

    recalled: list[tuple[Kept, Form | None] | None]
    answers: list[Answer | None]
    asked: list[bool]
    usage: Usage


class _Route(NamedTuple):
    """Where a subject's answer is looked for: under the key of its text, and, of a line whose text was not known, under
    that of its template."""

    key: Hashable | None
    form: Form | None
    like: Hashable | None


_PATIENCE_SECONDS: Final = 0.05
"""For so long at most does :meth:`StageMemory.known` wait for another thread."""


class StageMemory(Generic[Item, Answer, Kept]):
    """One stage's answers to one pool's sentences.

    One thread asks (:meth:`find`). While it waits for the stage's answer, any other may look up what is known
    (:meth:`known`).

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
        self.carry = carry
        self._size = size
        self._miner = miner
        self._exchange = exchange
        self._texts: OrderedDict[Hashable, Entry[Kept]] = OrderedDict()
        self._templates: OrderedDict[Hashable, Entry[Kept]] = OrderedDict()
        self._lock = threading.Lock()
        self._counting = threading.Lock()

    def __len__(self) -> int:
        return max(len(self._texts), len(self._templates))

    def answer(
        self, items: Sequence[Item], ask: Callable[[list[Item]], tuple[list[Answer], Usage]]
    ) -> Answered[Answer]:
        """As :meth:`find`, with all answers said of their items."""
        if not self._size and items:
            answers, usage = ask(list(items))
            return Answered(answers, usage, [True] * len(items))
        subjects = [LookedAt(self.carry, item) for item in items]
        found = self.find(subjects, ask)
        return Answered(self.said(subjects, found), found.usage, found.asked)

    def said(self, subjects: Sequence[LookedAt[Item]], found: Found[Answer, Kept], first: int = 0) -> list[Answer]:
        """What was found of ``subjects``, which were the ``first`` and later ones, said of their items."""
        answers = []
        for place, subject in enumerate(subjects, first):
            recalled, answer = found.recalled[place], found.answers[place]
            if recalled is not None:
                answer = self.carry.recall(subject.item(), recalled[0], subject.view(recalled[1]))
            if answer is not None:
                answers.append(answer)
        return answers

    def find(
        self, subjects: Sequence[Subject[Item]], ask: Callable[[list[Item]], tuple[list[Answer], Usage]]
    ) -> Found[Answer, Kept]:
        """What is remembered of ``subjects``; ``ask`` gets the items that nothing is known of, and of like ones only
        the first few.

        It is called again where a first answer cannot be carried to the lines like it, or where the first ones
        disagree, and not at all where everything is known. What it raises goes through; what a call of it answered
        before stays remembered.
        """
        with self._lock:
            return self._found(subjects, lambda items: self._without_lock(ask, items))

    def known(self, subjects: Sequence[Subject[Item]]) -> list[tuple[Kept, Form | None] | None]:
        """As :attr:`Found.recalled`, of what is known; nobody is asked, and nothing is counted (:meth:`count_known`).

        A template that is due for a check is known, but for one line, which has to be asked about: the others go by
        what stands. Nothing is known while the memory is in use for longer, as when a store of others is slow.
        """
        found: Found[Answer, Kept] = Found([None] * len(subjects), [], [], Usage())
        if not self._lock.acquire(timeout=_PATIENCE_SECONDS):
            return found.recalled
        try:
            self._recall(range(len(subjects)), self._routes(subjects), found, waits_for_checks=False)
            self._forget()
        finally:
            self._lock.release()
        return found.recalled

    def count_known(self, sentences: int) -> None:
        """So many sentences were answered by what :meth:`known` gave. Waits for nobody."""
        self._count(hits=sentences)

    def _without_lock(
        self, ask: Callable[[list[Item]], tuple[list[Answer], Usage]], items: list[Item]
    ) -> tuple[list[Answer], Usage]:
        self._lock.release()
        try:
            return ask(items)
        finally:
            self._lock.acquire()

    def _found(
        self, subjects: Sequence[Subject[Item]], ask: Callable[[list[Item]], tuple[list[Answer], Usage]]
    ) -> Found[Answer, Kept]:
        count = len(subjects)
        found: Found[Answer, Kept] = Found([None] * count, [None] * count, [False] * count, Usage())
        routes = self._routes(subjects)
        waiting = self._recall(range(count), routes, found)
        try:
            if waiting:
                ways = {index: self._ways(routes[index], subjects[index]) for index in waiting}
                if self._exchange is not None:
                    items = [subjects[index].item() for index in waiting]
                    self._exchange.fetch(items, [ways[index] for index in waiting])
                    waiting = self._recall(waiting, routes, found)
                self._ask(waiting, subjects, routes, ways, ask, found)
                self._settle(ways, found)
        finally:
            self._forget()
        self._count(hits=found.asked.count(False))
        return found

    def _forget(self) -> None:
        for store in (self._texts, self._templates):
            while len(store) > self._size:
                store.popitem(last=False)

    def _count(self, *, hits: int = 0, misses: int = 0) -> None:
        if self._size:
            with self._counting:
                self.counts += RepeatCounts(hits, misses)

    def _routes(self, subjects: Sequence[Subject[Item]]) -> list[_Route]:
        """For each subject: by its text; and by its template, unless the text is known. All templates are found, and
        learnt from, before anything is recalled."""
        if not self._size:
            return [_UNKNOWN] * len(subjects)
        routes: list[_Route] = []
        new: dict[Hashable, _Route] = {}
        for subject in subjects:
            key = subject.key
            route = new.get(key)
            if route is None:
                if self._miner is None or key is None or key in self._texts:
                    route = _Route(key, None, None)
                else:
                    form = self._miner.form_of(subject.sighting())
                    route = new[key] = _Route(key, form, subject.like(form))
            routes.append(route)
        return routes

    def _recall(
        self,
        indices: Iterable[int],
        routes: list[_Route],
        found: Found[Answer, Kept],
        *,
        waits_for_checks: bool = True,
    ) -> list[int]:
        """Put what is remembered into ``found``; the indices of which nothing is."""
        texts, templates = self._texts, self._templates
        lines, by_view = self.carry.lines, self.carry.by_view
        unknown = []
        for index in indices:
            key, form, like = routes[index]
            entry = None if key is None else texts.get(key)
            if entry is not None and entry.kept is not None:
                texts.move_to_end(key)
                found.recalled[index] = (entry.kept, entry.form)
                continue
            entry = None if like is None else templates.get(like)
            if form is None or entry is None or entry.kept is None:
                unknown.append(index)
                continue
            if lines > 1 and entry.wanted > entry.answers:
                if waits_for_checks or not entry.passes_check():
                    unknown.append(index)
                    continue
            elif lines > 1:
                entry.use()
            templates.move_to_end(like)
            found.recalled[index] = (entry.kept, form)
            # A text that was answered is answered by the same, also when its line gets another template.
            texts[key] = entry.told_by(form) if by_view else entry
        return unknown

    def _ways(self, route: _Route, subject: Subject[Item]) -> list[Way[Kept]]:
        key, form, like = route
        if key is None:
            return []
        ways = [Way(self._texts, key, subject.view(None), None, 1)]
        if form is not None and like is not None:
            ways.append(Way(self._templates, like, subject.view(form), form, self.carry.lines))
        return ways

    def _ask(
        self,
        waiting: list[int],
        subjects: Sequence[Subject[Item]],
        routes: list[_Route],
        ways: Mapping[int, list[Way[Kept]]],
        ask: Callable[[list[Item]], tuple[list[Answer], Usage]],
        found: Found[Answer, Kept],
    ) -> None:
        needing = ways
        while waiting:
            now = _firsts(waiting, needing)
            answers, used = ask([subjects[index].item() for index in now])
            found.usage += used
            for index, answer in zip(now, answers, strict=True):
                found.answers[index], found.asked[index] = answer, True
                self._remember(answer, ways[index])
            self._count(misses=len(now))
            waiting = self._recall([index for index in waiting if not found.asked[index]], routes, found)
            # What is like a line whose answer could not be carried is asked about, but each text once.
            needing = {
                index: [way for way in ways[index] if way.store is self._texts or way.entry] for index in waiting
            }

    def _remember(self, answer: Answer, ways: list[Way[Kept]]) -> None:
        for way in reversed(ways):  # the template first, whose entry may be as good for the text
            kept = self.carry.keep(answer, way.view)
            if kept is None:
                continue
            entry = way.store.setdefault(way.key, Entry(way.lines))
            entry.add(self.carry, kept)
            way.store.move_to_end(way.key)
            if way.lines > 1:
                self._texts[ways[0].key] = entry
                self._texts.move_to_end(ways[0].key)
                break

    def _settle(self, ways: Mapping[int, list[Way[Kept]]], found: Found[Answer, Kept]) -> None:
        """Lines that were asked about are answered with what their templates' lines come to, as those like them are."""
        asked = [to_item for index, to_item in ways.items() if found.asked[index]]
        for index, to_item in ways.items():
            for way in to_item if found.asked[index] else ():
                if way.lines > 1 and way.entry is not None and way.entry.kept is not None:
                    found.recalled[index] = (way.entry.kept, way.form)
        if self._exchange is not None:
            self._exchange.publish(asked)


_UNKNOWN: Final = _Route(None, None, None)


class LookedAt(Subject[Item]):
    """An item with what was seen of its text so far."""

    __slots__ = ("_carry", "_item", "_sighting", "_text", "_view", "key")

    def __init__(self, carry: Carry[Item, Any, Any], item: Item) -> None:
        self._carry = carry
        self._item = item
        self._text = carry.text(item)
        self._sighting: Sighting | None = None
        self._view: tuple[Form | None, Template] | None = None
        self.key = carry.key(item, self.view(None))

    @override
    def sighting(self) -> Sighting:
        if self._sighting is None:
            self._sighting = sighted(self._text)
        return self._sighting

    @override
    def view(self, form: Form | None) -> Template:
        if self._view is None or self._view[0] is not form:
            view = Template(self._text, cut(self._text, ())) if form is None else form.template(self.sighting())
            self._view = (form, view)
        return self._view[1]

    @override
    def like(self, form: Form) -> Hashable | None:
        return self._carry.key(self._item, self.view(form))

    @override
    def item(self) -> Item:
        return self._item


def _firsts(indices: Iterable[int], ways: Mapping[int, Sequence[Way[Kept]]]) -> list[int]:
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

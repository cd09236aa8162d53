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
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, TypeVar

from typing_extensions import override

from el4ner.text.template_miner import TemplateMiner
from el4ner.text.templates import Form, Sighting, Template, cut, sighted
from el4ner.types import Usage

__all__ = ["Answered", "Carry", "Entry", "Exchange", "Found", "RepeatCounts", "StageMemory", "Subjects", "Way"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Kept = TypeVar("Kept")
Subject = TypeVar("Subject")


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
    by_view = False
    """Whether what is kept can be said only by the view that it was kept by. Such a carry asks about one line."""

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
    """What is known of one text, or of one template and the texts that were answered by it.

    ``form``: of the line by whose template it is told, where it is a text's and was told so.
    """

    __slots__ = ("answers", "check", "form", "is_checked", "kept", "recalled", "told", "wanted")

    def __init__(self, wanted: int) -> None:
        self.kept: Kept | None = None
        self.form: Form | None = None
        self.told: Entry[Kept] | None = None
        self.answers = 0
        self.wanted = wanted
        self.recalled = 0
        self.check = FIRST_CHECK
        self.is_checked = False

    def add(self, carry: Carry[Item, Answer, Kept], new: Kept) -> None:
        """A line was asked about."""
        if self.is_checked and self.kept is not None and carry.differs(self.kept, new):
            self.wanted += carry.lines
        self.is_checked = False
        self.kept = carry.add(self.kept, new)
        self.answers += 1
        if self.answers == self.wanted == carry.lines and carry.is_disputed(self.kept):
            self.wanted = carry.most

    def use(self) -> None:
        """A line was answered by it, of a template of which several lines are asked about: it is checked now and
        then."""
        self.recalled += 1
        if self.recalled == self.check:
            self.check *= NEXT_CHECK
            self.wanted = self.answers + 1
            self.is_checked = True

    def told_by(self, form: Form) -> Entry[Kept]:
        """The entry of a text of this form that a template's entry has answered."""
        told = self.told
        if told is None or told.form is not form:
            told = self.told = Entry(1)
            told.kept, told.form, told.answers = self.kept, form, 1
        return told


class Way(NamedTuple, Generic[Kept]):
    """One of the ways to find an item's answer: by ``store[key]``, told by ``view``, which is of ``form`` where it has
    fields."""

    store: OrderedDict[Hashable, Entry[Kept]]
    key: Hashable
    view: Template
    form: Form | None
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


class Subjects(ABC, Generic[Subject, Item]):
    """How a memory looks at what it is asked about: a stage's items, or what they can be made of when somebody has to
    be asked."""

    @abstractmethod
    def key(self, subject: Subject) -> Hashable | None:
        """As :meth:`Carry.key` gives it of the item's text."""

    @abstractmethod
    def sighting(self, subject: Subject) -> Sighting:
        """Of the text."""

    @abstractmethod
    def like(self, subject: Subject, form: Form) -> Hashable | None:
        """As :meth:`Carry.key` gives it of the text's template, which is of ``form``."""

    @abstractmethod
    def item(self, subject: Subject) -> Item:
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
        """As :meth:`find`, with all answers said of their items."""
        subjects = _Items(self._carry)
        looked_at = [_LookedAt(item, self._carry.text(item)) for item in items]
        found = self.find(looked_at, subjects, lambda new: ask([subject.item for subject in new]))
        answers = [
            answer if recalled is None else self._carry.recall(subject.item, recalled[0], subject.view(recalled[1]))
            for subject, recalled, answer in zip(looked_at, found.recalled, found.answers, strict=True)
        ]
        return Answered([answer for answer in answers if answer is not None], found.usage, found.asked)

    def find(
        self,
        subjects: Sequence[Subject],
        seen_as: Subjects[Subject, Item],
        ask: Callable[[list[Subject]], tuple[list[Answer], Usage]],
    ) -> Found[Answer, Kept]:
        """What is remembered of ``subjects``; ``ask`` gets those that nothing is known of, and of like ones only the
        first few.

        It is called again where a first answer cannot be carried to the lines like it, or where the first ones
        disagree, and not at all where everything is known. What it raises goes through; what a call of it answered
        before stays remembered.
        """
        count = len(subjects)
        found: Found[Answer, Kept] = Found([None] * count, [None] * count, [False] * count, Usage())
        routes = self._routes(subjects, seen_as)
        waiting = self._recall(range(count), routes, found)
        try:
            if waiting:
                ways = {index: self._ways(routes[index], subjects[index], seen_as) for index in waiting}
                if self._exchange is not None:
                    items = [seen_as.item(subjects[index]) for index in waiting]
                    self._exchange.fetch(items, [ways[index] for index in waiting])
                    waiting = self._recall(waiting, routes, found)
                self._ask(waiting, subjects, routes, ways, ask, found)
                self._settle(ways, found)
        finally:
            for store in (self._texts, self._templates):
                while len(store) > self._size:
                    store.popitem(last=False)
        self._count(hits=found.asked.count(False))
        return found

    def _count(self, *, hits: int = 0, misses: int = 0) -> None:
        if self._size:
            self.counts += RepeatCounts(hits, misses)

    def _routes(self, subjects: Sequence[Subject], seen_as: Subjects[Subject, Item]) -> list[_Route]:
        """For each subject: by its text; and by its template, unless the text is known. All templates are found, and
        learnt from, before anything is recalled."""
        if not self._size:
            return [_UNKNOWN] * len(subjects)
        routes: list[_Route] = []
        new: dict[Hashable, _Route] = {}
        for subject in subjects:
            key = seen_as.key(subject)
            route = new.get(key)
            if route is None:
                if self._miner is None or key is None or key in self._texts:
                    route = _Route(key, None, None)
                else:
                    form = self._miner.form_of(seen_as.sighting(subject))
                    route = new[key] = _Route(key, form, seen_as.like(subject, form))
            routes.append(route)
        return routes

    def _recall(self, indices: Iterable[int], routes: list[_Route], found: Found[Answer, Kept]) -> list[int]:
        """Put what is remembered into ``found``; the indices of which nothing is."""
        texts, templates = self._texts, self._templates
        lines, by_view = self._carry.lines, self._carry.by_view
        unknown = []
        for index in indices:
            key, form, like = routes[index]
            entry = None if key is None else texts.get(key)
            if entry is not None and entry.kept is not None:
                texts.move_to_end(key)
                found.recalled[index] = (entry.kept, entry.form)
                continue
            entry = None if like is None else templates.get(like)
            if form is None or entry is None or entry.kept is None or (lines > 1 and entry.wanted > entry.answers):
                unknown.append(index)
                continue
            if lines > 1:
                entry.use()
            templates.move_to_end(like)
            found.recalled[index] = (entry.kept, form)
            # A text that was answered is answered by the same, also when its line gets another template.
            texts[key] = entry.told_by(form) if by_view else entry
        return unknown

    def _ways(self, route: _Route, subject: Subject, seen_as: Subjects[Subject, Item]) -> list[Way[Kept]]:
        key, form, like = route
        if key is None:
            return []
        sighting = seen_as.sighting(subject)
        whole = Template(sighting.line, cut(sighting.line, ()))
        ways = [Way(self._texts, key, whole, None, 1)]
        if form is not None and like is not None:
            ways.append(Way(self._templates, like, form.template(sighting), form, self._carry.lines))
        return ways

    def _ask(
        self,
        waiting: list[int],
        subjects: Sequence[Subject],
        routes: list[_Route],
        ways: Mapping[int, list[Way[Kept]]],
        ask: Callable[[list[Subject]], tuple[list[Answer], Usage]],
        found: Found[Answer, Kept],
    ) -> None:
        needing = ways
        while waiting:
            now = _firsts(waiting, needing)
            answers, used = ask([subjects[index] for index in now])
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
            kept = self._carry.keep(answer, way.view)
            if kept is None:
                continue
            entry = way.store.setdefault(way.key, Entry(way.lines))
            entry.add(self._carry, kept)
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


class _LookedAt(Generic[Item]):
    """An item with what was seen of its text so far."""

    __slots__ = ("_sighting", "_view", "item", "text")

    def __init__(self, item: Item, text: str) -> None:
        self.item = item
        self.text = text
        self._sighting: Sighting | None = None
        self._view: tuple[Form | None, Template] | None = None

    @property
    def sighting(self) -> Sighting:
        if self._sighting is None:
            self._sighting = sighted(self.text)
        return self._sighting

    def view(self, form: Form | None) -> Template:
        """The text as one fixed piece, or as a template of ``form``."""
        if self._view is None or self._view[0] is not form:
            view = Template(self.text, cut(self.text, ())) if form is None else form.template(self.sighting)
            self._view = (form, view)
        return self._view[1]


class _Items(Subjects[_LookedAt[Item], Item]):
    """A stage's items, as its carry tells them."""

    def __init__(self, carry: Carry[Item, Answer, Kept]) -> None:
        self._key = carry.key

    @override
    def key(self, subject: _LookedAt[Item]) -> Hashable | None:
        return self._key(subject.item, subject.view(None))

    @override
    def sighting(self, subject: _LookedAt[Item]) -> Sighting:
        return subject.sighting

    @override
    def like(self, subject: _LookedAt[Item], form: Form) -> Hashable | None:
        return self._key(subject.item, subject.view(form))

    @override
    def item(self, subject: _LookedAt[Item]) -> Item:
        return subject.item


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

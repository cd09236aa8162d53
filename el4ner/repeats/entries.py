"""What a stage's memory keeps of its answers, and how one answer is said of another sentence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from el4ner.text.templates import Form, Template

__all__ = ["FIRST_CHECK", "NEXT_CHECK", "Answer", "Carry", "Entry", "Exchange", "Item", "Kept", "Way"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Kept = TypeVar("Kept")


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
MOST_BESIDE_A_CHECK: Final = 1_000
"""So many lines go by what stands while one is asked about to check it; then the next one is asked about, too: the
first one may have got lost."""


class Entry(Generic[Kept]):
    """What is known of one text, or of one template and the texts that were answered by it.

    ``form``: of the line by whose template it is told, where it is a text's and was told so.
    """

    __slots__ = ("answers", "beside_check", "check", "form", "is_checked", "kept", "recalled", "told", "wanted")

    def __init__(self, wanted: int) -> None:
        self.kept: Kept | None = None
        self.form: Form | None = None
        self.told: Entry[Kept] | None = None
        self.answers = 0
        self.wanted = wanted
        self.recalled = 0
        self.check = FIRST_CHECK
        self.is_checked = False
        self.beside_check = 0

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
            self.beside_check = 0

    def passes_check(self) -> bool:
        """Whether a line goes by what stands, though one has to be asked about. False: it is the one, or nothing stands
        yet."""
        if not self.is_checked:
            return False
        self.beside_check += 1
        return self.beside_check % MOST_BESIDE_A_CHECK != 1

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

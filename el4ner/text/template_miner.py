"""Templates that also let words vary: a position is a field once enough different words were seen in it.

``Invalid user webmaster from …`` and ``Invalid user test from …`` differ in a word, and nothing in a single line says
that this word varies. So it is counted: for each word of a line, the line without that word is remembered with the
words that stood there. When ``distinct`` different ones did, everything else being equal, the position is a field from
then on, for that line shape only. Words of unlike form (dotted names, words in capitals, other words) never share one.

What an answer says of such a word is said of every word in its place: that is what is risked. Function words and words
that mean «nothing here» (``unknown``, ``none``) are therefore never taken up in a field.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import OrderedDict
from itertools import pairwise
from typing import Final, NamedTuple

from el4ner.text.log_words import NOISE
from el4ner.text.templates import FIXED, Extent, Form, Piece, Sighting, Template, cut, render, sighted
from el4ner.text.words import function_words

__all__ = ["TemplateMiner"]

# A word between delimiters. Parts of paths, of user@host and of calls are left alone.
_WORD = re.compile(r"(?<![^\s=\[({<\"',;:])[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*(?![^\s\])}>\"',;:])")
_PARTS_OF_WORDS = {"num": "1", "hex": "0x1"}
"""The kinds of fields that a word may have inside, and how they look there. An address or a time is what it is."""
MAX_WORDS = 24
MOST_FORMS: Final = 4096
"""The most line shapes of which a miner knows the form without looking for it: some kilobytes each."""


class _Cell(NamedTuple):
    """A stretch of an outline: where it is, how it stands in a key, and, where it may become a field, which kind of
    one."""

    start: int
    end: int
    text: str
    kind: str


class _Known:
    """What is known of lines with one sighted key. Their form is that of ``form`` as long as no field comes or goes:
    then its key has nothing to teach, and ``shapes`` are the fields that make it so."""

    __slots__ = ("cells", "form", "generation", "outline", "shapes")

    def __init__(self, outline: _Outline) -> None:
        self.outline = outline
        self.cells = outline.cells()
        self.form: Form | None = None
        self.generation = 0
        self.shapes: list[str] = []


class TemplateMiner:
    """Templates of the lines of a stream, in their order: the same lines in the same order give the same templates.

    A line's key may become a more general one as lines go by; it never becomes a more special one, unless what was
    learnt is forgotten. ``memory`` bounds the line shapes and the words that are remembered, least recently used first
    to go: some hundred bytes each. Not for several threads at once.

    Raises:
        ValueError: ``distinct`` below 2 or ``memory`` below 1.
    """

    def __init__(self, *, distinct: int = 4, memory: int = 50_000) -> None:
        if distinct < 2 or memory < 1:
            raise ValueError(f"distinct must be at least 2 and memory at least 1, not {distinct} and {memory}")
        self.distinct = distinct
        self.memory = memory
        self._words: OrderedDict[str, set[str]] = OrderedDict()  # a shape with one word left out: the words seen there
        self._fields: OrderedDict[str, set[str]] = OrderedDict()  # such shapes whose word is a field
        self._learnt: OrderedDict[str, set[str]] = OrderedDict()  # keys that have nothing new to teach
        self._generation = 0  # how often a field came or went
        self._known: OrderedDict[str, _Known] = OrderedDict()  # by sighted key; forgetting it changes no answer

    def template_of(self, line: str) -> Template:
        """The template of ``line``, after learning from it."""
        sighting = sighted(line)
        return self.form_of(sighting).template(sighting)

    def form_of(self, sighting: Sighting) -> Form:
        """The form of a line, after learning from it."""
        known = self._known.get(sighting.key)
        if known is None:
            known = self._known[sighting.key] = _Known(_Outline(sighting))
            if len(self._known) > MOST_FORMS:
                self._known.popitem(last=False)
        form = known.form
        if form is not None and known.generation == self._generation and form.key in self._learnt:
            for shape in known.shapes:
                self._fields.move_to_end(shape)
            self._learnt.move_to_end(form.key)
            return form
        return self._find(known)

    def _find(self, known: _Known) -> Form:
        """As :meth:`form_of`, by looking at each word."""
        cells = known.cells
        rendered = [cell.text for cell in cells]
        open_cells = [index for index, cell in enumerate(cells) if cell.kind]
        masked = self._known_fields(cells, rendered, open_cells)
        key = "".join(rendered)
        if key in self._learnt:
            self._learnt.move_to_end(key)
            if known.form is None or known.form.key != key:
                known.form = known.outline.form(key, [cells[index] for index in masked])
            known.generation, known.shapes = self._generation, list(masked.values())
            return known.form
        self._remember(self._learnt, key)
        fields = set(masked)
        new = self._learn(cells, rendered, [index for index in open_cells if index not in masked])
        if new is not None:
            rendered[new] = _mask(cells[new])
            fields.add(new)
            fields |= self._known_fields(cells, rendered, [i for i in open_cells if i not in fields]).keys()
        return known.outline.form("".join(rendered), [cells[index] for index in fields])

    def _known_fields(self, cells: list[_Cell], rendered: list[str], open_cells: list[int]) -> dict[int, str]:
        """The cells that are fields by what was learnt, and by which shape; they are masked in ``rendered``."""
        masked: dict[int, str] = {}
        learnt = True
        while learnt:  # one field may have been learnt where another one was already
            learnt = False
            for index in open_cells:
                if index in masked:
                    continue
                shape = _shape(cells, rendered, index)
                if shape in self._fields:
                    self._fields.move_to_end(shape)
                    rendered[index] = _mask(cells[index])
                    masked[index] = shape
                    learnt = True
        return masked

    def _learn(self, cells: list[_Cell], rendered: list[str], open_cells: list[int]) -> int | None:
        """Count each word in its place; the first cell that has now seen enough is a field, and is returned."""
        for index in open_cells:
            shape = _shape(cells, rendered, index)
            words = self._remember(self._words, shape)
            words.add(cells[index].text)
            if len(words) >= self.distinct:
                del self._words[shape]
                self._remember(self._fields, shape)
                self._generation += 1  # and another one may be forgotten
                return index
        return None

    def _remember(self, where: OrderedDict[str, set[str]], key: str) -> set[str]:
        """The words kept under ``key``, which is now the most recently used one."""
        words = where.setdefault(key, set())
        where.move_to_end(key)
        if len(where) > self.memory:
            where.popitem(last=False)
        return words


class _Outline:
    """A line with what stands for its fields in their places; the same for all lines with one sighted key."""

    def __init__(self, sighting: Sighting) -> None:
        bounds, self._kinds = sighting.bounds, sighting.kinds
        self._parts: list[str] = []  # fixed text, field, fixed text, …; the fixed ones may be empty
        self._starts: list[int] = []
        done = 0
        for part, (start, end) in enumerate(pairwise(bounds)):
            text = _PARTS_OF_WORDS.get(self._kinds[part // 2], "1") if part % 2 else sighting.line[start:end]
            self._parts.append(text)
            self._starts.append(done)
            done += len(text)
        self._text = "".join(self._parts)

    def cells(self) -> list[_Cell]:
        """Words that may become fields, and what lies between them."""
        words: dict[int, str] = {}
        ends = [0]
        for match in _WORD.finditer(self._text):
            kind = _word_kind(match.group())
            if kind and len(words) < MAX_WORDS and self._may_vary(*match.span()):
                words[match.start()] = kind
                ends += match.span()
        ends.append(len(self._text))
        return [
            _Cell(start, end, self._rendered(start, end), words.get(start, ""))
            for start, end in pairwise(ends)
            if start < end
        ]

    def form(self, key: str, words: list[_Cell]) -> Form:
        """The form of these lines, with some of their words as fields."""
        fields = [Piece(word.start, word.end, word.kind) for word in words]
        for part in range(1, len(self._parts), 2):
            start, end = self._starts[part], self._starts[part + 1]
            if not any(word.start <= start and end <= word.end for word in words):
                fields.append(Piece(start, end, self._kinds[part // 2]))
        pieces = cut(self._text, sorted(fields))
        return Form(key, [self._extent(piece.start, piece.end) for piece in pieces], [piece.kind for piece in pieces])

    def _parts_in(self, start: int, end: int) -> range:
        return range(bisect_right(self._starts, start) - 1, bisect_right(self._starts, end - 1))

    def _may_vary(self, start: int, end: int) -> bool:
        return all(self._kinds[part // 2] in _PARTS_OF_WORDS for part in self._parts_in(start, end) if part % 2)

    def _rendered(self, start: int, end: int) -> str:
        text = ""
        for part in self._parts_in(start, end):
            first = self._starts[part]
            if part % 2:
                text += render("", Piece(0, 0, self._kinds[part // 2]))
            else:
                text += render(self._text, Piece(max(start, first), min(end, first + len(self._parts[part])), FIXED))
        return text

    def _extent(self, start: int, end: int) -> Extent:
        parts = self._parts_in(start, end)
        first, last = parts[0], parts[-1]
        skip = start - self._starts[first]
        return Extent(first, skip, last + 1, 0) if last % 2 else Extent(first, skip, last, end - self._starts[last])


def _word_kind(word: str) -> str:
    """What kind of field a word may become; none if it is no such word."""
    if word.lower() in NOISE or word.lower() in function_words() or not any(map(str.isalpha, word)):
        return ""
    if "." in word:
        return "name"
    return "WORD" if word.isupper() and len(word) > 1 else "word"


def _mask(cell: _Cell) -> str:
    return render("", Piece(0, 0, cell.kind))


def _shape(cells: list[_Cell], rendered: list[str], index: int) -> str:
    """The key that the line would have with the word at ``index`` as a field."""
    return "".join([*rendered[:index], _mask(cells[index]), *rendered[index + 1 :]])

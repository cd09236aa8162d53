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
from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

from el4ner.text.log_words import NOISE
from el4ner.text.templates import FIXED, Piece, Template, cut, render, template_of
from el4ner.text.words import function_words

__all__ = ["TemplateMiner"]

# A word between delimiters. Parts of paths, of user@host and of calls are left alone.
_WORD = re.compile(r"(?<![^\s=\[({<\"',;:])[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)*(?![^\s\])}>\"',;:])")
_PARTS_OF_WORDS = frozenset({FIXED, "num", "hex"})
MAX_WORDS = 24


class _Cell(NamedTuple):
    """A stretch of a line as it stands in a key, and, where it may become a field, which kind of one."""

    start: int
    end: int
    text: str
    kind: str


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

    def template_of(self, line: str) -> Template:
        """The template of ``line``, after learning from it."""
        base = template_of(line)
        cells = _cells(base)
        rendered = [cell.text for cell in cells]
        open_cells = [index for index, cell in enumerate(cells) if cell.kind]
        masked = self._known_fields(cells, rendered, open_cells)
        key = "".join(rendered)
        if key in self._learnt:
            self._learnt.move_to_end(key)
        else:
            self._remember(self._learnt, key)
            new = self._learn(cells, rendered, [index for index in open_cells if index not in masked])
            if new is not None:
                rendered[new] = _mask(cells[new])
                masked |= {new} | self._known_fields(cells, rendered, [i for i in open_cells if i not in masked])
        if not masked:
            return base
        fields = [piece for piece in base.pieces if piece.kind and not _inside(piece, cells, masked)]
        fields += [Piece(cells[index].start, cells[index].end, cells[index].kind) for index in masked]
        return Template(line, cut(line, sorted(fields)))

    def _known_fields(self, cells: list[_Cell], rendered: list[str], open_cells: list[int]) -> set[int]:
        """The cells that are fields by what was learnt; they are masked in ``rendered``."""
        masked: set[int] = set()
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
                    masked.add(index)
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
                return index
        return None

    def _remember(self, where: OrderedDict[str, set[str]], key: str) -> set[str]:
        """The words kept under ``key``, which is now the most recently used one."""
        words = where.setdefault(key, set())
        where.move_to_end(key)
        if len(where) > self.memory:
            where.popitem(last=False)
        return words


def _cells(base: Template) -> list[_Cell]:
    """The line as words that may become fields and what lies between them."""
    line = base.line
    bounds = [0]
    kinds: dict[int, str] = {}
    for match in _WORD.finditer(line):
        kind = _word_kind(match.group())
        if kind and len(kinds) < MAX_WORDS:
            kinds[match.start()] = kind
            bounds.extend(match.span())
    bounds.append(len(line))
    cells = []
    pieces = iter(base.pieces)
    piece = next(pieces, None)
    for start, end in pairwise(bounds):
        text = ""
        kind = kinds.get(start, "")
        while piece is not None and piece.start < end:
            if piece.kind not in _PARTS_OF_WORDS:
                kind = ""  # an address or a time is what it is
            if piece.kind:
                text += render(line, piece) if start <= piece.start else ""
            else:
                text += render(line, Piece(max(start, piece.start), min(end, piece.end), FIXED))
            if piece.end > end:
                break
            piece = next(pieces, None)
        if start < end:
            cells.append(_Cell(start, end, text, kind))
    return cells


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


def _inside(piece: Piece, cells: list[_Cell], masked: set[int]) -> bool:
    return any(cells[index].start <= piece.start and piece.end <= cells[index].end for index in masked)

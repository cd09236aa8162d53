"""Near-repeats of log lines: what differs between two of them, and how a span is carried from one to the other.

A line is cut into pieces: fixed text, and fields whose content varies from line to line (times, addresses, ids,
numbers). Lines with the same key have the same fixed text and the same kinds of fields in the same order; what was
found out about one of them holds for the other, as far as it does not depend on the fields' content. It is decided
line by line, from the text alone.

Where the content is likely to matter the kind says so: nought, and the classes of numbers from 100 to 599 that stand
alone (404 is not 200), have kinds of their own.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from el4ner.text.log_patterns import IPV4, IPV6_FORM, MAC, TIMESTAMP, UUID, is_ipv6
from el4ner.types import Span

__all__ = [
    "FIXED",
    "Anchor",
    "Extent",
    "Form",
    "Piece",
    "Sighting",
    "Template",
    "cut",
    "render",
    "sighted",
    "template_of",
]

FIXED = ""
"""The kind of a piece that is the same in every line with the same key."""

_MARK = "\x00"  # begins and ends a field in a key; where a line itself has one, it is doubled
_PATTERNS: Final = {
    "time": TIMESTAMP,
    "ipv4": IPV4,
    "mac": MAC,
    "uuid": UUID,
    "ipv6": IPV6_FORM,
    "hex": r"(?:(?<!\w)0x[0-9A-Fa-f]+(?!\w)|(?<!\w)(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{6,}(?!\w))",
    "class": r"(?<![\w.\-/:\[])[1-5]\d\d(?![\w\-/:\]]|\.\d)",
    "num": r"(?:(?<![^_=:\s])-\d+|\d+)",
}
"""What a field looks like, by its kind. Of those that begin at one place the first one counts."""
_NUMBER = re.compile("|".join(f"(?P<{kind}>{_PATTERNS[kind]})" for kind in ("hex", "class", "num")))

# A line is searched for these from left to right. What may begin with a letter begins a word, so most of a line can be
# passed over word by word, and that in the same match as the field behind it: for Python's engine it is half the work
# of trying each place.
_BY_DIGIT: Final = tuple(_PATTERNS)
_BY_LETTER: Final = ("time", "mac", "uuid", "ipv6", "hex")
_WORDS: Final = "|".join(f"(?:{_PATTERNS[kind]})" for kind in _BY_LETTER)
_BEGINS_FIELD: Final = r"(?<!\w)(?=[A-FIJMNOSTWa-f])"
_PASSED_OVER: Final = (
    rf"(?:[^\w:\-]++|(?!{_BEGINS_FIELD}(?:{_WORDS}))[^\W\d]++|(?!{_PATTERNS['ipv6']}):|(?!{_PATTERNS['num']})-)*+"
)


def _captured(kinds: Iterable[str]) -> str:
    return "|".join(f"({_PATTERNS[kind]})" for kind in kinds)


_NEXT_FIELD: Final = re.compile(
    rf"{_PASSED_OVER}(?:(?=\d)(?:{_captured(_BY_DIGIT)})|{_BEGINS_FIELD}(?:{_captured(_BY_LETTER)})"
    rf"|(?=:)(?:{_captured(['ipv6'])})|(?=-)(?:{_captured(['num'])})|\Z)"
)
_KINDS: Final = ("", *_BY_DIGIT, *_BY_LETTER, "ipv6", "num")
"""Of the groups of this pattern, by number."""


class Piece(NamedTuple):
    """``line[start:end]``, and what it is: ``FIXED``, or the kind of a field."""

    start: int
    end: int
    kind: str


def render(line: str, piece: Piece) -> str:
    """A piece as it stands in a key. A sequence of pieces can be told from what it is rendered as."""
    if piece.kind:
        return f"{_MARK}{piece.kind}{_MARK}"
    return line[piece.start : piece.end].replace(_MARK, _MARK * 2)


class Anchor(NamedTuple):
    """A span, told by pieces: it begins ``skip`` characters into piece ``first`` and ends ``trim`` characters before
    the end of piece ``last``. In a field both are 0. Valid for every template with the key of the one that made it."""

    first: int
    skip: int
    last: int
    trim: int


class Extent(NamedTuple):
    """A span, told by the bounds of a :class:`Sighting`: from ``skip`` characters behind ``bounds[first]`` to ``past``
    characters behind ``bounds[last]``, where ``past`` may be negative."""

    first: int
    skip: int
    last: int
    past: int


class Sighting(NamedTuple):
    """What can be seen of a line by itself.

    ``line[bounds[2n + 1]:bounds[2n + 2]]`` is field n, and ``kinds[n]`` its kind; the bounds begin with 0 and end with
    the line's length. ``key`` is what the line has in common with lines that have other contents in the same fields.
    """

    line: str
    key: str
    bounds: Sequence[int]
    kinds: Sequence[str]


def sighted(line: str) -> Sighting:
    """The fields of one line; the same for the same line, always."""
    parts: list[str] = []
    bounds = [0]
    kinds: list[str] = []
    done = 0
    for match in _NEXT_FIELD.finditer(line):
        group = match.lastindex
        if group is None:
            break
        start, end = match.span(group)
        kind = _KINDS[group]
        if kind == "num":
            if line[start] in "-0" and not line[start:end].strip("-0"):
                kind = "nought"
        elif kind in _SPECIAL:
            for field in _special(line, start, end, kind):
                parts += (line[done : field.start], _MARKED[field.kind])
                bounds += (field.start, field.end)
                kinds.append(field.kind)
                done = field.end
            continue
        parts += (line[done:start], _MARKED[kind])
        bounds += (start, end)
        kinds.append(kind)
        done = end
    parts.append(line[done:])
    bounds.append(len(line))
    if _MARK in line:
        parts[::2] = [part.replace(_MARK, _MARK * 2) for part in parts[::2]]
    return Sighting(line, "".join(parts), bounds, kinds)


_SPECIAL: Final = frozenset({"ipv6", "class", "hex"})
_CLASSES: Final = tuple(f"{digit}xx" for digit in range(1, 6))
_MARKED: Final = {kind: f"{_MARK}{kind}{_MARK}" for kind in (*_PATTERNS, *_CLASSES, "nought")}


def _special(line: str, start: int, end: int, kind: str) -> Iterator[Piece]:
    """The fields in a match whose content has to be looked at."""
    if kind == "ipv6":
        # The colon behind an address looks like a part of it.
        whole = next((to for to in (end, end - 1) if is_ipv6(line[start:to])), start)
        if whole > start:
            yield Piece(start, whole, kind)
        else:
            for match in _NUMBER.finditer(line, start, end):
                yield from _special(line, *match.span(), match.lastgroup or "")
    elif kind == "class":
        yield Piece(start, end, f"{line[start]}xx")
    else:
        yield Piece(start, end, kind if line[start:end].strip("-0x") else "nought")


class Form:
    """How a line with a certain sighted key is cut into pieces: what a template is of, without the line.

    ``extents`` and ``kinds`` are of the pieces, in order; ``key`` is that of the template.
    """

    __slots__ = ("extents", "key", "kinds")

    def __init__(self, key: str, extents: Sequence[Extent], kinds: Sequence[str]) -> None:
        self.key = key
        self.extents = tuple(extents)
        self.kinds = tuple(kinds)

    def template(self, sighting: Sighting) -> Template:
        """The template of a line of this form."""
        bounds = sighting.bounds
        pieces = [
            Piece(bounds[first] + skip, bounds[last] + past, kind)
            for (first, skip, last, past), kind in zip(self.extents, self.kinds, strict=True)
        ]
        return Template(sighting.line, pieces, self.key)

    def extent(self, anchor: Anchor) -> Extent:
        """Where an anchor of a template with this key is in lines of this form."""
        first, last = self.extents[anchor.first], self.extents[anchor.last]
        return Extent(first.first, first.skip + anchor.skip, last.last, last.past - anchor.trim)


class Template:
    """A line cut into pieces. ``key`` is equal for lines that differ only in the content of their fields."""

    __slots__ = ("key", "line", "pieces")

    def __init__(self, line: str, pieces: Iterable[Piece], key: str | None = None) -> None:
        """``pieces`` are in order, not empty, together the whole line, and no two fixed ones follow each other; ``key``
        is what they are rendered as, where that is known."""
        self.line = line
        self.pieces = tuple(pieces)
        self.key = "".join([render(line, piece) for piece in self.pieces]) if key is None else key

    def anchor(self, start: int, end: int) -> Anchor | None:
        """Where ``line[start:end]`` is, in terms of pieces; None where it cannot be carried exactly.

        That is: it begins or ends inside a field, is empty, or is not inside the line.
        """
        if not 0 <= start < end <= len(self.line):
            return None
        if len(self.pieces) == 1:
            skip, trim = start, len(self.line) - end
            return None if (skip or trim) and self.pieces[0].kind else Anchor(0, skip, 0, trim)
        first = bisect_right(self.pieces, start, key=_end)
        last = bisect_left(self.pieces, end, key=_end)
        skip, trim = start - self.pieces[first].start, self.pieces[last].end - end
        if (skip and self.pieces[first].kind) or (trim and self.pieces[last].kind):
            return None
        return Anchor(first, skip, last, trim)

    def locate(self, anchor: Anchor) -> Span:
        """The span that ``anchor`` means in this line.

        Raises:
            ValueError: the anchor is of a template with another key, and means nothing here.
        """
        if not (0 <= anchor.first <= anchor.last < len(self.pieces)):
            raise ValueError(f"{anchor} is not an anchor of a line with {len(self.pieces)} pieces")
        start = self.pieces[anchor.first].start + anchor.skip
        end = self.pieces[anchor.last].end - anchor.trim
        if not self.pieces[anchor.first].start <= start < end <= self.pieces[anchor.last].end:
            raise ValueError(f"{anchor} is not an anchor of a line with this key")
        return Span(start, end, self.line[start:end])


def _end(piece: Piece) -> int:
    return piece.end


def template_of(line: str) -> Template:
    """The template of one line by itself."""
    sighting = sighted(line)
    bounds = sighting.bounds
    fields = [Piece(*each) for each in zip(bounds[1:-1:2], bounds[2::2], sighting.kinds, strict=True)]
    return Template(line, cut(line, fields), sighting.key)


def cut(line: str, fields: Iterable[Piece]) -> list[Piece]:
    """The whole line as pieces: ``fields``, in order and without overlaps, and the fixed text between them."""
    pieces: list[Piece] = []
    done = 0
    for field in fields:
        if done < field.start:
            pieces.append(Piece(done, field.start, FIXED))
        pieces.append(field)
        done = field.end
    if done < len(line):
        pieces.append(Piece(done, len(line), FIXED))
    return pieces

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
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from el4ner.text.log_patterns import IPV4, IPV6_FORM, MAC, TIMESTAMP, UUID, is_ipv6
from el4ner.types import Span

__all__ = ["FIXED", "Anchor", "Piece", "Template", "cut", "render", "template_of"]

FIXED = ""
"""The kind of a piece that is the same in every line with the same key."""

_MARK = "\x00"  # begins and ends a field in a key; where a line itself has one, it is doubled
_HEX = r"(?P<hex>(?<!\w)0x[0-9A-Fa-f]+(?!\w)|(?<!\w)(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{6,}(?!\w))"
_CLASS = r"(?P<class>(?<![\w.\-/:\[])[1-5]\d\d(?![\w\-/:\]]|\.\d))"
_DIGITS = r"(?P<num>(?<![^_=:\s])-\d+|\d+)"
_FIELD = re.compile(
    # Nothing below begins with anything else: most characters of a line are passed over by this alone.
    r"(?=[\dA-Fa-f:IJMNOSTW\-])(?:"
    rf"(?P<time>{TIMESTAMP})|(?P<ipv4>{IPV4})|(?P<mac>{MAC})|(?P<uuid>{UUID})|(?P<ipv6>{IPV6_FORM})"
    rf"|{_HEX}|{_CLASS}|{_DIGITS})"
)
_NUMBER = re.compile(rf"{_HEX}|{_CLASS}|{_DIGITS}")


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


class Template:
    """A line cut into pieces. ``key`` is equal for lines that differ only in the content of their fields."""

    __slots__ = ("key", "line", "pieces")

    def __init__(self, line: str, pieces: Iterable[Piece]) -> None:
        """``pieces`` are in order, not empty, together the whole line, and no two fixed ones follow each other."""
        self.line = line
        self.pieces = tuple(pieces)
        self.key = "".join([render(line, piece) for piece in self.pieces])

    def anchor(self, start: int, end: int) -> Anchor | None:
        """Where ``line[start:end]`` is, in terms of pieces; None where it cannot be carried exactly.

        That is: it begins or ends inside a field, is empty, or is not inside the line.
        """
        if not 0 <= start < end <= len(self.line):
            return None
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
    """The template of one line; the same for the same line, always."""
    return Template(line, cut(line, _fields(line, _FIELD, 0, len(line))))


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


def _fields(line: str, pattern: re.Pattern[str], first: int, last: int) -> Iterator[Piece]:
    for match in pattern.finditer(line, first, last):
        start, end = match.span()
        kind = match.lastgroup or ""
        if kind == "ipv6":
            # The colon behind an address looks like a part of it.
            end = next((to for to in (end, end - 1) if is_ipv6(line[start:to])), start)
            if end == start:
                yield from _fields(line, _NUMBER, start, match.end())
                continue
        elif kind == "class":
            kind = f"{line[start]}xx"
        elif kind in ("num", "hex") and not match.group().strip("-0x"):
            kind = "nought"
        yield Piece(start, end, kind)

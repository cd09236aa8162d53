"""Documents into sentences, with offsets that stay exact.

Prose is segmented by `sentencex`; a log document has one sentence a line, since a log line is a record and its dots and
colons end nothing. Whatever is longer than a limit is split at white space, behind a punctuation mark where there is
none, else anywhere but inside a user-perceived character: text is never dropped. No sentence ends inside an address, a
path or a hash (:mod:`el4ner.text.atoms`) that is not longer than the limit. Time is linear in the text, whatever the
text is.

The signs that end a sentence in some script (``。``, ``।``, ``؟``) end one in every language that `sentencex` knows, so
that nothing has to say which language a text is in.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import cached_property
from typing import Final, Literal

import regex
import sentencex

from el4ner.text.atoms import atoms
from el4ner.text.boundaries import MAX_CLUSTER, inside_characters
from el4ner.types import Sentence

__all__ = ["TextKind", "segment"]

TextKind = Literal["prose", "log"]

WINDOW: Final = 20_000
"""The most characters that `sentencex` gets at once: its time grows with the square of a paragraph full of quotes or of
full stops without spaces (200,000 characters: ten seconds)."""
MARGIN: Final = 500
"""A boundary so close to a window's end is decided again, when what follows it is seen too."""

_LINE = re.compile(r"[^\n\r]+")
_SPACE = re.compile(r"\s+")
_BEHIND_PUNCTUATION = regex.compile(r"(?<=\p{Terminal_Punctuation})(?!\p{P})")


def segment(text: str, kind: TextKind = "prose", *, max_chars: int = 1_000, language: str = "en") -> list[Sentence]:
    """The sentences of ``text`` in order: not empty, without white space around them, at most ``max_chars`` bytes of
    UTF-8 long, or one user-perceived character if that is longer.

    Bytes, since some tokenizers read a token for each byte of an emoji or of a script that they hardly know, and the
    time that a sentence takes grows with the square of its tokens and those of its proposals.

    Every character that is not white space is in exactly one sentence, and no user-perceived character in two (but one
    that is longer than both limits and than :data:`~el4ner.text.boundaries.MAX_CLUSTER`).
    """
    pieces = _lines(text) if kind == "log" else _boundaries(text, language)
    cutting = inside_characters(text)
    address = _Addresses(text)
    if kind != "log":
        pieces = _joined(pieces, lambda place: place in cutting or address.holds(place))
    sentences: list[Sentence] = []
    for start, end in pieces:
        sentences.extend(_split(text, start, end, max_chars, cutting, address))
    return sentences


class _Addresses:
    """The atoms of a text, where no sentence ends; looked for when the first is needed: most log lines are not cut."""

    def __init__(self, text: str) -> None:
        self._text = text

    def holds(self, place: int) -> bool:
        """Whether ``place`` is inside of one."""
        # Behind white space only in a Windows path, and most sentences end so: then nothing has to be looked for.
        return (not self._text[place - 1].isspace() or "\\" in self._text) and self.around(place) < place

    def around(self, place: int) -> int:
        """Where the atom begins that ``place`` is inside of; ``place`` itself if it is in none."""
        starts, ends = self._bounds
        index = bisect_right(starts, place) - 1
        return starts[index] if index >= 0 and place < ends[index] else place

    @cached_property
    def _bounds(self) -> tuple[list[int], list[int]]:
        spans = [(atom.start, atom.end) for atom in atoms(self._text)]
        return [start for start, _ in spans], [end for _, end in spans]


def _split(text: str, start: int, end: int, max_chars: int, cutting: set[int], address: _Addresses) -> list[Sentence]:
    if max_chars < 1:
        raise ValueError(f"max_chars must be at least 1, not {max_chars}")
    pieces: list[Sentence] = []
    while True:
        start, end = _stripped(text, start, end)
        if start >= end:
            return pieces
        cut = _last_that_fits(text, start, end, max_chars, cutting)
        if cut == end:
            pieces.append(Sentence(start, end, text[start:end]))
            return pieces
        if not text[cut].isspace():
            cut = _better_cut(text, start, cut, cutting, address)
        piece_start, piece_end = _stripped(text, start, cut)
        pieces.append(Sentence(piece_start, piece_end, text[piece_start:piece_end]))
        start = cut


def _last_that_fits(text: str, start: int, end: int, max_chars: int, cutting: set[int]) -> int:
    """The last place where a piece from ``start`` on may end, not before the end of its first character."""
    fits = min(start + max_chars, end)
    if _size(text[start:fits]) > max_chars:
        fits = start + bisect_left(range(start, fits), max_chars + 1, key=lambda at: _size(text[start : at + 1]))
    cut = fits
    while cut > start and cut in cutting:
        cut -= 1
    if cut > start:
        return cut
    # One character that is too long. A piece of an overlong one has to look like one.
    whole = next((at for at in range(start + 1, min(start + MAX_CLUSTER, end) + 1) if at not in cutting), None)
    return min(max(fits, start + MAX_CLUSTER + 1), end) if whole is None else whole


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _better_cut(text: str, start: int, cut: int, cutting: set[int], address: _Addresses) -> int:
    """The last white space before ``cut``, the last place behind a punctuation mark in the second half, the beginning
    of the address that ``cut`` is in, or ``cut``. In an address only where it begins the piece."""
    spaces = [match.start() for match in _SPACE.finditer(text, start + 1, cut)]
    marks = [match.start() for match in _BEHIND_PUNCTUATION.finditer(text, (start + cut) // 2, cut)]
    places = [at for at in (*reversed(spaces), *reversed(marks)) if at > start and at not in cutting]
    whole = next((at for at in places if address.around(at) == at), None)
    if whole is not None:
        return whole
    before = address.around(cut)
    return before if before > start and before not in cutting else next(iter(places), cut)


def _joined(pieces: list[tuple[int, int]], is_inside: Callable[[int], bool]) -> list[tuple[int, int]]:
    """Pieces between which a character or an address would be cut, as one."""
    joined: list[tuple[int, int]] = []
    for start, end in pieces:
        if joined and start == joined[-1][1] and is_inside(start):
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _lines(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in _LINE.finditer(text)]


def _boundaries(text: str, language: str) -> list[tuple[int, int]]:
    offsets: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = min(start + WINDOW, len(text))
        between = text.rfind("\n\n", start, end) if end < len(text) else -1
        pieces = _pieces(text[start : between + 2 if between >= 0 else end], language)
        if pieces is None:
            return _lines(text)
        if between < 0 and end < len(text):
            # In the middle of a paragraph: the next window begins with a sentence; a sentence without end is cut.
            pieces = [piece for piece in pieces if 0 < piece[1] <= WINDOW - MARGIN] or pieces
        offsets += [(start + first, start + last) for first, last in pieces]
        start = offsets[-1][1]
    return offsets


def _pieces(text: str, language: str) -> list[tuple[int, int]] | None:
    """The library's pieces, joined, are the text; their lengths give the offsets without trusting its own index unit.
    None where it lost or added characters: lines are coarser, and exact."""
    found = _found(text, language)
    if found is None:
        # sentencex 1.0 takes white space that is longer than a byte for one byte at some places, as in "K\u3000.".
        found = _found(_SPACE.sub(lambda space: _narrow(space.group()), text), language)
    if found is None:
        return None
    pieces = []
    start = 0
    for piece in found:
        pieces.append((start, start + len(piece)))
        start += len(piece)
    return pieces if start == len(text) else None


def _found(text: str, language: str) -> list[str] | None:
    """None where the library panics: that is an exception of Rust's, which cannot be imported and is no `Exception`, so
    that whoever watches over a call would not take it for this text's."""
    try:
        return list(sentencex.segment(language, text))
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return None


def _narrow(space: str) -> str:
    return "".join(each if each.isascii() else " " for each in space)


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end

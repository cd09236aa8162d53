"""Documents into sentences, with offsets that stay exact.

Prose is segmented by `sentencex`; a log document has one sentence a line, since a log line is a record and its dots and
colons end nothing. Whatever is longer than a limit is split at white space, or inside a word where there is none: text
is never dropped. Time is linear in the text, whatever the text is.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import sentencex

from el4ner.types import Sentence

__all__ = ["TextKind", "segment", "split_long"]

TextKind = Literal["prose", "log"]

WINDOW: Final = 20_000
"""The most characters that `sentencex` gets at once: its time grows with the square of a paragraph full of quotes or of
full stops without spaces (200,000 characters: ten seconds)."""
MARGIN: Final = 500
"""A boundary so close to a window's end is decided again, when what follows it is seen too."""

_LINE = re.compile(r"[^\n\r]+")
_SPACE = re.compile(r"\s+")


def segment(text: str, kind: TextKind = "prose", *, max_chars: int = 1_000, language: str = "en") -> list[Sentence]:
    """The sentences of ``text`` in order: not empty, without white space around them, ``max_chars`` long at most.

    Every character that is not white space is in exactly one sentence.
    """
    pieces = _lines(text) if kind == "log" else _boundaries(text, language)
    sentences: list[Sentence] = []
    for start, end in pieces:
        sentences.extend(split_long(text, start, end, max_chars))
    return sentences


def split_long(text: str, start: int, end: int, max_chars: int) -> list[Sentence]:
    """``text[start:end]`` as pieces of at most ``max_chars`` code points, cut at white space where there is some."""
    if max_chars < 1:
        raise ValueError(f"max_chars must be at least 1, not {max_chars}")
    pieces: list[Sentence] = []
    while True:
        start, end = _stripped(text, start, end)
        if start >= end:
            return pieces
        if end - start <= max_chars:
            pieces.append(Sentence(start, end, text[start:end]))
            return pieces
        cut = start + max_chars
        if not text[cut].isspace():
            spaces = [found.start() for found in _SPACE.finditer(text, start + 1, cut)]
            cut = spaces[-1] if spaces else cut
        piece_start, piece_end = _stripped(text, start, cut)
        pieces.append(Sentence(piece_start, piece_end, text[piece_start:piece_end]))
        start = cut


def _lines(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in _LINE.finditer(text)]


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
    pieces = []
    start = 0
    for piece in sentencex.segment(language, text):
        pieces.append((start, start + len(piece)))
        start += len(piece)
    return pieces if start == len(text) else None


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end

"""ICU's break iterators: user-perceived characters, and words of scripts that are written without spaces.

Both take time in the length of the text, whatever it is (the ``\\X`` of `regex` takes the square of a row of flags).
"""

from __future__ import annotations

from collections.abc import Iterable

import regex
from icu4py.breakers import CharacterBreaker, WordBreaker

__all__ = ["characters", "unspaced_words"]

_ROOT = "und"
"""The locale: ICU takes a dictionary by the script."""
_SURROGATE = regex.compile(r"[\ud800-\udfff]")


def characters(text: str) -> list[tuple[int, int]]:
    """The user-perceived characters (UAX 29's extended grapheme clusters) one after the other, by code points."""
    return _offsets(CharacterBreaker(_encodable(text), _ROOT))


def unspaced_words(text: str) -> list[tuple[int, int]]:
    """The words of ``text`` one after the other, by code points; together they are the whole text.

    ICU knows words of Thai, Lao, Khmer, Burmese, Chinese and Japanese. A name that is not in its dictionary comes in
    pieces, often of one character each.
    """
    return _offsets(WordBreaker(_encodable(text), _ROOT))


def _encodable(text: str) -> str:
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _offsets(pieces: Iterable[str]) -> list[tuple[int, int]]:
    """By the pieces' lengths, since the breakers count their offsets in UTF-16."""
    offsets: list[tuple[int, int]] = []
    start = 0
    for piece in pieces:
        offsets.append((start, start + len(piece)))
        start += len(piece)
    return offsets

"""A text's smallest pieces that a span may begin or end with: words and single signs, in every script."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final

import regex

from el4ner.text.boundaries import MARK
from el4ner.text.icu import unspaced_words
from el4ner.text.scripts import UNSPACED

__all__ = ["touched", "word_units"]

# Letters, digits and marks hold together, joiners without width too; any other sign stands alone, with its marks.
_UNIT: Final = regex.compile(
    rf"(?P<unspaced>(?:{UNSPACED}{MARK}*+)++)|(?:[\p{{L}}\p{{N}}_{{\u200c\u200d}}--{UNSPACED}]{MARK}*+)++|\S{MARK}*+",
    regex.VERSION1,
)


def word_units(text: str) -> list[tuple[int, int]]:
    """Their places, in order: code points, half-open. White space is in none.

    ``well-known`` is three of them and ``IL-2`` too, since a name may end before a hyphen and go on behind it. Scripts
    without spaces are cut into words by ICU.
    """
    found: list[tuple[int, int]] = []
    for match in _UNIT.finditer(text):
        if match.lastgroup == "unspaced":
            found += [(match.start() + start, match.start() + end) for start, end in unspaced_words(match.group())]
        else:
            found.append(match.span())
    return found


def touched(words: Sequence[tuple[int, int]], place: tuple[int, int]) -> tuple[int, int]:
    """The numbers of the first and the last word that a place shares a character with; of words, at least one, in the
    order of the text. A place between words has the word behind it, or the last one."""
    first = min(bisect_right(words, place[0], key=lambda word: word[1]), len(words) - 1)
    return first, max(first, bisect_left(words, place[1], key=lambda word: word[0]) - 1)

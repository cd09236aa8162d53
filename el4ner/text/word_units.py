"""A text's smallest pieces that a span may begin or end with: words and single signs, in every script."""

from __future__ import annotations

from typing import Final

import regex

from el4ner.text.boundaries import MARK
from el4ner.text.icu import unspaced_words
from el4ner.text.scripts import UNSPACED

__all__ = ["word_units"]

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

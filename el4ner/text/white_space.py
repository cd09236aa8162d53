"""White space inside a name, and texts as they are compared and as models read them.

In prose a name may hold spaces of any kind (also those that forbid a line break, and the ideographic one) and one line
break with spaces around it. A tab and a blank line separate.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import regex

from el4ner.text.icu import characters

__all__ = ["LINE_BREAK", "Comparable", "as_read", "comparable", "is_gap", "may_be_a_name"]

LINE_BREAK: Final = r"(?:\r\n|[\n\r\x85\u2028])"

_STRETCH = regex.compile(r"\s+")
_BREAK = regex.compile(LINE_BREAK)
_GAP = regex.compile(rf"\p{{Zs}}*+(?:{LINE_BREAK}\p{{Zs}}*+)?")
_UNLIKE_A_SPACE = regex.compile(rf"  |[\p{{Zs}}--[ ]]|{LINE_BREAK}", regex.VERSION1)
"""Where a text has nothing of this, its gaps are single spaces."""


def is_gap(between: str) -> bool:
    """Whether this is white space that may stand between two words of one name."""
    return bool(between) and _GAP.fullmatch(between) is not None


def may_be_a_name(surface: str) -> bool:
    """Whether all white space in it may stand inside a name, with one line break at most."""
    stretches = _STRETCH.findall(surface)
    return all(map(is_gap, stretches)) and sum(_BREAK.search(stretch) is not None for stretch in stretches) <= 1


@dataclass(frozen=True, slots=True, eq=False)
class Comparable:
    """A text in the form in which surfaces are looked for: composed (NFC), every gap inside a name a single space.

    ``offsets[i]`` is where character ``i`` of ``form`` begins in the text, -1 inside what stands for another piece of
    the text; one more says where the text ends.
    """

    form: str
    offsets: tuple[int, ...] | range

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """The text's own offsets of ``form[start:end]``; None if it begins or ends inside a piece."""
        first, last = self.offsets[start], self.offsets[end]
        return None if first < 0 or last < 0 else (first, last)


@lru_cache(maxsize=128)
def comparable(text: str) -> Comparable:
    """How ``text`` is compared. Two texts that differ only in how letters with marks are written (NFC or NFD), or in
    the white space inside names, have the same form."""
    replaced = [(start, end, " ") for start, end in _gaps(text) if text[start:end] != " "]
    if not unicodedata.is_normalized("NFC", text):
        replaced += [
            (start, end, composed)
            for start, end in characters(text)
            if (composed := unicodedata.normalize("NFC", text[start:end])) != text[start:end]
        ]
    if not replaced:
        return Comparable(text, range(len(text) + 1))
    pieces: list[str] = []
    offsets: list[int] = []
    done = 0
    for start, end, form in sorted(replaced):
        if start < done:
            continue  # a mark that stands on white space
        pieces += (text[done:start], form)
        offsets += (*range(done, start), start, *[-1] * (len(form) - 1))
        done = end
    pieces.append(text[done:])
    return Comparable("".join(pieces), (*offsets, *range(done, len(text) + 1)))


@lru_cache(maxsize=1024)
def as_read(text: str) -> str:
    """``text`` as prompts show it: composed, on one line where a name may go over the line's end, with plain spaces.
    What is ASCII on one line stays as it is."""
    pieces: list[str] = []
    for (_, done), (start, end) in pairwise([(0, 0), *_gaps(text), (len(text), len(text))]):
        between = text[start:end]
        pieces += (text[done:start], between if between.strip(" ") == "" else " ")
    return unicodedata.normalize("NFC", "".join(pieces))


def _gaps(text: str) -> Iterator[tuple[int, int]]:
    for match in _STRETCH.finditer(text) if _UNLIKE_A_SPACE.search(text) is not None else ():
        if is_gap(match.group()):
            yield match.span()

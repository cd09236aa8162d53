"""Where a span may begin and end: never inside a user-perceived character, never inside a word.

Characters are Unicode's extended grapheme clusters and words go by Unicode's rules (UAX 29): clusters are ICU's, which
properties a character has is asked of the library `regex`. Scripts without spaces between words are an exception: a
name may begin and end at any of their characters, since where a word ends there is a guess (:mod:`el4ner.text.icu`
makes one).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import regex

from el4ner.text.icu import characters
from el4ner.text.scripts import UNSPACED

__all__ = [
    "CHARACTER",
    "LETTER",
    "MARK",
    "MAX_CLUSTER",
    "WORD_CHARACTERS",
    "Boundaries",
    "boundaries",
    "clusters",
    "inside_characters",
]

MAX_CLUSTER: Final = 32
"""The most code points of one user-perceived character that is text: Unicode's stream-safe format allows 30 marks on a
letter. What is longer («zalgo») is no part of any word or span, so that a text may be cut inside it."""

MARK: Final = r"[\p{M}\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}\p{WB=Extend}]"
"""What belongs to the letter before it: combining marks, vowel signs, viramas, joiners."""
LETTER: Final = rf"[[\p{{L}}\p{{N}}]--{MARK}--{UNSPACED}]"
"""A letter or digit of a script that has spaces between words."""
CHARACTER: Final = rf"\p{{GCB=Prepend}}{{0,2}}+{LETTER}{MARK}{{0,{MAX_CLUSTER - 1}}}+(?!{MARK})"
"""Such a letter with everything that belongs to it."""
WORD_CHARACTERS: Final = rf"{CHARACTER}(?:\p{{WB=Format}}{{0,4}}+{CHARACTER})*+"
"""Letters one after the other; invisible signs between two of them (a soft hyphen) end no word."""

_JOINING = regex.compile(
    r"[\p{GCB=Extend}\p{GCB=SpacingMark}\p{GCB=ZWJ}\p{GCB=Prepend}\p{GCB=Regional_Indicator}\p{GCB=L}\p{GCB=V}\p{GCB=T}]"
    r"|\r\n"
)
_MARK = regex.compile(MARK, regex.VERSION1)
_WORD_CHARACTERS = regex.compile(WORD_CHARACTERS, regex.VERSION1)


def clusters(text: str) -> Iterator[tuple[int, int]]:
    """The user-perceived characters that are more than one code point, in order."""
    if _JOINING.search(text) is not None:
        for start, end in characters(text):
            if end - start > 1:
                yield start, end


@dataclass(frozen=True, slots=True, eq=False)
class Boundaries:
    """Of one text. ``inside``: the places (0 to the text's length) where no span begins or ends, inside a character or
    between two letters of a word. ``overlong``: characters longer than :data:`MAX_CLUSTER`, in order."""

    inside: frozenset[int]
    overlong: tuple[tuple[int, int], ...]

    def allow(self, start: int, end: int) -> bool:
        """Whether ``text[start:end]`` cuts no character and no word in two, and holds no overlong character."""
        return (
            start not in self.inside
            and end not in self.inside
            and not any(first < end and start < last for first, last in self.overlong)
        )


def inside_characters(text: str) -> set[int]:
    """The places inside a user-perceived character: nothing begins or ends there, whatever it is."""
    return _inside(text, clusters(text))


def _inside(text: str, several: Iterable[tuple[int, int]]) -> set[int]:
    """``several``: the characters of ``text`` that are more than one code point."""
    inside = {place for start, end in several for place in range(start + 1, end)}
    if _MARK.match(text):
        inside.add(0)  # of a character whose beginning is not here
    return inside


@lru_cache(maxsize=128)
def boundaries(text: str, *, words: bool = True) -> Boundaries:
    """The boundaries of ``text``. Where ``words`` is False, those of characters alone."""
    several = list(clusters(text))
    inside = _inside(text, several)
    overlong = [(start, end) for start, end in several if end - start > MAX_CLUSTER]
    if words:
        for match in _WORD_CHARACTERS.finditer(text):
            inside.update(range(match.start() + 1, match.end()))
    return Boundaries(frozenset(inside), tuple(overlong))

"""Where a detected surface stands in a text again, in whatever form: the rules of what counts as one.

==========================  ============================================================================================
letters of the surface      where it is found
==========================  ============================================================================================
five and more               everywhere, also inside longer words (``Merkels``, ``angelamerkel.de``)
three and four              as a word of its own, with a genitive's ``s``, at the beginning of a word that has a
                            capital, and everywhere in addresses, paths and names of files
one and two                 as a word of its own, with a genitive's ``s``
none (punctuation alone)    where it was detected, and nowhere else
==========================  ============================================================================================

Scripts that put no spaces between words have no words in this sense: there every place will do. Between two letters of
the surface the text may have hyphens, other punctuation or a line's end; where the surface has a gap between its words,
anything, and nothing. Spaces inside a word count as well when there is one at every place (``M e r k e l``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import regex

from el4ner.redaction.escapes import may_have_escapes
from el4ner.redaction.folding import (
    Folded,
    Gap,
    fold,
    folded_forms,
    goes_with_the_one_before,
    is_unspaced,
)

__all__ = ["SearchedText", "Surface", "SurfaceMatch", "surfaces_of"]

_ANYWHERE: Final = 5
"""So many letters are found inside words too: with fewer, too many other words would be cut."""
_IN_ADDRESSES: Final = 3
_NUMBER_DIGITS: Final = 6
"""A number with so many digits may be grouped anyhow, as those of cards and telephones are."""
_CHUNK: Final = regex.compile(r"[^\s<>()\"'„“”‘’«»,;]+")
_IS_ADDRESS: Final = regex.compile(r"[@/\\_=%#&]|\p{L}\.\p{L}|\p{N}\p{L}|\p{L}\p{N}")
_GENITIVES: Final = frozenset({"s", "es"})


@dataclass(frozen=True, slots=True)
class Surface:
    """One form of a surface. ``gaps``: before which of its letters it may have spaces. ``owner``: whose it is, a number
    that the caller knows."""

    letters: str
    gaps: frozenset[int]
    owner: int
    whole_words: bool = False
    """Whether it counts only as a word of its own."""


@dataclass(frozen=True, slots=True)
class SurfaceMatch:
    """Text from ``start`` to ``end`` is a form of the owner's surface."""

    start: int
    end: int
    owner: int


def surfaces_of(text: str, owner: int, *, parts: bool = False) -> list[Surface]:
    """The forms of a detected text. ``parts``: each of its words, where it has several, counts as one, too."""
    forms = [Surface(letters, gaps, owner) for letters, gaps in folded_forms(text)]
    if parts:
        for letters, gaps in folded_forms(text):
            cuts = [0, *sorted(gaps), len(letters)]
            words = {letters[start:end] for start, end in pairwise(cuts)} - {letters}
            forms += [Surface(word, frozenset(), owner, whole_words=True) for word in words if len(word) > 1]
    return sorted(set(forms), key=lambda form: (-len(form.letters), form.letters, sorted(form.gaps)))


class SearchedText:
    """A text in which surfaces are looked for, again and again while pieces are taken out of it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._readings = list(fold(text))
        self._addresses = [
            chunk.span() for chunk in _CHUNK.finditer(text) if _IS_ADDRESS.search(chunk.group()) is not None
        ]

    def find(self, surfaces: Sequence[Surface]) -> Iterator[SurfaceMatch]:
        """Every place where a form of one of the surfaces stands. They may overlap."""
        for folded in self._readings:
            yield from self._find(folded, surfaces)

    def find_between(self, start: int, end: int, surfaces: Sequence[Surface]) -> Iterator[SurfaceMatch]:
        """The same in a piece of the text, as if it stood alone."""
        piece = self.text[start:end]
        readings = fold(piece, start) if may_have_escapes(piece) else [self._readings[0].between(start, end)]
        for folded in readings:
            yield from self._find(folded, surfaces)

    def _find(self, folded: Folded, surfaces: Sequence[Surface]) -> Iterator[SurfaceMatch]:
        for surface in surfaces:
            place = folded.letters.find(surface.letters)
            while place >= 0:
                end = place + len(surface.letters)
                if _is_whole(folded, surface, place, end) and _stands_free(
                    folded, surface, place, end, self._addresses
                ):
                    last = folded.ends[end - 1]
                    while last < len(self.text) and goes_with_the_one_before(self.text[last]):
                        last += 1
                    yield SurfaceMatch(folded.starts[place], last, surface.owner)
                    place = end - 1  # what overlaps it is looked for in what is left
                place = folded.letters.find(surface.letters, place + 1)


def _is_whole(folded: Folded, surface: Surface, start: int, end: int) -> bool:
    """Whether what stands between the letters lets them be one surface."""
    inside = range(start + 1, end)
    if all(
        folded.gaps[place] < Gap.SPACE or place - start in surface.gaps or is_unspaced(folded.letters[place])
        for place in inside
    ):
        return True
    if sum(map(str.isdecimal, surface.letters)) >= _NUMBER_DIGITS:
        return True
    # S p e l l e d
    apart = (folded.gaps[place] is not Gap.NONE or folded.starts[place - 1] == folded.starts[place] for place in inside)
    return len(surface.letters) >= _IN_ADDRESSES and all(apart)


def _stands_free(folded: Folded, surface: Surface, start: int, end: int, addresses: Iterable[tuple[int, int]]) -> bool:
    """Whether what stands beside the letters lets them be a surface."""
    size = len(surface.letters)
    if (size >= _ANYWHERE and not surface.whole_words) or all(map(is_unspaced, surface.letters)):
        return True
    if size >= _IN_ADDRESSES:
        first, last = folded.starts[start], folded.ends[end - 1]
        if any(begin <= first and last <= stop for begin, stop in addresses):
            return True
    if not folded.is_boundary(start):
        return False
    if folded.is_boundary(end):
        return True
    rest = folded.letters[end : folded.word_end(end)]
    return rest in _GENITIVES or (size >= _IN_ADDRESSES and folded.capitals[start])

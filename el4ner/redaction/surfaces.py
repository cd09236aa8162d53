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

Where such a gap makes words of the surface, its first and its last one cut no other word either, if they are short:
``Apple Inc`` is not in ``Apple increased``, nor ``La Repubblica`` in ``alla Repubblica``. A last word that begins a
longer one with a capital takes that with it (``Ford Motor Co`` of ``Ford Motor Company``).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from operator import itemgetter
from types import MappingProxyType
from typing import Final

import regex

from el4ner.redaction.escapes import may_have_escapes
from el4ner.redaction.folding import (
    GENITIVE,
    Folded,
    Gap,
    fold,
    folded_forms,
    goes_with_the_one_before,
    is_unspaced,
)
from el4ner.redaction.surface_index import SurfaceIndex

__all__ = ["SearchedText", "SoughtSurfaces", "Surface", "SurfaceMatch", "surfaces_of"]

_ANYWHERE: Final = 5
"""So many letters are found inside words too: with fewer, too many other words would be cut."""
_IN_ADDRESSES: Final = 3
_NUMBER_DIGITS: Final = 6
"""A number with so many digits may be grouped anyhow, as those of cards and telephones are."""
_CHUNK: Final = regex.compile(r"[^\s<>()\"'„“”‘’«»,;]+")
_IS_ADDRESS: Final = regex.compile(r"[@/\\_=%#&]|\p{L}\.\p{L}|\p{N}\p{L}|\p{L}\p{N}")
_LONGEST_CUT: Final = MappingProxyType({Gap.MARKS: 2, Gap.HYPHENATED: 1, Gap.BROKEN: 4, Gap.SPACE: 4})
"""Behind or before each gap, of how many letters a piece is so short that it has to be a word of its own."""
_LONGEST_REST: Final = 32
"""Of how many letters what is left of a word may be to go with its beginning."""
_GENITIVES: Final = frozenset({"s", "es"})
_LONGEST_GENITIVE: Final = 2


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
    name = GENITIVE.sub("", text)
    forms = [Surface(letters, gaps, owner) for letters, gaps in folded_forms(name)]
    if name != text:
        # Its s is no word, or "Merkel's" would be in "Merkel said".
        forms += [Surface(letters, gaps, owner) for letters, gaps in folded_forms(f"{name}s")]
    if parts:
        for letters, gaps in folded_forms(name):
            cuts = [0, *sorted(gaps), len(letters)]
            words = {letters[start:end] for start, end in pairwise(cuts)} - {letters}
            forms += [Surface(word, frozenset(), owner, whole_words=True) for word in words if len(word) > 1]
    return sorted(set(forms), key=lambda form: (-len(form.letters), form.letters, sorted(form.gaps)))


class SoughtSurfaces:
    """Forms that are looked for together."""

    def __init__(self, forms: Iterable[Surface]) -> None:
        self.forms = sorted(
            set(forms), key=lambda form: (form.letters, form.owner, sorted(form.gaps), form.whole_words)
        )
        self.letters = frozenset(form.letters for form in self.forms)
        self.index = SurfaceIndex([form.letters for form in self.forms])


class SearchedText:
    """A text in which surfaces are looked for, again and again while pieces are taken out of it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._readings = list(fold(text))
        self._addresses = [
            chunk.span() for chunk in _CHUNK.finditer(text) if _IS_ADDRESS.search(chunk.group()) is not None
        ]

    def find(self, surfaces: SoughtSurfaces) -> Iterator[SurfaceMatch]:
        """Every place where a form of one of the surfaces stands. They may overlap."""
        for folded in self._readings:
            yield from self._find(folded, surfaces)

    def find_between(self, start: int, end: int, surfaces: SoughtSurfaces) -> Iterator[SurfaceMatch]:
        """The same in a piece of the text, as if it stood alone."""
        piece = self.text[start:end]
        readings = fold(piece, start) if may_have_escapes(piece) else [self._readings[0].between(start, end)]
        for folded in readings:
            yield from self._find(folded, surfaces)

    def _find(self, folded: Folded, surfaces: SoughtSurfaces) -> Iterator[SurfaceMatch]:
        """From left to right: what follows a match may begin a word."""
        letters = _SearchedLetters(folded)
        candidates = sorted(
            (place, -len(surfaces.forms[number].letters), number)
            for place, number in surfaces.index.places(folded.letters)
            if letters.is_whole(surfaces.forms[number], place)
        )
        freed = set[int]()
        searched_to: dict[int, int] = {}
        for place, size, number in candidates:
            surface, end = surfaces.forms[number], place - size
            if place < searched_to.get(number, 0):
                continue  # what overlaps a match is looked for in what is left
            in_address = self.is_in_an_address(folded.starts[place], folded.ends[end - 1])
            if (
                _stands_free(folded, surface, place, end, freed)
                or (len(surface.letters) >= _IN_ADDRESSES and in_address)
            ) and (whole := letters.whole_words_end(surface, place, freed, in_address=in_address)) is not None:
                freed.add(whole)
                searched_to[number] = whole
                first, last = folded.starts[place], folded.ends[whole - 1]
                while last < len(self.text) and goes_with_the_one_before(self.text[last]):
                    last += 1
                yield SurfaceMatch(first, last, surface.owner)

    def is_in_an_address(self, start: int, end: int) -> bool:
        """Whether the piece is a part of an address, a path, or what else has no spaces."""
        before = bisect_right(self._addresses, start, key=itemgetter(0))
        return before > 0 and end <= self._addresses[before - 1][1]


class _SearchedLetters:
    """What stands between a text's letters, and whether it lets some of them be a surface."""

    def __init__(self, folded: Folded) -> None:
        self._folded = folded
        self._spaces = [
            place
            for place, gap in enumerate(folded.gaps)
            if gap >= Gap.SPACE and not is_unspaced(folded.letters[place])
        ]
        self._apart = [place for place, gap in enumerate(folded.gaps) if gap is not Gap.NONE]

    def whole_words_end(self, surface: Surface, start: int, freed: Collection[int], *, in_address: bool) -> int | None:
        """Where the surface that begins at ``start`` ends, with what goes with its last word; None: its first or its
        last word is a piece of another word alone."""
        folded, end = self._folded, start + len(surface.letters)
        first, last = bisect_right(self._apart, start), bisect_left(self._apart, end) - 1
        if first > last or _is_number(surface.letters):
            return end
        head, tail = self._apart[first], self._apart[last]
        if (
            head - start <= _LONGEST_CUT[folded.gaps[head]]
            and not in_address
            and start not in freed
            and not folded.is_boundary(start)
            and not _has_no_case(folded.letters[start])
        ):
            return None
        if (
            (size := end - tail) > _LONGEST_CUT[folded.gaps[tail]]
            or (size >= _IN_ADDRESSES and in_address)
            or folded.is_boundary(end)
            or _has_no_case(folded.letters[end - 1])
            or folded.letters[end : folded.word_end(end, _LONGEST_GENITIVE)] in _GENITIVES
        ):
            return end
        if not folded.capitals[tail] or tail - start not in surface.gaps:
            return None
        word_end = folded.word_end(end, _LONGEST_REST)
        return word_end if word_end <= end + _LONGEST_REST else end

    def is_whole(self, surface: Surface, start: int) -> bool:
        """Whether what stands between the letters from ``start`` on lets them be one surface."""
        end = start + len(surface.letters)
        if _is_number(surface.letters):
            return True
        first, last = bisect_right(self._spaces, start), bisect_left(self._spaces, end)
        if last - first <= len(surface.gaps) and all(
            self._spaces[index] - start in surface.gaps for index in range(first, last)
        ):
            return True
        # S p e l l e d
        return end - start >= _IN_ADDRESSES and self._letters_apart[end] - self._letters_apart[start + 1] == (
            end - start - 1
        )

    @cached_property
    def _letters_apart(self) -> list[int]:
        """How many of the letters before each place are apart from the letter before."""
        folded = self._folded
        apart = (
            gap is not Gap.NONE or (place > 0 and folded.starts[place - 1] == folded.starts[place])
            for place, gap in enumerate(folded.gaps)
        )
        return list(accumulate(apart, initial=0))


def _counts_everywhere(surface: Surface) -> bool:
    return (len(surface.letters) >= _ANYWHERE and not surface.whole_words) or all(map(is_unspaced, surface.letters))


@lru_cache(maxsize=8_192)
def _is_number(letters: str) -> bool:
    return sum(map(str.isdecimal, letters)) >= _NUMBER_DIGITS


def _has_no_case(letter: str) -> bool:
    """Of such scripts many join short words to the next one: there a piece of a word may be the name."""
    return letter.isalpha() and not letter.islower()


def _stands_free(folded: Folded, surface: Surface, start: int, end: int, freed: Collection[int]) -> bool:
    """Whether what stands beside the letters lets them be a surface. ``freed``: where matches end."""
    if _counts_everywhere(surface):
        return True
    if start not in freed and not folded.is_boundary(start):
        return False
    if folded.is_boundary(end):
        return True
    rest = folded.letters[end : folded.word_end(end, _LONGEST_GENITIVE)]
    return rest in _GENITIVES or (len(surface.letters) >= _IN_ADDRESSES and folded.capitals[start])

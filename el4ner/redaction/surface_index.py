"""Where any of many words stands in a text, in one pass over it: a document may have thousands of names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["SurfaceIndex"]

_BEGINNING: Final = 3
_FEW: Final = 24
"""So many are sought one after the other in less time."""


class SurfaceIndex:
    """Words, each by its number in the sequence. None is empty; they may be equal.

    ``places`` takes time by the text's length times the number of different lengths of words that begin alike, and not
    by the number of words.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._numbers: dict[str, list[int]] = defaultdict(list)
        for number, word in enumerate(words):
            self._numbers[word].append(number)
        sizes: dict[str, set[int]] = defaultdict(set)
        self._short = [word for word in self._numbers if len(word) < _BEGINNING]
        for word in self._numbers:
            if len(word) >= _BEGINNING:
                sizes[word[:_BEGINNING]].add(len(word))
        self._sizes = {beginning: sorted(each) for beginning, each in sizes.items()}

    def places(self, text: str) -> Iterator[tuple[int, int]]:
        """Where words begin, and their numbers. They may overlap."""
        few = self._numbers if len(self._numbers) <= _FEW else self._short
        for word in few:
            place = text.find(word)
            while place >= 0:
                for number in self._numbers[word]:
                    yield place, number
                place = text.find(word, place + 1)
        if few is self._numbers:
            return
        for place in range(len(text) - _BEGINNING + 1):
            for size in self._sizes.get(text[place : place + _BEGINNING], ()):
                for number in self._numbers.get(text[place : place + size], ()):
                    yield place, number

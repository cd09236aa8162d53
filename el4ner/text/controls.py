r"""Texts without what only a terminal or a file format reads: escape sequences, control characters, invisible marks.

They separate words and belong to none, so no entity may contain one. Models, templates and caches get the text without
them (:class:`CleanText`); every offset that leaves a stage is the original text's.

What counts:

- escape sequences of ECMA-48: CSI (colours, cursor), OSC (links, titles) and the other strings with an end, character
  sets, single-character ones, in seven and eight bits; of an unfinished one, what can be told to be of it;
- the same colours written out, as loggers and JSON do it: ``\x1b[1m``, ``\u001b[1m``, ``\033[1m``, ``\e[1m``,
  ``^[[1m``, ``#033[1m``; and without any sign of ESC (``[32mINFO[0m``) in a line that has the reset ``[0m``;
- control characters of Unicode (Cc) but tab and line breaks;
- byte order marks, bidirectional controls, and zero-width spaces but between letters of scripts that write them inside
  of names. Joiners (ZWJ, ZWNJ), soft hyphens and variation selectors are parts of words.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

__all__ = ["CleanText", "separators"]

# ESC and a letter are a sequence only where that takes no word's first letter away.
_ESCAPE: Final = (
    r"\x1b\[[0-?]*(?: q|[!-/]*[@-~])?"
    r"|\x9b(?:[0-?]+[!-/]*[@-~]|[mKJH](?![a-z]))"
    # Strings up to their end; without an end only the beginning, so that nothing that can be read is taken away.
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b\][\d;]*|\x1b[PX^_]"
    r"|\x1b(?: [F-N](?![a-z])|[#-/]+[0-~]|[0-?]|[\\c-~=>](?![a-z])|[DEHMNOZ](?![a-z]))"
    r"|\x1b"
)
_WRITTEN_ESC: Final = r"(?:\\{1,2}(?:x1[bB]|u001[bB]|u\{1[bB]\}|033|e)|\^\[|#033|<ESC>|\u241b)"
_WRITTEN: Final = (
    rf"{_WRITTEN_ESC}(?:\[(?:[\d;:?]*[mKJH]|[\d;:?]+[A-Za-z])|\([AB0-2]"
    rf"|\]\d+;(?:[^\s\x00-\x1f\\^#<\u241b]|#(?!0))*(?:\\{{1,2}}(?:x07|u0007|007|a)|\^G|#007|{_WRITTEN_ESC}\\{{1,2}}))"
)
_CONTROL: Final = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
# Khmer, Lao, Thai and Burmese set zero-width spaces between the words of a name.
_SPACELESS: Final = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_INVISIBLE: Final = (
    r"[\u061c\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    rf"|(?<![{_SPACELESS}])\u200b|\u200b(?![{_SPACELESS}])"
)
_SEPARATORS: Final = re.compile(rf"(?P<escape>(?:{_ESCAPE}|{_WRITTEN}|{_INVISIBLE})+)|(?P<control>{_CONTROL}+)")
# What no separator can do without: most texts have none, and are told so by one search.
_SIGN: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u241b\ufeff\ufff9-\ufffb]"
    r"|\\(?:x1b|u001b|u\{1b\}|033|e[\[\](])|\^\[[\[\](]|#033[\[\](]|<ESC>|\[0m",
    re.IGNORECASE,
)
_RESET: Final = "[0m"
_RESIDUE: Final = re.compile(r"\[(?:\d{1,3}(?:[;:]\d{1,3})*)?m(?!\])")
_LINE: Final = re.compile(r"[^\n\r]+")


def separators(text: str) -> list[tuple[int, int, bool]]:
    """The runs of ``text`` that belong to no word, in order, none next to another: start, end, and whether there is
    nothing in it but escape sequences and invisible marks, which stand inside of what reads as one text."""
    if not _SIGN.search(text):
        return []
    runs = [(*match.span(), match.lastgroup == "escape") for match in _SEPARATORS.finditer(text)]
    if _RESET in text:
        runs = sorted([*runs, *_residue(text, runs)])
    joined: list[tuple[int, int, bool]] = []
    for start, end, shown in runs:
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end, joined[-1][2] and shown)
        else:
            joined.append((start, end, shown))
    return joined


def _residue(text: str, runs: list[tuple[int, int, bool]]) -> Iterable[tuple[int, int, bool]]:
    """Colours whose ESC was lost, in lines with a reset that lost its own: ``[5m`` alone may be five minutes."""
    starts = [start for start, _, _ in runs]

    def is_apart(place: int) -> bool:
        before = bisect_left(starts, place + 1) - 1
        return before < 0 or runs[before][1] <= place

    for line in _LINE.finditer(text):
        if text.find(_RESET, *line.span()) < 0:
            continue
        codes = [match for match in _RESIDUE.finditer(text, *line.span()) if is_apart(match.start())]
        if any(match.group() == _RESET for match in codes):
            yield from ((*match.span(), True) for match in codes)


@dataclass(frozen=True, eq=False)
class CleanText:
    """A text without its separators. A space is left where two words would run into one.

    ``text`` is the clean text and ``original`` what it was; offsets into either are code points, half-open.
    """

    original: str
    text: str
    _places: array[int] | None
    """For each character of ``text`` where it is in ``original``; None where they are the same text."""
    _runs: tuple[tuple[int, int, bool], ...]

    @classmethod
    def of(cls, original: str) -> CleanText:
        """The clean view of a text; costs one search where there is nothing to take out."""
        runs = separators(original)
        if not runs:
            return cls(original, original, None, ())
        parts: list[str] = []
        places = array("L")
        done = 0
        for start, end, shown in [*runs, (len(original), len(original), True)]:
            parts.append(original[done:start])
            places.extend(range(done, start))
            before, after = original[start - 1 : start], original[end : end + 1]
            if start > done and after and _apart(before, after, shown=shown):
                parts.append(" ")
                places.append(start)
            done = end
        return cls(original, "".join(parts), places, tuple(runs))

    @property
    def is_original(self) -> bool:
        """Whether there was nothing to take out, so that offsets into both are the same."""
        return self._places is None

    def outside(self, start: int, end: int) -> tuple[int, int]:
        """Where ``text[start:end]``, which is not empty, is in the original: from its first to behind its last
        character."""
        if self._places is None:
            return start, end
        return self._places[start], self._places[end - 1] + 1

    def inside(self, start: int, end: int) -> tuple[int, int]:
        """What of the clean text is in ``original[start:end]``; may be empty."""
        if self._places is None:
            return start, end
        return bisect_left(self._places, start), bisect_left(self._places, end)

    def stretches(self, start: int, end: int) -> list[tuple[int, int]]:
        """``text[start:end]`` in the original, cut at the separators inside, as the words between them: without
        punctuation where it was cut, and without the pieces of a word that a separator cuts in two."""
        first, last = self.outside(start, end)
        index = bisect_left(self._ends, first + 1)
        if index == len(self._runs) or self._runs[index][0] >= last:
            return [(first, last)]
        uncut = []
        whole = True
        while index < len(self._runs) and self._runs[index][0] < last:
            cut, following, _ = self._runs[index]
            between = self._is_between_words(following)
            if whole and between:
                uncut.append((first, cut))
            whole, first = between, following
            index += 1
        if whole:
            uncut.append((first, last))
        trimmed = (_trimmed(self.original, *stretch) for stretch in uncut)
        return [(at, to) for at, to in trimmed if any(map(str.isalnum, self.original[at:to]))]

    def _is_between_words(self, place: int) -> bool:
        """Whether the clean text has white space where a separator that ends at ``place`` was."""
        index, _ = self.inside(place, place)
        return any(character.isspace() for character in self.text[max(0, index - 1) : index + 1])

    @cached_property
    def _ends(self) -> list[int]:
        return [end for _, end, _ in self._runs]


def _apart(before: str, after: str, *, shown: bool) -> bool:
    """Whether a space has to be left: a colour inside of ``INFO[0000]`` does not make two words of it, a NUL does."""
    if shown:
        return before.isalnum() and after.isalnum()
    return not before.isspace() and not after.isspace()


_EDGE = frozenset("-.,:;!?/\\@&'\u2019\u2013\u2014")


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and (text[start].isspace() or text[start] in _EDGE):
        start += 1
    while end > start and (text[end - 1].isspace() or text[end - 1] in _EDGE):
        end -= 1
    return start, end

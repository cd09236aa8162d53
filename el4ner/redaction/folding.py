"""A text as its letters and digits alone, folded so that forms of one name are equal, with their places in the text.

Case, accents, Unicode's compatibility forms and invisible characters make no difference, and what is no letter, digit
or symbol is only noted as a gap between two of them. A text with escapes (``M%C3%BCller``, ``M&uuml;ller``,
``M\\u00fcller``) is folded again as what it stands for (:mod:`el4ner.redaction.escapes`).
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

import regex

from el4ner.redaction.escapes import Unit, may_have_escapes, readings

__all__ = ["GENITIVE", "Folded", "Gap", "fold", "folded_forms", "goes_with_the_one_before", "is_unspaced"]


class Gap(IntEnum):
    """What stands between two letters of a text."""

    NONE = 0
    """Nothing, or what cannot be seen."""
    MARKS = 1
    """Punctuation without space: ``angela.merkel``."""
    HYPHENATED = 2
    """A hyphen right behind the letter, and then a line's end or spaces: a word most likely goes on behind it."""
    BROKEN = 3
    """A line's end without that, or a dash between spaces: a word may go on behind it."""
    SPACE = 4
    """Spaces, with punctuation or without."""


# Letters that Unicode does not take apart, as addresses and the names of files have them.
_PLAIN: Final = {
    "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "ĸ": "k",
}  # fmt: skip
_HYPHENS: Final = frozenset("-‐‑‒–—―−﹘﹣－⁃¬·~=")
_TRADE_MARKS: Final = frozenset("™℠")
_GAPS: Final = frozenset(("Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Zs", "Zl", "Zp", "Sm", "Sk", "Sc"))
"""Categories of what stands between letters. Other symbols (So) are letters: who is called 🦊 is found, too."""
_ACCENT_CLASS: Final = 10
"""Combining marks from this class on are accents and vowel points; those below voice a kana or end a syllable."""
_OVERLAY_CLASS: Final = 1
"""That of marks which strike a letter through."""
_UNSEEN: Final = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}\u0640]|(?![\s\x1c-\x1f\x85])\p{Cc}")
_ENDS_OF_DIRECTIONS: Final = frozenset("\u202c\u2069")
_UNSPACED: Final = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Bopomofo}\p{Yi}]"
)
_SPELLED: Final = {
    "ä": ("ae", "a"), "ö": ("oe", "o"), "ü": ("ue", "u"), "å": ("aa", "a"), "ø": ("oe", "o"),
}  # fmt: skip
_UMLAUT: Final = re.compile(
    f"[{''.join(_SPELLED)}]"
    r"|(?<![aeiouq])[aou]e(?![aeiou])"
    # In words of six letters and more: Haakon, but not Haas, which would be has.
    r"|(?<![aeiou])aa(?![aeiou])(?:(?=\w{4})|(?<=\waa)(?=\w{3})|(?<=\w{2}aa)(?=\w{2})|(?<=\w{3}aa)(?=\w)|(?<=\w{4}aa))"
)
_VARIED_UMLAUTS: Final = 5
GENITIVE: Final = re.compile(
    r"(?<=\w)(?P<mark>['’‘ʼ＇`´′]|&(?:\#0*(?:39|8217)|\#[xX]0*(?:27|2019)|apos|rsquo);|%27|%E2%80%99)[sS]$"
)
"""How a genitive ends that has an apostrophe, escaped or not."""
_TAG: Final = re.compile(r"</[A-Za-z]|<(?:br|wbr|hr|img)\b", re.IGNORECASE)


@dataclass(slots=True)
class Folded:
    """The letters of a text. All sequences are of the letters' number.

    Attributes:
        letters: folded.
        starts: where the character begins in the text that a letter comes from.
        ends: where it ends.
        gaps: what stands before each letter.
        capitals: whether it stands in the text as a capital, or in a script that has none and inflects.
    """

    letters: str = ""
    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    capitals: list[bool] = field(default_factory=list)

    def is_boundary(self, place: int) -> bool:
        """Whether a word may begin or end before the letter at ``place``."""
        if place <= 0 or place >= len(self.letters) or self.gaps[place] is not Gap.NONE:
            return True
        left, right = self.letters[place - 1], self.letters[place]
        if self.starts[place - 1] == self.starts[place]:  # inside what one character was folded to
            return False
        if is_unspaced(left) or is_unspaced(right) or left.isalpha() != right.isalpha():
            return True
        # camelCase
        return self.capitals[place] and not self.capitals[place - 1] and not _is_hangul(left)

    def word_end(self, place: int, most: int) -> int:
        """The end of the word that the letter before ``place`` is in; one that has more than ``most`` letters from
        there on is followed for one letter more."""
        last = place + most
        while place <= last and not self.is_boundary(place):
            place += 1
        return place

    def between(self, start: int, end: int) -> Folded:
        """The letters of ``text[start:end]``. Their places stay those in the whole text."""
        first, last = bisect_left(self.starts, start), bisect_right(self.ends, end)
        cut = slice(first, max(first, last))
        return Folded(self.letters[cut], self.starts[cut], self.ends[cut], self.gaps[cut], self.capitals[cut])


def fold(text: str, start: int = 0, *, markup: bool = True) -> Iterator[Folded]:
    """The letters of a text as it stands, and, where it has escapes, in each of the ways in which it may be read.

    Args:
        start: of the text in a larger one, which places are of.
        markup: whether to read it without its markup, too.
    """
    units: list[Unit] = [(character, place, place + 1) for place, character in enumerate(text, start)]
    yield _folded(units)
    if may_have_escapes(text):
        yield from map(_folded, readings(units, markup=markup))


def folded_forms(surface: str) -> set[tuple[str, frozenset[int]]]:
    """A surface's letters as they may be written, each with the places before which the surface has a gap.

    Umlauts have two spellings (``mueller``, ``muller``), each for itself (``Mueller-Schonfeld``).
    """
    # What only looks like markup may be most of a surface: vector<Ada>.
    written = [*fold(surface, markup=_TAG.search(surface) is not None)]
    composed = unicodedata.normalize("NFKC", surface).casefold()
    written += [next(fold(spelling)) for spelling in _spellings(composed)]
    return {
        (
            folded.letters,
            frozenset(place for place in range(1, len(folded.letters)) if folded.gaps[place] is not Gap.NONE),
        )
        for folded in written
        if folded.letters
    }


def _spellings(surface: str) -> Iterator[str]:
    """Each way to write a surface's umlauts. Of many umlauts only the first are varied each for itself."""
    places = list(_UMLAUT.finditer(surface))
    if not places:
        return
    varied = [_SPELLED.get(place.group()) or (place.group(), place.group()[0]) for place in places]
    first = list(product((0, 1), repeat=min(len(places), _VARIED_UMLAUTS)))
    for chosen in dict.fromkeys(
        (*choice, *[rest] * (len(places) - len(choice))) for choice in first for rest in (0, 1)
    ):
        last = 0
        pieces: list[str] = []
        for place, options, index in zip(places, varied, chosen, strict=True):
            pieces += (surface[last : place.start()], options[index])
            last = place.end()
        yield "".join([*pieces, surface[last:]])


def goes_with_the_one_before(character: str) -> bool:
    """Whether a character is an accent or cannot be seen: it has no place of its own. The end of a run of text in
    another direction has: without it that would go on to the end of the line."""
    if character in _ENDS_OF_DIRECTIONS:
        return False
    return bool(unicodedata.combining(character)) or _UNSEEN.fullmatch(character) is not None


@lru_cache(maxsize=8_192)
def is_unspaced(letter: str) -> bool:
    """Whether it is of a script that puts no spaces between words."""
    return _UNSPACED.fullmatch(letter) is not None


def _folded(units: list[Unit]) -> Folded:
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    gaps: list[Gap] = []
    capitals: list[bool] = []
    none, marks, hyphenated, interrupted, spaced = Gap.NONE, Gap.MARKS, Gap.HYPHENATED, Gap.BROKEN, Gap.SPACE
    gap = none
    space = hyphen = glued = broken = False
    for character, start, end in units:
        kind = _KINDS[character]
        if kind.letters is None:
            continue
        if not kind.letters:
            glued = glued or (kind.hyphen and not space)
            space, broken, hyphen = space or kind.space, broken or kind.ends_line, hyphen or kind.hyphen
            interruption = hyphenated if glued else interrupted
            gap = interruption if broken or (hyphen and space) else spaced if space else marks
            continue
        for letter in kind.letters:
            letters.append(letter)
            starts.append(start)
            ends.append(end)
            gaps.append(gap)
            capitals.append(kind.capital)
            gap = none
        space = hyphen = glued = broken = False
    return Folded("".join(letters), starts, ends, gaps, capitals)


class _Kind(NamedTuple):
    """What there is to know of a character. ``letters``: what it is folded to; empty, it is a gap; None, nothing."""

    letters: str | None
    capital: bool
    space: bool
    ends_line: bool
    hyphen: bool


class _Kinds(dict[str, _Kind]):
    """What is known of characters by now: texts use few of those that there are."""

    def __missing__(self, character: str) -> _Kind:
        letters = _letters_of(character)
        kind = self[character] = _Kind(
            letters,
            character.isupper() or character.istitle() or _is_hangul((letters or " ")[0]),
            character.isspace(),
            character in "\n\r\v\f\x85\u2028\u2029",
            character in _HYPHENS,
        )
        return kind


_KINDS: Final = _Kinds()


def _letters_of(character: str) -> str | None:
    """See :class:`_Kind`."""
    if _UNSEEN.fullmatch(character) is not None:
        return None
    if character.isspace() or character in _TRADE_MARKS or unicodedata.category(character) in _GAPS:
        return ""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    kept = []
    for part in folded:
        mark = unicodedata.combining(part)
        if mark >= _ACCENT_CLASS or mark == _OVERLAY_CLASS or _UNSEEN.fullmatch(part) is not None:
            continue
        if unicodedata.category(part) not in _GAPS and unicodedata.category(part) not in ("Cc", "Me"):
            kept.append(_PLAIN.get(part, part))
    # An accent by itself belongs to the letter before it.
    return "".join(kept) if kept or not unicodedata.category(character).startswith("M") else None


def _is_hangul(letter: str) -> bool:
    return "\u1100" <= letter <= "\u11ff"

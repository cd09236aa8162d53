"""A text as its letters and digits alone, folded so that forms of one name are equal, with their places in the text.

Case, accents, Unicode's compatibility forms and invisible characters make no difference, and what is no letter, digit
or symbol is only noted as a gap between two of them. A text with escapes (``M%C3%BCller``, ``M&uuml;ller``,
``M\\u00fcller``) is folded a second time as what it stands for.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

import regex

__all__ = ["Folded", "Gap", "fold", "folded_forms", "goes_with_the_one_before", "is_unspaced", "may_have_escapes"]

Unit = tuple[str, int, int]
"""A character, and where it begins and ends in the text (an escape is longer than the character it stands for)."""


class Gap(IntEnum):
    """What stands between two letters of a text."""

    NONE = 0
    """Nothing, or what cannot be seen."""
    MARKS = 1
    """Punctuation without space: ``angela.merkel``."""
    BROKEN = 2
    """A line's end, or a hyphen with spaces: a word may go on behind it."""
    SPACE = 3
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
_UNSEEN: Final = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}]|(?![\s\x1c-\x1f\x85])\p{Cc}")
_UNSPACED: Final = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Bopomofo}\p{Yi}]"
)
_ESCAPE: Final = re.compile(
    r"(?P<percent>(?:%[0-9A-Fa-f]{2})+)|(?P<entity>&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});)"
    r"|(?P<unicode>(?:\\u[0-9A-Fa-f]{4})+)|(?P<quoted>(?:=[0-9A-F]{2})+)|(?P<control>\\[nrt])"
)
_MOST_LAYERS: Final = 3


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

    def word_end(self, place: int) -> int:
        """The end of the word that the letter before ``place`` is in."""
        while not self.is_boundary(place):
            place += 1
        return place

    def between(self, start: int, end: int) -> Folded:
        """The letters of ``text[start:end]``. Their places stay those in the whole text."""
        first, last = bisect_left(self.starts, start), bisect_right(self.ends, end)
        cut = slice(first, max(first, last))
        return Folded(self.letters[cut], self.starts[cut], self.ends[cut], self.gaps[cut], self.capitals[cut])


def may_have_escapes(text: str) -> bool:
    """Whether :func:`fold` may give more than one reading."""
    return any(mark in text for mark in "%&=\\")


def fold(text: str, start: int = 0) -> Iterator[Folded]:
    """The letters of a text as it stands, and, where it has escapes, as these are read: layer by layer.

    ``start``: of the text in a larger one, which places are of.
    """
    units: list[Unit] = [(character, place, place + 1) for place, character in enumerate(text, start)]
    yield _folded(units)
    if not may_have_escapes(text):
        return
    for _ in range(_MOST_LAYERS):
        text, read = _with_escapes_read(text, units)
        if read is units:
            return
        units = read
        yield _folded(units)


def folded_forms(surface: str) -> set[tuple[str, frozenset[int]]]:
    """A surface's letters as they may be written, each with the places before which the surface has a gap.

    Umlauts have two spellings in addresses (``mueller``, ``muller``).
    """
    forms = set()
    for folded in fold(surface):
        gaps = frozenset(place for place in range(1, len(folded.letters)) if folded.gaps[place] is not Gap.NONE)
        if folded.letters:
            forms.add((folded.letters, gaps))
    composed = unicodedata.normalize("NFKC", surface).casefold()
    for umlaut, spelled in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("å", "aa")):
        composed = composed.replace(umlaut, spelled)
    plain = re.sub(r"(?<![aeiouq])([aou])e(?![aeiou])", r"\1", composed)
    for spelling in (composed, plain):
        folded = next(fold(spelling))
        gaps = frozenset(place for place in range(1, len(folded.letters)) if folded.gaps[place] is not Gap.NONE)
        if folded.letters:
            forms.add((folded.letters, gaps))
    return forms


def _with_escapes_read(text: str, units: list[Unit]) -> tuple[str, list[Unit]]:
    """The text with its escapes read, and its units; the same list where there are none."""
    read: list[Unit] = []
    last = 0
    for match in _ESCAPE.finditer(text):
        if (characters := _meant_by(match)) is None:
            continue
        read += units[last : match.start()]
        start, end = units[match.start()][1], units[match.end() - 1][2]
        read += _spread(characters, start, end, match)
        last = match.end()
    if last == 0:
        return text, units
    read += units[last:]
    return "".join(character for character, _, _ in read), read


def goes_with_the_one_before(character: str) -> bool:
    """Whether a character is an accent or cannot be seen: it has no place of its own."""
    return bool(unicodedata.combining(character)) or _UNSEEN.fullmatch(character) is not None


@lru_cache(maxsize=8_192)
def is_unspaced(letter: str) -> bool:
    """Whether it is of a script that puts no spaces between words."""
    return _UNSPACED.fullmatch(letter) is not None


def _meant_by(match: re.Match[str]) -> str | None:
    escape = match.group()
    if match.lastgroup in ("percent", "quoted"):
        octets = bytes.fromhex(escape.replace("%", "").replace("=", ""))
        try:
            return octets.decode()
        except UnicodeDecodeError:
            return octets.decode("latin-1")
    if match.lastgroup == "unicode":
        # Two may be the halves of one character.
        halves = b"".join(int(part, 16).to_bytes(2, "big") for part in escape.split("\\u")[1:])
        return halves.decode("utf-16-be", "replace")
    if match.lastgroup == "control":
        return "\n"
    meant = html.unescape(escape)
    return None if meant == escape else meant


def _spread(characters: str, start: int, end: int, match: re.Match[str]) -> Iterator[Unit]:
    """The characters that an escape stands for, each with the place of its own part of it, if that can be told."""
    if match.lastgroup in ("percent", "quoted"):
        octets = (end - start) // 3
        sizes = [len(character.encode("utf-8", "surrogatepass")) for character in characters]
        sizes = sizes if sum(sizes) == octets else [1] * len(characters)
        if sum(sizes) == octets and octets * 3 == end - start:
            place = start
            for character, size in zip(characters, sizes, strict=True):
                yield character, place, place + 3 * size
                place += 3 * size
            return
    for character in characters:
        yield character, start, end


def _folded(units: list[Unit]) -> Folded:
    letters: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    gaps: list[Gap] = []
    capitals: list[bool] = []
    none, marks, interrupted, spaced = Gap.NONE, Gap.MARKS, Gap.BROKEN, Gap.SPACE
    gap = none
    space = hyphen = broken = False
    for character, start, end in units:
        kind = _KINDS[character]
        if kind.letters is None:
            continue
        if not kind.letters:
            space, broken, hyphen = space or kind.space, broken or kind.ends_line, hyphen or kind.hyphen
            gap = interrupted if broken or (hyphen and space) else spaced if space else marks
            continue
        for letter in kind.letters:
            letters.append(letter)
            starts.append(start)
            ends.append(end)
            gaps.append(gap)
            capitals.append(kind.capital)
            gap = none
        space = hyphen = broken = False
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
        if unicodedata.combining(part) >= _ACCENT_CLASS or _UNSEEN.fullmatch(part) is not None:
            continue
        if unicodedata.category(part) not in _GAPS and unicodedata.category(part) not in ("Cc", "Me"):
            kept.append(_PLAIN.get(part, part))
    # An accent by itself belongs to the letter before it.
    return "".join(kept) if kept or not unicodedata.category(character).startswith("M") else None


def _is_hangul(letter: str) -> bool:
    return "\u1100" <= letter <= "\u11ff"

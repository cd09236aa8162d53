"""Words of prose and the runs that they form: capitalised ones, and content words.

Words go by Unicode's rules (UAX 29): marks, vowel signs and joiners belong to the letter before them. Two things
differ: some signs between letters join (``well-known``, ``AT&T``), and ``3,500`` is two words. Scripts without spaces
are cut by ICU.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import regex

from el4ner.text.atoms import address_end
from el4ner.text.boundaries import CHARACTER, MARK, MAX_CLUSTER, inside_characters
from el4ner.text.icu import unspaced_words
from el4ner.text.log_patterns import URL
from el4ner.text.scripts import UNSPACED
from el4ner.text.white_space import LINE_BREAK
from el4ner.text.words import function_words

__all__ = [
    "BREAKING_JOINERS",
    "JOINERS",
    "Case",
    "Word",
    "caseless_runs",
    "content_runs",
    "is_function_word",
    "is_proper",
    "lines_of",
    "proper_runs",
    "word_surfaces",
    "words_of",
]

# Signs inside a word: O'Neil, U.S., well-known, 3.5, AT&T; and what UAX 29 has between letters in other scripts (the
# Catalan middle dot, Hebrew's maqaf, geresh, gershayim and quote, full-width forms).
_INNER = (
    r"(?:[_&.'’\-/·\u0387\u055f\u05be\u05f3\u05f4\u2010\u2011\u2024\u2027\ufe52＆＇－．／＿]"
    r"|(?<=\p{Hebrew}\p{M}{0,4})\"(?=\p{Hebrew}))"
)
# A possessive ending is not part of a word. The full stop of an initial is.
_SPACED = (
    rf"{CHARACTER}(?:(?:\p{{WB=Format}}{{0,4}}+|{_INNER}){CHARACTER})*+"
    rf"(?:\.(?<=\b\p{{Lu}}{MARK}{{0,{MAX_CLUSTER - 1}}}\.))?"
)
_UNSPACED = rf"(?:{UNSPACED}{MARK}{{0,{MAX_CLUSTER - 1}}}+(?!{MARK}))+"
_WORD = regex.compile(rf"{_SPACED}|(?P<unspaced>{_UNSPACED})", regex.VERSION1)
_ASCII_WORD = re.compile(r"[A-Za-z0-9](?:[_&.'\-/]?[A-Za-z0-9])*+(?:\.(?<=\b[A-Z]\.))?")  # the same, sooner
_POSSESSIVES = ("'s", "’s")
_CAPITAL_OR_DIGIT = re.compile("[A-Z0-9]")
MAX_WORD_CHARS = 100
"""What is longer is no word: an encoded file, a key."""
JOINERS = frozenset(
    "of the de del della der den di da do dos du la le el al bin ibn van von zu y e for in on to at and".split()  # noqa: SIM905
)
BREAKING_JOINERS = frozenset({"and", "in", "on", "to", "at", "for"})
_GAP_INSIDE_NAME = regex.compile(
    rf"(?:['’]s)?(?=.)[\p{{Zs}}\-–&]*+(?:{LINE_BREAK}[\p{{Zs}}\-–&]*+)?|[-–&'’.]", regex.DOTALL
)
_GAP_BETWEEN_CONTENT = regex.compile(rf"(?=.)[\p{{Zs}}\-]*+(?:{LINE_BREAK}[\p{{Zs}}\-]*+)?", regex.DOTALL)
# Signs between the parts of a name: the middle dots of Japanese and Chinese, the dot between Tibetan syllables, and
# joiners that are no part of a character.
_GAP_BETWEEN_CASELESS = regex.compile(rf"[・･·‧་=＝\u200b\u2060]|[\p{{Zs}}\-－]*+(?:{LINE_BREAK}[\p{{Zs}}\-－]*+)?")
_LINE_BREAK = regex.compile(LINE_BREAK)
_URL = re.compile(URL)


class Case(Enum):
    """What a word's letters say about whether it is a name. ``LESS``: its script has no capitals; ``UNSPACED``: nor
    spaces between words."""

    CASED = "cased"
    LESS = "caseless"
    UNSPACED = "unspaced"


class Word(NamedTuple):
    """A word of a text, and whether it bounds a chunk (``function``) or looks like a name (``proper``)."""

    start: int
    end: int
    text: str
    function: bool
    proper: bool
    case: Case = Case.CASED


def is_proper(word: str) -> bool:
    """Whether a word looks like a name: it has a capital or a digit."""
    if word.isascii():
        return _CAPITAL_OR_DIGIT.search(word) is not None
    return any(character.isupper() or character.isdigit() for character in word)


def is_function_word(word: str) -> bool:
    """Whether it is a closed-class word, however its marks are written."""
    lower = word.lower()
    return (lower if lower.isascii() else unicodedata.normalize("NFC", lower)) in function_words()


def word_surfaces(text: str) -> list[str]:
    """The words of ``text``, each with the punctuation inside it."""
    return [text[start:end] for start, end, _ in _words(text)]


def words_of(text: str) -> list[Word]:
    """The words of a text, without those inside a URL and those of more than :data:`MAX_WORD_CHARS` characters."""
    words = []
    urls = _URL.finditer(text) if "://" in text else ()
    addresses = [(match.start(), address_end(text, *match.span())) for match in urls]
    all_shouted = text.isupper()
    address = 0
    for start, end, unspaced in _words(text):
        while address < len(addresses) and addresses[address][1] <= start:
            address += 1
        if end - start > MAX_WORD_CHARS or (address < len(addresses) and addresses[address][0] <= start):
            continue
        surface = text[start:end]
        if surface.endswith(_POSSESSIVES):
            surface = surface[:-2]
        function, in_capitals, proper, case = _looks(surface)
        # "US", "IT", "WHO" in capitals are names, not pronouns, unless the whole text shouts.
        function = function and (all_shouted or not in_capitals)
        words.append(Word(start, start + len(surface), surface, function, proper, Case.UNSPACED if unspaced else case))
    return words


@lru_cache(maxsize=4096)  # most words of a text are words of others
def _looks(surface: str) -> tuple[bool, bool, bool, Case]:
    """Whether it is a function word, written in capitals (several of them), and proper; and its case."""
    in_capitals = len(surface) > 1 and surface.isupper()
    return is_function_word(surface), in_capitals, is_proper(surface), _case(surface)


def _words(text: str) -> Iterator[tuple[int, int, bool]]:
    """Start, end, and whether the word is of a script without spaces. What cuts a user-perceived character is no word:
    a Thai vowel behind a sign of another script, say."""
    if text.isascii():
        for word in _ASCII_WORD.finditer(text):
            yield *word.span(), False
        return
    inside = inside_characters(text)
    for match in _WORD.finditer(text):
        start = match.start()
        unspaced = match.lastgroup is not None
        words = unspaced_words(match.group()) if unspaced else [(0, match.end() - start)]
        for first, last in words:
            if start + first not in inside and start + last not in inside:
                yield start + first, start + last, unspaced


def _case(surface: str) -> Case:
    """A word without letters (a number) is like one in capitals."""
    if surface.isascii() or not any(map(str.isalpha, surface)):
        return Case.CASED
    return Case.CASED if any(c.isupper() or c.islower() or c.istitle() for c in surface) else Case.LESS


def lines_of(text: str, run: list[Word]) -> list[list[Word]]:
    """The words of a run line by line, none of them empty."""
    if _LINE_BREAK.search(text, run[0].start, run[-1].end) is None:
        return [list(run)]
    lines = [run[:1]]
    for before, word in pairwise(run):
        if _LINE_BREAK.search(text, before.end, word.start):
            lines.append([])
        lines[-1].append(word)
    return lines


def proper_runs(text: str, words: list[Word]) -> list[list[Word]]:
    """Maximal runs of capitalised words; joiners may stand inside, never at an end."""
    runs: list[list[Word]] = []
    run: list[Word] = []
    waiting: list[Word] = []  # joiners that belong to the run only if another name follows
    for word in words:
        last = (waiting or run)[-1] if run else None
        broken = last is not None and not _is_between(_GAP_INSIDE_NAME, text, last, word)
        if broken:
            runs.append(run)
            run, waiting = [], []
        if word.proper and not word.function:
            run += [*waiting, word]
            waiting = []
        elif run and word.text in JOINERS and len(waiting) < 2:
            waiting.append(word)
        elif run:
            runs.append(run)
            run, waiting = [], []
    if run:
        runs.append(run)
    return [run for run in runs if run]


def _is_between(gap: regex.Pattern[str], text: str, before: Word, word: Word) -> bool:
    """Whether what is between two words is such a gap. A single space is any."""
    return text[before.end : word.start] == " " or gap.fullmatch(text, before.end, word.start) is not None


def content_runs(text: str, words: list[Word]) -> list[list[Word]]:
    """Maximal runs of words that are no function words, with nothing but space or a hyphen between them; of scripts
    with capitals."""
    return _runs(text, [word for word in words if word.case is Case.CASED], _GAP_BETWEEN_CONTENT)


def caseless_runs(text: str, words: list[Word]) -> list[list[Word]]:
    """As :func:`content_runs`, of all words, where a script without capitals has a part: such words follow one another
    without a space, too, or behind a sign that their scripts join names by."""
    if all(word.case is Case.CASED for word in words):
        return []
    return [run for run in _runs(text, words, _GAP_BETWEEN_CASELESS) if any(w.case is not Case.CASED for w in run)]


def _runs(text: str, words: list[Word], gap: regex.Pattern[str]) -> list[list[Word]]:
    runs: list[list[Word]] = []
    run: list[Word] = []
    for word in words:
        apart = run and not _is_between(gap, text, run[-1], word)
        if run and (apart or word.function):
            runs.append(run)
            run = []
        if not word.function:
            run.append(word)
    if run:
        runs.append(run)
    return runs

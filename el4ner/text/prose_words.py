"""Words of prose and the runs that they form: capitalised ones, and content words."""

from __future__ import annotations

import re
from typing import NamedTuple

from el4ner.text.log_patterns import URL
from el4ner.text.words import function_words

__all__ = [
    "BREAKING_JOINERS",
    "JOINERS",
    "Word",
    "content_runs",
    "is_proper",
    "proper_runs",
    "word_surfaces",
    "words_of",
]

# A word with its inner punctuation: O'Neil, U.S., well-known, 3.5, AT&T. A possessive ending is not part of it.
_WORD = re.compile(r"[^\W_](?:[^\W_]|[_&.'’\-/](?=[^\W_]))*(?:(?<=\b[A-Z])\.)?")
_POSSESSIVE = re.compile(r"['’]s$")
JOINERS = frozenset(
    "of the de del della der den di da do dos du la le el al bin ibn van von zu y e for in on to at and".split()  # noqa: SIM905
)
BREAKING_JOINERS = frozenset({"and", "in", "on", "to", "at", "for"})
_GAP_INSIDE_NAME = re.compile(r"^(?:['’]s)?[ \t\-–&]+$|^[-–&'’.]$")
_URL = re.compile(URL)


class Word(NamedTuple):
    """A word of a text, and whether it bounds a chunk (``function``) or looks like a name (``proper``)."""

    start: int
    end: int
    text: str
    function: bool
    proper: bool


def is_proper(word: str) -> bool:
    """Whether a word looks like a name: it has a capital or a digit."""
    return any(character.isupper() or character.isdigit() for character in word)


def word_surfaces(text: str) -> list[str]:
    """The words of ``text``, each with the punctuation inside it."""
    return [found.group() for found in _WORD.finditer(text)]


def words_of(text: str) -> list[Word]:
    """The words of a text, without those inside a URL."""
    words = []
    addresses = [found.span() for found in _URL.finditer(text)]
    all_shouted = text.isupper()
    address = 0
    for found in _WORD.finditer(text):
        while address < len(addresses) and addresses[address][1] <= found.start():
            address += 1
        if address < len(addresses) and addresses[address][0] <= found.start():
            continue
        surface = _POSSESSIVE.sub("", found.group())
        lower = surface.lower()
        # "US", "IT", "WHO" in capitals are names, not pronouns, unless the whole text shouts.
        shouted = surface.isupper() and len(surface) > 1 and not all_shouted
        words.append(
            Word(
                found.start(),
                found.start() + len(surface),
                surface,
                lower in function_words() and not shouted,
                is_proper(surface),
            )
        )
    return words


def proper_runs(text: str, words: list[Word]) -> list[list[Word]]:
    """Maximal runs of capitalised words; joiners may stand inside, never at an end."""
    runs: list[list[Word]] = []
    run: list[Word] = []
    waiting: list[Word] = []  # joiners that belong to the run only if another name follows
    for word in words:
        last = (waiting or run)[-1] if run else None
        broken = last is not None and not _GAP_INSIDE_NAME.match(text[last.end : word.start])
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


def content_runs(text: str, words: list[Word]) -> list[list[Word]]:
    """Maximal runs of words that are no function words, with nothing but space or a hyphen between them."""
    runs: list[list[Word]] = []
    run: list[Word] = []
    for word in words:
        apart = run and not re.fullmatch(r"[ \t\-]+", text[run[-1].end : word.start])
        if run and (apart or word.function):
            runs.append(run)
            run = []
        if not word.function:
            run.append(word)
    if run:
        runs.append(run)
    return runs

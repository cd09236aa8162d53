"""Cheap span proposals, without a model: what in a text might be a mention.

For prose: runs of capitalised words (with the small words that join names: *Bank of England*), the parts of such runs,
and runs of content words between function words and punctuation. For log lines: fields and what they are made of, since
hosts, addresses, paths and codes are words with punctuation inside.

Nothing here knows any entity type. High recall and cheap; the classifier's ``none`` is what makes it precise.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources
from typing import NamedTuple

from el4ner.text.segment import TextKind
from el4ner.types import Span

__all__ = ["COMMON_WEIGHT", "PRONOUN_WEIGHT", "PROPER_WEIGHT", "Chunk", "chunks", "span_weight"]

PROPER_WEIGHT = 4.0
COMMON_WEIGHT = 2.0
PRONOUN_WEIGHT = 1.0
"""Retrieval weighs proper nouns over nouns over pronouns. The paper's own values are not published; 4 / 2 / 1 is what a
public replication uses."""

MAX_WORDS = 8
MAX_COMMON_WORDS = 4

# A word with its inner punctuation: O'Neil, U.S., well-known, 3.5, AT&T. A possessive ending is not part of it.
_WORD = re.compile(r"[^\W_](?:[^\W_]|[_&.'’\-/](?=[^\W_]))*(?:(?<=\b[A-Z])\.)?")
_POSSESSIVE = re.compile(r"['’]s$")
_JOINERS = frozenset(
    {
        "of",
        "the",
        "de",
        "del",
        "della",
        "der",
        "den",
        "di",
        "da",
        "do",
        "dos",
        "du",
        "la",
        "le",
        "el",
        "al",
        "bin",
        "ibn",
        "van",
        "von",
        "zu",
        "y",
        "e",
        "for",
        "in",
        "on",
        "to",
        "at",
        "and",
    }
)
_BREAKING_JOINERS = frozenset({"and", "in", "on", "to", "at", "for"})
_GAP_INSIDE_NAME = re.compile(r"^(?:['’]s)?[ \t\-–&]+$|^[-–&'’.]$")

_FIELD = re.compile(r"[^\s\"'`(){}<>\[\],;|]+")
_PART = re.compile(r"[^\s\"'`(){}<>\[\],;|=:@]+")
_EDGES = ".,:;=!?-"


class Chunk(NamedTuple):
    """A proposed span, and whether it looks like a name (capitals, digits) or like common words."""

    span: Span
    proper: bool


class _Word(NamedTuple):
    start: int
    end: int
    text: str
    function: bool
    proper: bool


def chunks(text: str, kind: TextKind = "prose") -> list[Chunk]:
    """The proposals for one sentence: sorted by start then longest first, each span once."""
    found = _log_chunks(text) if kind == "log" else _prose_chunks(text)
    unique = {(chunk.span.start, chunk.span.end): chunk for chunk in found}
    return sorted(unique.values(), key=lambda chunk: (chunk.span.start, -chunk.span.end))


def span_weight(surface: str) -> float:
    """The weight of an input span in retrieval, judged by its form: proper, pronoun or common."""
    words = [found.group() for found in _WORD.finditer(surface)]
    if words and all(word.lower() in function_words() for word in words):
        return PRONOUN_WEIGHT
    return PROPER_WEIGHT if any(_is_proper(word) for word in words) else COMMON_WEIGHT


@cache
def function_words() -> frozenset[str]:
    """The closed-class words that bound a chunk, lower case."""
    lines = (resources.files("el4ner.text") / "function_words.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


def _is_proper(word: str) -> bool:
    return any(character.isupper() or character.isdigit() for character in word)


def _words(text: str) -> list[_Word]:
    words = []
    for found in _WORD.finditer(text):
        surface = _POSSESSIVE.sub("", found.group())
        lower = surface.lower()
        # "US", "IT", "WHO" in capitals are names, not pronouns, unless the whole text shouts.
        shouted = surface.isupper() and len(surface) > 1 and not text.isupper()
        words.append(
            _Word(
                found.start(),
                found.start() + len(surface),
                surface,
                lower in function_words() and not shouted,
                _is_proper(surface),
            )
        )
    return words


def _prose_chunks(text: str) -> list[Chunk]:
    words = _words(text)
    found: list[Chunk] = []
    for run in _proper_runs(text, words):
        found.extend(_run_and_parts(text, run))
    for run in _content_runs(text, words):
        found.extend(_common_parts(text, run))
    return found


def _chunk(text: str, words: list[_Word], *, proper: bool) -> Chunk:
    start, end = words[0].start, words[-1].end
    return Chunk(Span(start, end, text[start:end]), proper)


def _proper_runs(text: str, words: list[_Word]) -> list[list[_Word]]:
    """Maximal runs of capitalised words; joiners may stand inside, never at an end."""
    runs: list[list[_Word]] = []
    run: list[_Word] = []
    waiting: list[_Word] = []  # joiners that belong to the run only if another name follows
    for word in words:
        last = (waiting or run)[-1] if run else None
        broken = last is not None and not _GAP_INSIDE_NAME.match(text[last.end : word.start])
        if broken:
            runs.append(run)
            run, waiting = [], []
        if word.proper and not word.function:
            run = [*run, *waiting, word]
            waiting = []
        elif run and word.text in _JOINERS and len(waiting) < 2:
            waiting.append(word)
        elif run:
            runs.append(run)
            run, waiting = [], []
    if run:
        runs.append(run)
    return [run for run in runs if run]


def _run_and_parts(text: str, run: list[_Word]) -> list[Chunk]:
    """The run itself, what lies between its joiners, and the capitalised stretches between those."""
    spans: list[list[_Word]] = []
    if len(run) <= MAX_WORDS:
        spans.append(run)
    part: list[_Word] = []
    coarse: list[_Word] = []
    for word in [*run, None]:
        if word is None or word.text in _JOINERS:
            if part:
                spans.append(part)
            part = []
            if word is None or word.text in _BREAKING_JOINERS:
                while coarse and coarse[-1].text in _JOINERS:
                    coarse.pop()
                if coarse and len(coarse) <= MAX_WORDS:
                    spans.append(coarse)
                coarse = []
            elif coarse:
                coarse.append(word)
        else:
            part.append(word)
            coarse.append(word)
    spans.extend(_without_first(spans))
    return [_chunk(text, words, proper=True) for words in spans]


def _without_first(spans: list[list[_Word]]) -> list[list[_Word]]:
    """*President Barack Obama* is also *Barack Obama*: what stands before a name is often a title in capitals.
    And a name with a possessive inside (*Serbian People's Party*) is also its two sides (*Tower's Senate*)."""
    more = []
    for words in spans:
        if len(words) >= 3 and words[1].text not in _JOINERS:
            more.append(words[1:])
        for index in range(1, len(words)):
            if words[index].start - words[index - 1].end >= 3 and words[index].text not in _JOINERS:
                more.extend((words[:index], words[index:]))
    return more


def _content_runs(text: str, words: list[_Word]) -> list[list[_Word]]:
    """Maximal runs of words that are no function words, with nothing but space or a hyphen between them."""
    runs: list[list[_Word]] = []
    run: list[_Word] = []
    for word in words:
        apart = run and not re.fullmatch(r"[ \t\-]+", text[run[-1].end : word.start])
        if run and (apart or word.function):
            runs.append(run)
            run = []
        if not word.function:
            run = [*run, word]
    if run:
        runs.append(run)
    return runs


def _common_parts(text: str, run: list[_Word]) -> list[Chunk]:
    """A run of content words, and each change between common words and names inside it."""
    proper = any(word.proper for word in run)
    found = [_chunk(text, run, proper=proper)] if len(run) <= MAX_COMMON_WORDS else []
    part: list[_Word] = []
    for word in [*run, None]:
        if part and (word is None or word.proper != part[0].proper):
            if len(part) <= MAX_COMMON_WORDS:
                found.append(_chunk(text, part, proper=part[0].proper))
            part = []
        if word is not None:
            part.append(word)
    return found


def _log_chunks(text: str) -> list[Chunk]:
    found: list[Chunk] = []
    for pattern in (_FIELD, _PART):
        for match in pattern.finditer(text):
            start, end = match.span()
            while start < end and text[start] in _EDGES:
                start += 1
            while end > start and text[end - 1] in _EDGES:
                end -= 1
            surface = text[start:end]
            if not any(character.isalnum() for character in surface) or surface.lower() in function_words():
                continue
            found.append(Chunk(Span(start, end, surface), proper=not surface.isalpha() or not surface.islower()))
    return found
